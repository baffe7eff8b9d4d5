//! Ticket issue: the consumer of orders, whichever bus carries them.

use serde::Deserialize;
use uuid::Uuid;

use super::kafka::producer::DeadTopic;
use super::{BusError, ORDERS_TOPIC, begin_spans, message};
use crate::clock::Clock;
use crate::domain::ids::{shard_of, with_shard};
use crate::persistence::rows::ORDER_CONFIRMED;
use crate::persistence::store::dead_letters::{DeadLetter, NewDeadLetter};
use crate::persistence::store::outbox::{Asked, Came, Envelope, NewTicket};
use crate::persistence::{Store, StoreError};
use crate::telemetry;
use crate::trace::Kind;

/// The name under which ticket issue keeps its marks.
pub const CONSUMER: &str = "tickets";

/// The latest version of it that is understood.
const ORDER_CONFIRMED_VERSION: u16 = 1;

/// Issues the tickets of confirmed orders. Tickets are signed later, when they
/// are read.
#[derive(Clone, Debug)]
pub struct TicketIssue {
    store: Store,
    clock: Clock,
    kid: String,
}

impl TicketIssue {
    /// Issues into `store` tickets to be signed with the key called `kid`.
    #[must_use]
    pub fn new(store: Store, clock: Clock, kid: String) -> Self {
        Self { store, clock, kid }
    }

    /// Acts on `events`, in one transaction with the consumer's marks. Tells of
    /// each whether it is done with: acted on, dropped as a repetition, or
    /// dead. One behind a gap isn't.
    ///
    /// Where events come over a broker, dead letters are told to its
    /// `dead_topic` first, so that none is lost; it may hear of one twice. Without
    /// one, events come from the outbox itself, and are published by this.
    ///
    /// # Errors
    /// If the store or the topic can't be written now; nothing was done then,
    /// except that the topic may have heard of dead letters.
    pub async fn take(
        &self,
        events: Vec<Envelope>,
        dead_topic: Option<&DeadTopic>,
    ) -> Result<Vec<bool>, BusError> {
        let _spans = begin_spans("issue tickets", Kind::Consumer, "consumer", &events);
        let asked = events.into_iter().map(|event| {
            let asked = match tickets_of(&event) {
                Ok(tickets) => Asked::Tickets(tickets),
                Err(reason) => dead(&event, reason),
            };
            (event, asked)
        });
        self.take_asked(asked.collect(), dead_topic).await
    }

    /// A row that the store refuses for good costs only its own event: the
    /// batch is halved until that is found.
    async fn take_asked(
        &self,
        asked: Vec<(Envelope, Asked)>,
        dead_topic: Option<&DeadTopic>,
    ) -> Result<Vec<bool>, BusError> {
        if let Some(dead_topic) = dead_topic {
            dead_topic
                .tell(asked.iter().filter_map(|(_, asked)| asked.letter()))
                .await?;
        }
        let came = match dead_topic {
            Some(_) => Came::OverBroker,
            None => Came::FromOutbox,
        };
        let (events, kid) = (asked.clone(), self.kid.clone());
        let now = self.clock.now();
        let tried = self
            .store
            .issue_tickets(CONSUMER, came, events, kid, now)
            .await;
        let error = match tried {
            Err(error @ (StoreError::Constraint { .. } | StoreError::Defect(_))) => error,
            other => return Ok(other?),
        };
        if let [(event, asked)] = asked.as_slice() {
            if matches!(asked, Asked::Dead(_)) {
                // Even its dead letter is refused: nothing more can be done.
                return Err(error.into());
            }
            tracing::error!(event.id = %event.event_id, %error, "an event's tickets were refused, it is dead");
            let dead = vec![(event.clone(), dead(event, error.to_string()))];
            return Box::pin(self.take_asked(dead, dead_topic)).await;
        }
        let mut first = asked;
        let second = first.split_off(first.len() / 2);
        let mut done = Box::pin(self.take_asked(first, dead_topic)).await?;
        done.extend(Box::pin(self.take_asked(second, dead_topic)).await?);
        Ok(done)
    }

    /// Buries what came over a bus and is no event at all. `source` names the
    /// message for ever, so that a repetition is dropped.
    ///
    /// # Errors
    /// Those of [`TicketIssue::take`].
    pub async fn bury(
        &self,
        source: String,
        body: String,
        reason: String,
        dead_topic: &DeadTopic,
    ) -> Result<(), BusError> {
        telemetry::dead_letter(ORDERS_TOPIC);
        let letter = NewDeadLetter {
            id: Uuid::now_v7(),
            topic: ORDERS_TOPIC.to_owned(),
            source,
            body,
            reason,
        };
        dead_topic.tell(std::iter::once(&letter)).await?;
        self.store
            .add_dead_letter(CONSUMER, letter, self.clock.now())
            .await?;
        Ok(())
    }

    /// See [`super::Bus::requeue`].
    pub(super) async fn requeue(&self, id: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        let Some(letter) = self.store.dead_letter(id).await? else {
            return Ok(None);
        };
        let asked = message::from_json(&letter.body).and_then(|event| tickets_of(&event));
        let now = self.clock.now();
        let refused = match asked {
            Ok(tickets) => {
                let issued = self
                    .store
                    .issue_dead_letter(id, tickets, self.kid.clone(), now)
                    .await;
                match issued {
                    Err(error @ (StoreError::Constraint { .. } | StoreError::Defect(_))) => {
                        Some(error.to_string())
                    }
                    other => {
                        other?;
                        None
                    }
                }
            }
            Err(reason) => Some(reason),
        };
        if let Some(reason) = refused {
            self.store.keep_dead_letter(id, reason).await?;
        }
        self.store.dead_letter(id).await
    }
}

fn dead(event: &Envelope, reason: String) -> Asked {
    tracing::error!(event.id = %event.event_id, reason, "an event can't be acted on, it is dead");
    telemetry::dead_letter(&event.topic);
    Asked::Dead(NewDeadLetter {
        id: Uuid::now_v7(),
        topic: event.topic.clone(),
        source: event.event_id.to_string(),
        body: message::to_json(event),
        reason,
    })
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
fn tickets_of(event: &Envelope) -> Result<Vec<NewTicket>, String> {
    if event.kind != ORDER_CONFIRMED {
        return Ok(Vec::new());
    }
    if event.version > ORDER_CONFIRMED_VERSION {
        return Err(format!(
            "version {} of {ORDER_CONFIRMED} is unknown",
            event.version
        ));
    }
    let order: OrderConfirmed = serde_json::from_str(&event.payload)
        .map_err(|error| format!("the data is no {ORDER_CONFIRMED}: {error}"))?;
    let shard = shard_of(order.timetable_id);
    let ticket = |sold: &SoldSeat| NewTicket {
        id: with_shard(Uuid::now_v7(), shard),
        order: order.order_id,
        seat: sold.seat,
        timetable: order.timetable_id,
        user: order.user_id,
    };
    Ok(order.seats.iter().map(ticket).collect())
}
