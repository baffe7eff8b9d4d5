//! Tells waiting rooms of what their visitors did: the consumer of orders that
//! drives leaving after a purchase, and the renewal of a pass by a hold.
//!
//! It keeps no marks, because telling a queue twice is as good as once: each
//! notice carries the time of its event. So a batch of it is told all at once,
//! in any order.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use serde::Deserialize;

use super::BusError;
use crate::domain::ids::{PerformanceId, UserId};
use crate::domain::time::Timestamp;
use crate::persistence::rows::{HOLD_MADE, ORDER_CONFIRMED};
use crate::persistence::store::outbox::Envelope;
use crate::telemetry;

/// The name of the consumer.
pub const CONSUMER: &str = "queues";

/// How often a queue that doesn't answer is told, and how long apart. Then the
/// notice is lost, and its pass ends or lasts by its own time: a queue that is
/// broken must not hold up the tickets of all others.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// What a visitor did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// An order of theirs is confirmed.
    Purchased,
    /// They hold seats under a pass.
    HoldMade,
}

/// What a queue is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The queue's performance, which may have no queue.
    pub performance: PerformanceId,
    /// Who.
    pub user: UserId,
    /// What they did; durable.
    pub deed: Deed,
    /// When.
    pub at: Timestamp,
}

/// Why a queue was not told, perhaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotTold {
    /// The store is away: it will be possible again.
    StoreAway,
    /// There was no answer.
    NoAnswer,
}

/// Tells a queue, and waits until it has noted it durably. Done at once where the
/// performance has none.
pub type Tell = Arc<dyn Fn(Notice) -> BoxFuture<'static, Result<(), NotTold>> + Send + Sync>;

/// Tells queues of what the events of orders say.
#[derive(Clone)]
pub struct QueueNotices {
    tell: Tell,
}

impl std::fmt::Debug for QueueNotices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueNotices").finish_non_exhaustive()
    }
}

impl QueueNotices {
    pub(super) fn new(tell: Tell) -> Self {
        Self { tell }
    }

    /// Tells all queues that `events` speak of.
    ///
    /// # Errors
    /// If the store is away: nothing is lost if it is repeated.
    pub(super) async fn take(&self, events: &[Envelope]) -> Result<(), BusError> {
        let notices = events.iter().filter_map(notice_of);
        let told = join_all(notices.map(|notice| self.tell_at_last(notice))).await;
        told.into_iter().collect()
    }

    async fn tell_at_last(&self, notice: Notice) -> Result<(), BusError> {
        for _ in 0..TRIES_MAX {
            match (self.tell)(notice).await {
                Ok(()) => return Ok(()),
                Err(NotTold::StoreAway) => return Err(BusError::QueuesAway),
                Err(NotTold::NoAnswer) => tokio::time::sleep(PAUSE).await,
            }
        }
        tracing::error!(performance.id = %notice.performance, deed = ?notice.deed,
            "a waiting room doesn't answer; what its visitor did is not told to it");
        metrics::counter!(telemetry::QUEUE_NOTICES_LOST_TOTAL).increment(1);
        Ok(())
    }
}

#[derive(Deserialize)]
struct OfVisitor {
    user_id: UserId,
    performance_id: PerformanceId,
}

/// What an event says to a queue; nothing if it is of another kind. One that
/// can't be read is a dead letter of ticket issue.
fn notice_of(event: &Envelope) -> Option<Notice> {
    let deed = match event.kind.as_str() {
        ORDER_CONFIRMED => Deed::Purchased,
        HOLD_MADE => Deed::HoldMade,
        _ => return None,
    };
    let OfVisitor {
        user_id,
        performance_id,
    } = serde_json::from_str(&event.payload).ok()?;
    Some(Notice {
        performance: performance_id,
        user: user_id,
        deed,
        at: event.at,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use parking_lot::Mutex;
    use uuid::Uuid;

    use super::*;

    fn event(kind: &str, payload: &str) -> Envelope {
        Envelope {
            entity: Uuid::from_u128(1),
            topic: super::super::ORDERS_TOPIC.to_owned(),
            event_seq: 1,
            event_id: Uuid::from_u128(2),
            kind: kind.to_owned(),
            version: 1,
            at: Timestamp(7),
            trace: None,
            payload: payload.to_owned(),
        }
    }

    fn by_ann(kind: &str) -> Envelope {
        let (ann, show) = (Uuid::from_u128(3), Uuid::from_u128(4));
        let payload = format!(r#"{{"user_id":"{ann}","performance_id":"{show}","more":1}}"#);
        event(kind, &payload)
    }

    #[tokio::test]
    async fn purchases_and_holds_are_told_with_their_time_and_nothing_else_is() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let notices = QueueNotices::new(Arc::new(move |notice| {
            ear.lock().push(notice);
            Box::pin(async { Ok(()) })
        }));
        let events = [
            by_ann("order.confirmed"),
            by_ann("hold.made"),
            by_ann("order.cancelled"),
            event("order.confirmed", "{}"),
        ];
        notices.take(&events).await.unwrap();
        let deeds: Vec<_> = heard.lock().iter().map(|n| (n.deed, n.at)).collect();
        assert_eq!(
            deeds,
            [
                (Deed::Purchased, Timestamp(7)),
                (Deed::HoldMade, Timestamp(7))
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_without_an_answer_holds_nobody_up_and_an_outage_is_repeated() {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let broken = QueueNotices::new(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Err(NotTold::NoAnswer) })
        }));
        broken.take(&[by_ann("hold.made")]).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), TRIES_MAX);

        let away = QueueNotices::new(Arc::new(|_| Box::pin(async { Err(NotTold::StoreAway) })));
        let refused = away.take(&[by_ann("hold.made")]).await;
        assert!(matches!(refused, Err(BusError::QueuesAway)));
    }
}
