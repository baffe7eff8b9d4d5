//! The relay: publishes what this node's shards have in the outbox, in order
//! per entity, at least once.
//!
//! It always starts at the first event that isn't marked as published, never
//! at a position that it remembers, so that no event is left out after a crash
//! or a change of owner.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::inprocess::InProcess;
use super::kafka::producer::Producer;
use super::{BusError, Owned, begin_spans};
use crate::clock::Clock;
use crate::persistence::Store;
use crate::persistence::store::outbox::{Envelope, Place};
use crate::telemetry;
use crate::trace::Kind;

/// How many events are published in one go: all that is ever in flight.
pub const RELAY_MAX: u32 = 512;

/// How long the relay sleeps at most if nothing wakes it: after an outage it
/// goes on by itself.
const IDLE: Duration = Duration::from_secs(1);

/// From one go to the next, unless more is left than goes in one. The first event
/// after a rest goes at once; under load they go together, since a go costs the
/// database about as much as a dozen events, in the minute when it has the most to
/// do. Tickets are promised within 2 s.
const PACE: Duration = Duration::from_millis(50);

/// How long it waits after a failure, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where events go.
#[derive(Debug)]
pub(super) enum To {
    InProcess(InProcess),
    Kafka(Producer),
}

pub(super) struct Relay {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) owned: Owned,
    pub(super) to: To,
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

impl Relayed {
    /// How long to wait before the next pass.
    fn rest(&self) -> Duration {
        match self.published {
            0 => IDLE,
            few if few < RELAY_MAX as usize => PACE,
            _ => Duration::ZERO,
        }
    }
}

impl Relay {
    /// Relays until it is told to stop.
    pub(super) async fn run(self, wake: Arc<Notify>, mut stopped: watch::Receiver<bool>) {
        let mut behind = 0;
        let mut failures = 0_u32;
        loop {
            let relayed = tokio::select! {
                relayed = self.pass() => relayed,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            let pause = match relayed {
                Ok(relayed) => {
                    if failures > 0 {
                        tracing::info!("the outbox is relayed again");
                        failures = 0;
                    }
                    if relayed.behind != behind {
                        behind = relayed.behind;
                        tell_behind(&relayed);
                    }
                    relayed.rest()
                }
                Err(error) => {
                    // Once an outage, not once an attempt.
                    if failures == 0 {
                        tracing::warn!(%error, "the outbox can't be relayed, trying on");
                    } else {
                        tracing::debug!(%error, "the outbox still can't be relayed");
                    }
                    failures = failures.saturating_add(1);
                    BACKOFF_MAX.min(BACKOFF_MIN.saturating_mul(failures))
                }
            };
            if pause.is_zero() {
                continue;
            }
            // New events are no reason to try a bus again that has just failed, nor
            // to hurry where others are likely to come.
            let woken = async {
                if failures == 0 && pause == IDLE {
                    wake.notified().await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = woken => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Goes once through the whole outbox, from entity to entity.
    async fn pass(&self) -> Result<Relayed, BusError> {
        let mut relayed = Relayed::default();
        let shards = (self.owned)();
        let mut last: Option<Passed> = None;
        loop {
            let after = last.as_ref().map(|last| &last.place);
            let events = self
                .store
                .unpublished(shards.as_deref(), after, RELAY_MAX)
                .await?;
            let is_last = events.len() < RELAY_MAX as usize;
            let (ready, behind) = self.without_holes(events, &mut last).await?;
            relayed.behind += behind.len();
            relayed.held_up = relayed.held_up.or(behind.first().map(|event| event.entity));
            self.publish(ready, &mut relayed).await?;
            if is_last {
                return Ok(relayed);
            }
        }
    }

    /// Parts those events that follow on what was published of their entity
    /// from those behind a hole.
    async fn without_holes(
        &self,
        events: Vec<Envelope>,
        last: &mut Option<Passed>,
    ) -> Result<(Vec<Envelope>, Vec<Envelope>), BusError> {
        let is_first = |event: &Envelope, before: Option<(Uuid, &str)>| {
            before != Some((event.entity, event.topic.as_str()))
        };
        let mut before = last
            .as_ref()
            .map(|last| (last.place.0, last.place.1.as_str()));
        let mut wanted: Vec<Place> = Vec::new();
        for event in &events {
            if is_first(event, before) && event.event_seq > 1 {
                wanted.push((event.entity, event.topic.clone(), event.event_seq - 1));
            }
            before = Some((event.entity, &event.topic));
        }
        let published: HashSet<Place> = if wanted.is_empty() {
            HashSet::new()
        } else {
            self.store.published(&wanted).await?.into_iter().collect()
        };
        let (mut ready, mut behind) = (Vec::with_capacity(events.len()), Vec::new());
        for event in events {
            let place = (event.entity, event.topic.clone(), event.event_seq);
            let follows = match last {
                Some(last) if (last.place.0, &last.place.1) == (place.0, &place.1) => {
                    last.follows && last.place.2 + 1 == place.2
                }
                _ => place.2 == 1 || published.contains(&(place.0, place.1.clone(), place.2 - 1)),
            };
            *last = Some(Passed { place, follows });
            if follows {
                ready.push(event);
            } else {
                behind.push(event);
            }
        }
        Ok((ready, behind))
    }

    async fn publish(&self, events: Vec<Envelope>, relayed: &mut Relayed) -> Result<(), BusError> {
        if events.is_empty() {
            return Ok(());
        }
        let spans = begin_spans("publish", Kind::Producer, "relay", &events);
        let entities: Vec<Uuid> = events.iter().map(|event| event.entity).collect();
        let taken = match &self.to {
            To::InProcess(bus) => bus.publish(events).await?,
            To::Kafka(producer) => {
                producer.publish(&events).await?;
                let now = self.clock.now();
                self.store.mark_published(&events, now).await?;
                vec![true; events.len()]
            }
        };
        drop(spans);
        relayed.published += taken.iter().filter(|taken| **taken).count();
        for (entity, _) in entities
            .into_iter()
            .zip(&taken)
            .filter(|(_, taken)| !**taken)
        {
            relayed.behind += 1;
            relayed.held_up = relayed.held_up.or(Some(entity));
        }
        Ok(())
    }
}

/// The last event that a pass has come by.
struct Passed {
    place: Place,
    /// Whether there is no hole before it.
    follows: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::bus::notices::QueueNotices;
    use crate::persistence::bus::tickets::TicketIssue;

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
        let tickets = TicketIssue::new(store.clone(), clock.clone(), "kid".to_owned());
        let notices = QueueNotices::new(Arc::new(|_| Box::pin(async { Ok(()) })));
        let relay = Relay {
            store: store.clone(),
            clock,
            owned: Arc::new(|| None),
            to: To::InProcess(InProcess::new(notices, tickets)),
        };
        let (holed, whole) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let many = u64::from(RELAY_MAX) + 8;
        publish(&store, holed, 1..=1).await;
        // More than are relayed in one go, before anybody else's.
        publish(&store, holed, 3..=many).await;
        publish(&store, whole, 1..=3).await;

        let relayed = relay.pass().await.unwrap();
        let behind = usize::try_from(many - 2).unwrap();
        let expected = Relayed {
            published: 4,
            behind,
            held_up: Some(holed),
        };
        assert_eq!(relayed, expected);
        // What comes later of the others goes on too, and nothing comes twice.
        publish(&store, whole, 4..=4).await;
        let relayed = relay.pass().await.unwrap();
        assert_eq!((relayed.published, relayed.behind), (1, behind));
        // Once the hole is filled, all of it comes, in order.
        publish(&store, holed, 2..=2).await;
        let relayed = relay.pass().await.unwrap();
        assert_eq!((relayed.published, relayed.behind), (behind + 1, 0));
        assert_eq!(store.backlog().await.unwrap().events, 0);
    }
}
