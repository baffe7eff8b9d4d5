//! What cancels give back, and how it comes in once.

use serde::{Deserialize, Serialize};

use super::{Account, Event, KeyClaim, Reply};
use crate::domain::decision::Decision;
use crate::domain::ids::{OrderId, TimetableId};
use crate::domain::money::Money;
use crate::domain::order::CancelNo;
use crate::domain::time::Timestamp;

/// Money that goes back for a cancel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refund {
    /// For which order.
    pub order: OrderId,
    /// For which of its cancels.
    pub no: CancelNo,
    /// Who sold it.
    pub timetable: TimetableId,
    /// How much.
    pub amount: Money,
}

/// The final answer to a request under an idempotency key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyedAnswer {
    /// The key.
    pub key: KeyClaim,
    /// HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: String,
}

/// How many refunds are remembered for repetitions. A refund is repeated until its
/// timetable has noted that it came in, which is at once, or at the next start; one
/// that came again after so many others would be refused by the store
/// (`a_refund_is_credited_once`).
pub const CREDITED_MAX: usize = 128;

impl Account {
    /// Never refused: the money is the user's, and comes in once.
    pub(super) fn credit(
        &self,
        now: Timestamp,
        refund: Refund,
        answer: Option<KeyedAnswer>,
    ) -> Decision<Event, Reply> {
        let mut decision = match answer {
            None => Decision::unchanged(Reply::Done),
            Some(KeyedAnswer { key, status, body }) => {
                // A refusal about the key must not keep the money back.
                match self.keys.answer(now, key, status, body) {
                    Err(_) => Decision::unchanged(Reply::Done),
                    Ok(answered) => answered,
                }
            }
        };
        let is_new = !self.credited.contains(&(refund.order, refund.no));
        if is_new && refund.amount > Money::ZERO {
            let credited = Event::Credited { refund, at: now };
            decision.events.insert(0, credited);
        }
        decision
    }

    pub(super) fn apply_credited(&mut self, refund: &Refund) {
        self.balance = self.balance.plus(refund.amount);
        if self.credited.len() >= CREDITED_MAX {
            self.credited.remove(0);
        }
        self.credited.push((refund.order, refund.no));
    }
}
