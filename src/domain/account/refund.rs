//! What cancels give back, and how it comes in once.

use serde::{Deserialize, Serialize};

use super::{Account, Event, KeyClaim, Refusal, Reply};
use crate::domain::decision::Decision;
use crate::domain::ids::{OrderId, Seq, TimetableId};
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
/// timetable has noted that it came in, which is at once, or at the next start: one
/// that comes again after so many others is looked up in the store.
pub const CREDITED_MAX: usize = 128;

/// What the store says of a refund, to somebody who asks an account to take it in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Known {
    /// It has come in.
    Credited,
    /// It had not by this decision of the account.
    NotBy(Seq),
}

impl Default for Known {
    /// Nobody has asked the store.
    fn default() -> Self {
        Self::NotBy(Seq(0))
    }
}

/// The refunds that have come in: the last ones, and how far back they go.
#[derive(Clone, Debug, Default)]
pub(super) struct Credited {
    /// With the decision by which each had come in; newest last.
    last: Vec<(OrderId, CancelNo, Seq)>,
    /// All that are not remembered had come in by this decision.
    forgotten: Seq,
}

impl Credited {
    /// The last ones as the store has them, at version `seq`: there are more
    /// only where these are [`CREDITED_MAX`].
    pub(super) fn restore(last: impl IntoIterator<Item = (OrderId, CancelNo)>, seq: Seq) -> Self {
        let last: Vec<_> = last.into_iter().map(|(id, no)| (id, no, seq)).collect();
        let forgotten = if last.len() < CREDITED_MAX {
            Seq(0)
        } else {
            seq
        };
        Self { last, forgotten }
    }

    fn add(&mut self, order: OrderId, no: CancelNo, seq: Seq) {
        if self.last.len() >= CREDITED_MAX {
            let (_, _, seq) = self.last.remove(0);
            self.forgotten = self.forgotten.max(seq);
        }
        self.last.push((order, no, seq));
    }

    /// Whether a refund is new.
    ///
    /// # Errors
    /// [`Refusal::AskTheStore`] if it may be one that is forgotten.
    fn is_new(&self, refund: &Refund, known: Known) -> Result<bool, Refusal> {
        let wanted = (refund.order, refund.no);
        if self
            .last
            .iter()
            .any(|(order, no, _)| (*order, *no) == wanted)
        {
            return Ok(false);
        }
        match known {
            Known::Credited => Ok(false),
            Known::NotBy(seq) if seq >= self.forgotten => Ok(true),
            // Not only up to what is forgotten now: others come in meanwhile.
            Known::NotBy(_) => {
                let newest = self.last.last().map_or(self.forgotten, |(_, _, seq)| *seq);
                Err(Refusal::AskTheStore { upto: newest })
            }
        }
    }
}

impl Account {
    /// The money is the user's, and comes in once. Refused only where it can't be
    /// told whether it has.
    pub(super) fn credit(
        &self,
        now: Timestamp,
        (refund, known): (Refund, Known),
        answer: Option<KeyedAnswer>,
    ) -> Result<Decision<Event, Reply>, Refusal> {
        let is_due = refund.amount > Money::ZERO && self.credited.is_new(&refund, known)?;
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
        if is_due {
            let credited = Event::Credited { refund, at: now };
            decision.events.insert(0, credited);
        }
        Ok(decision)
    }

    pub(super) fn apply_credited(&mut self, refund: &Refund, seq: Seq) {
        self.balance = self.balance.plus(refund.amount);
        self.credited.add(refund.order, refund.no, seq);
    }
}
