//! The in-process event bus: relays the outbox to the consumers of this
//! process, at least once and in order per entity.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use uuid::Uuid;

use super::store::outbox::{Envelope, NewTicket, Place};
use super::{Store, StoreError};
use crate::clock::Clock;
use crate::domain::ids::{shard_of, with_shard};
use crate::telemetry;

/// How many events are relayed in one go.
const RELAY_MAX: u32 = 512;

/// How long the relay sleeps at most if nothing wakes it: after an outage it
/// goes on by itself.
const IDLE_MS: u64 = 1_000;

/// How long it waits after a failure.
const BACKOFF_MS: u64 = 200;

/// The name under which ticket issue keeps its marks.
const TICKETS: &str = "tickets";

/// Relays the outbox and issues tickets, until it is dropped.
#[derive(Debug)]
pub struct Bus {
    relay: tokio::task::JoinHandle<()>,
}

impl Bus {
    /// Starts the relay. Tickets are signed later, on reading, by the key
    /// called `ticket_kid`. `wake` tells it that a commit may have filled the
    /// outbox.
    #[must_use]
    pub fn start(store: Store, clock: Clock, ticket_kid: String, wake: Arc<Notify>) -> Self {
        let relay = tokio::spawn(async move {
            let mut behind = 0;
            loop {
                let pause = match relay(&store, &clock, &ticket_kid).await {
                    Ok(relayed) => {
                        if relayed.behind != behind {
                            behind = relayed.behind;
                            tell_behind(&relayed);
                        }
                        if relayed.published == 0 { IDLE_MS } else { 0 }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the outbox could not be relayed, will try again");
                        BACKOFF_MS
                    }
                };
                if pause > 0 {
                    let pause = Duration::from_millis(pause);
                    let _ = tokio::time::timeout(pause, wake.notified()).await;
                }
            }
        });
        Self { relay }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

/// What became of the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Relayed {
    /// How many events were published.
    published: usize,
    /// How many are behind a hole in the numbers of their entity.
    behind: usize,
    /// One of those entities.
    held_up: Option<Uuid>,
}

/// A hole means that the outbox itself is damaged: a commit writes an entity's
/// events without one. Its entity waits for an operator, the others go on.
fn tell_behind(relayed: &Relayed) {
    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    metrics::gauge!(telemetry::OUTBOX_BEHIND_EVENTS).set(relayed.behind as f64);
    match relayed.held_up {
        Some(entity) => tracing::error!(
            entity.id = %entity,
            events = relayed.behind,
            "the outbox has a hole in its numbers: events behind it are left"
        ),
        None => tracing::info!("the outbox has no hole in its numbers any more"),
    }
}

/// Goes once through the whole outbox, from entity to entity.
async fn relay(store: &Store, clock: &Clock, kid: &str) -> Result<Relayed, StoreError> {
    let mut relayed = Relayed::default();
    let mut after: Option<Place> = None;
    loop {
        let events = store.unpublished(None, after.as_ref(), RELAY_MAX).await?;
        let Some(last) = events.last() else {
            return Ok(relayed);
        };
        after = Some((last.entity, last.topic.clone(), last.event_seq));
        let is_last = events.len() < RELAY_MAX as usize;
        relay_some(store, clock, kid, events, &mut relayed).await?;
        if is_last {
            return Ok(relayed);
        }
    }
}

async fn relay_some(
    store: &Store,
    clock: &Clock,
    kid: &str,
    events: Vec<Envelope>,
    relayed: &mut Relayed,
) -> Result<(), StoreError> {
    let with_tickets: Vec<_> = events
        .iter()
        .map(|event| (event.clone(), tickets_of(event)))
        .collect();
    let taken = store
        .issue_tickets(TICKETS, with_tickets, kid.to_owned(), clock.now())
        .await?;
    let (mut published, mut behind) = (Vec::new(), Vec::new());
    for (event, taken) in events.into_iter().zip(taken) {
        if taken {
            published.push(event);
        } else {
            behind.push(event);
        }
    }
    relayed.published += published.len();
    relayed.behind += behind.len();
    relayed.held_up = relayed.held_up.or(behind.first().map(|event| event.entity));
    if published.is_empty() {
        return Ok(());
    }
    store.mark_published(&published, clock.now()).await
}

#[derive(Deserialize)]
struct OrderConfirmed {
    order_id: Uuid,
    user_id: Uuid,
    timetable_id: Uuid,
    seats: Vec<SoldSeat>,
}

#[derive(Deserialize)]
struct SoldSeat {
    seat: u32,
}

/// The tickets that an event asks for; none for other events.
fn tickets_of(event: &Envelope) -> Vec<NewTicket> {
    if event.kind != "order.confirmed" {
        return Vec::new();
    }
    let Ok(order) = serde_json::from_str::<OrderConfirmed>(&event.payload) else {
        tracing::error!(event.id = %event.event_id, "an order event is unreadable, no tickets");
        return Vec::new();
    };
    let shard = shard_of(order.timetable_id);
    let ticket = |sold: &SoldSeat| NewTicket {
        id: with_shard(Uuid::now_v7(), shard),
        order: order.order_id,
        seat: sold.seat,
        timetable: order.timetable_id,
        user: order.user_id,
    };
    order.seats.iter().map(ticket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes unpublished events with these numbers.
    async fn publish(store: &Store, entity: Uuid, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            store
                .sqlite()
                .transaction(move |connection| {
                    Box::pin(async move {
                        sqlx::query(
                            "INSERT INTO outbox (entity, topic, event_seq, event_id, type, version, at, payload) \
                             VALUES (?1, 'orders', ?2, ?3, 'something.else', 1, 0, '{}')",
                        )
                        .bind(entity)
                        .bind(number.cast_signed())
                        .bind(Uuid::now_v7())
                        .execute(connection)
                        .await?;
                        Ok(())
                    })
                })
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_hole_in_the_numbers_of_one_entity_leaves_only_that_one_behind() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("bus.db").display());
        let store = Store::open(&crate::config::Store::at(url)).await.unwrap();
        let clock = Clock::system();
        let (holed, whole) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let many = u64::from(RELAY_MAX) + 8;
        publish(&store, holed, 1..=1).await;
        // More than are relayed in one go, before anybody else's.
        publish(&store, holed, 3..=many).await;
        publish(&store, whole, 1..=3).await;

        let relayed = relay(&store, &clock, "kid").await.unwrap();
        let behind = usize::try_from(many - 2).unwrap();
        let expected = Relayed {
            published: 4,
            behind,
            held_up: Some(holed),
        };
        assert_eq!(relayed, expected);
        // What comes later of the others goes on too, and nothing comes twice.
        publish(&store, whole, 4..=4).await;
        let relayed = relay(&store, &clock, "kid").await.unwrap();
        assert_eq!((relayed.published, relayed.behind), (1, behind));
        // Once the hole is filled, all of it comes, in order.
        publish(&store, holed, 2..=2).await;
        let relayed = relay(&store, &clock, "kid").await.unwrap();
        assert_eq!((relayed.published, relayed.behind), (behind + 1, 0));
        assert_eq!(store.outbox_lag().await.unwrap(), 0);
    }
}
