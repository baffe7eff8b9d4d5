//! The in-process event bus: relays the outbox to the consumers of this
//! process, at least once and in order per entity.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use uuid::Uuid;

use super::sqlite::outbox::{Envelope, NewTicket};
use super::{Store, StoreError};
use crate::clock::Clock;
use crate::domain::ids::{shard_of, with_shard};

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
            loop {
                let pause = match relay(&store, &clock, &ticket_kid).await {
                    Ok(0) => IDLE_MS,
                    Ok(_) => 0,
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

/// Relays once. Returns how many events were published.
async fn relay(store: &Store, clock: &Clock, kid: &str) -> Result<usize, StoreError> {
    let events = store.unpublished(RELAY_MAX).await?;
    if events.is_empty() {
        return Ok(0);
    }
    let with_tickets: Vec<_> = events
        .iter()
        .map(|event| (event.clone(), tickets_of(event)))
        .collect();
    let taken = store
        .issue_tickets(TICKETS, with_tickets, kid.to_owned(), clock.now())
        .await?;
    // Ordered per entity and without gaps, so that all are taken; anything
    // else means that the outbox itself has a hole, which the audit reports.
    if taken < events.len() {
        return Err(StoreError::Unreadable(
            "the outbox has a gap in its numbers".to_owned(),
        ));
    }
    store.mark_published(&events, clock.now()).await?;
    Ok(events.len())
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
