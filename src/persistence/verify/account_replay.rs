//! What the journal of an account says, event by event; like that of a
//! timetable it believes nothing.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::report::{Book, Rule};
use crate::domain::account::{Event, KEY_LIFE, KeyClaim, Prepare, PrepareState, stable_hash};
use crate::domain::ids::{OrderId, Seq, UserId};
use crate::domain::order::CancelNo;
use crate::domain::time::Timestamp;

/// A transfer, as it must be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TransferFact {
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) debit: String,
    pub(super) credit: String,
    pub(super) amount: i64,
    pub(super) cause: String,
    pub(super) cause_id: Uuid,
}

/// Money of an order, as it must be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PrepareFact {
    pub(super) timetable: Uuid,
    pub(super) amount: i64,
    pub(super) state: PrepareState,
    pub(super) at: i64,
}

/// What a repeated request is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Order(Uuid),
    /// `body` is a hash; `None`: any, because the journal has only what the
    /// answer was made from.
    Answer {
        status: u16,
        body: Option<u64>,
    },
}

/// An idempotency key, as it must be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KeyFact {
    pub(super) fingerprint: i64,
    pub(super) at: i64,
    pub(super) outcome: Outcome,
}

impl KeyFact {
    /// Whether `stored` is what this says.
    pub(super) fn allows(&self, stored: &Self) -> bool {
        let same_outcome = match (self.outcome, stored.outcome) {
            (Outcome::Answer { status, body: None }, Outcome::Answer { status: stored, .. }) => {
                status == stored
            }
            (told, stored) => told == stored,
        };
        same_outcome && self.fingerprint == stored.fingerprint && self.at == stored.at
    }
}

/// What the journal of one account leads to.
#[derive(Debug)]
pub(super) struct AccountReplay {
    user: UserId,
    pub(super) balance: i128,
    set_aside: i128,
    pub(super) transfers: BTreeMap<i64, TransferFact>,
    pub(super) prepares: HashMap<OrderId, PrepareFact>,
    pub(super) keys: HashMap<String, KeyFact>,
    /// Number of the transfer, amount and time of each refund.
    pub(super) credits: HashMap<(OrderId, CancelNo), (i64, i64, i64)>,
}

impl AccountReplay {
    pub(super) fn new(user: UserId) -> Self {
        Self {
            user,
            balance: 0,
            set_aside: 0,
            transfers: BTreeMap::new(),
            prepares: HashMap::new(),
            keys: HashMap::new(),
            credits: HashMap::new(),
        }
    }

    pub(super) fn apply(&mut self, seq: Seq, at: Timestamp, event: &Event, book: &mut Book) {
        match event {
            Event::KeyAnswered {
                key,
                status,
                body,
                at,
            } => {
                let body = Some(stable_hash(body.as_bytes()));
                self.key(
                    key,
                    *at,
                    Outcome::Answer {
                        status: *status,
                        body,
                    },
                    book,
                );
            }
            Event::Charged { charge, key } => {
                self.balance += i128::from(charge.amount.0);
                let debit = "top-up:free".to_owned();
                let sides = (debit, self.wallet());
                self.transfer(
                    seq,
                    charge.at,
                    sides,
                    charge.amount.0,
                    ("charge", charge.id),
                );
                if let Some(key) = key {
                    let outcome = Outcome::Answer {
                        status: 201,
                        body: None,
                    };
                    self.key(key, charge.at, outcome, book);
                }
            }
            Event::Prepared { prepare, key } => {
                let before = self.prepares.insert(prepare.order, fact(prepare));
                self.expect(book, before.is_none(), || {
                    format!("order {} was prepared after {before:?}", prepare.order)
                });
                self.set_aside += i128::from(prepare.amount.0);
                if let Some(key) = key {
                    self.key(key, prepare.at, Outcome::Order(prepare.order.0), book);
                }
            }
            Event::Posted { prepare, at } => {
                self.settle(prepare, PrepareState::Posted, book);
                self.balance -= i128::from(prepare.amount.0);
                if prepare.amount.0 > 0 {
                    let sides = (self.wallet(), format!("sales:{}", prepare.timetable));
                    let cause = ("order", prepare.order.0);
                    self.transfer(seq, *at, sides, prepare.amount.0, cause);
                }
            }
            Event::Voided { prepare, .. } => self.settle(prepare, PrepareState::Void, book),
            Event::Credited { refund, at } => {
                let amount = refund.amount.0;
                self.balance += i128::from(amount);
                let sides = (format!("sales:{}", refund.timetable), self.wallet());
                self.transfer(seq, *at, sides, amount, ("refund", refund.order.0));
                let fact = (seq.0.cast_signed(), amount, at.0);
                let before = self.credits.insert((refund.order, refund.no), fact);
                self.expect(book, before.is_none() && amount > 0, || {
                    format!(
                        "cancel {} of order {} was refunded after {before:?}",
                        refund.no, refund.order
                    )
                });
            }
            Event::KeyReserved { .. } | Event::KeyFreed { .. } => {
                let user = self.user;
                book.found(Rule::JournalIsWhole, || {
                    format!("account {user} has an event that is never stored, at {at}")
                });
            }
        }
        let is_covered = self.balance >= 0 && self.set_aside <= self.balance;
        let (user, balance, set_aside) = (self.user, self.balance, self.set_aside);
        book.expect(Rule::PreparedWithinBalance, is_covered, || {
            format!(
                "user {user} had {balance} with {set_aside} set aside at seq {}",
                seq.0
            )
        });
    }

    fn wallet(&self) -> String {
        format!("wallet:{}", self.user)
    }

    fn expect(&self, book: &mut Book, holds: bool, finding: impl FnOnce() -> String) {
        book.expect(Rule::LedgerMatchesJournal, holds, || {
            format!("the journal of user {}: {}", self.user, finding())
        });
    }

    fn transfer(
        &mut self,
        seq: Seq,
        at: Timestamp,
        (debit, credit): (String, String),
        amount: i64,
        (cause, cause_id): (&str, Uuid),
    ) {
        let seq = seq.0.cast_signed();
        let cause = cause.to_owned();
        let fact = TransferFact {
            seq,
            at: at.0,
            debit,
            credit,
            amount,
            cause,
            cause_id,
        };
        self.transfers.insert(seq, fact);
    }

    /// Money that was set aside is spent or returned. A return of nothing is a
    /// tombstone.
    fn settle(&mut self, prepare: &Prepare, state: PrepareState, book: &mut Book) {
        let tombstone = PrepareFact {
            state,
            ..fact(prepare)
        };
        let is_fresh = !self.prepares.contains_key(&prepare.order);
        let stored = self.prepares.entry(prepare.order).or_insert(tombstone);
        let before = std::mem::replace(&mut stored.state, state);
        let amount = stored.amount;
        let is_right = match (is_fresh, before) {
            (true, _) => state == PrepareState::Void && amount == 0,
            (false, PrepareState::Prepared) => {
                self.set_aside -= i128::from(amount);
                amount == prepare.amount.0
            }
            // Told again, long after.
            (false, PrepareState::Void) => state == PrepareState::Void,
            (false, PrepareState::Posted) => false,
        };
        self.expect(book, is_right, || {
            format!(
                "order {} became {state:?} when it was {before:?}",
                prepare.order
            )
        });
    }

    /// Once a request is answered, its key keeps that answer for its life. An
    /// order that came to nothing may be followed by another, or by an answer.
    fn key(&mut self, claim: &KeyClaim, at: Timestamp, outcome: Outcome, book: &mut Book) {
        let fingerprint = claim.fingerprint.cast_signed();
        let fact = KeyFact {
            fingerprint,
            at: at.0,
            outcome,
        };
        let before = self.keys.insert(claim.key.clone(), fact);
        let user = self.user;
        let is_kept = before.is_none_or(|before| {
            let is_over = at.since(Timestamp(before.at)) >= KEY_LIFE;
            let is_answered = matches!(before.outcome, Outcome::Answer { .. });
            let is_same = before.fingerprint == fingerprint && before.outcome == outcome;
            is_over || !is_answered || is_same
        });
        book.expect(Rule::KeysMatchJournal, is_kept, || {
            format!(
                "key {:?} of user {user} was {before:?}, then {fact:?}",
                claim.key
            )
        });
    }
}

fn fact(prepare: &Prepare) -> PrepareFact {
    PrepareFact {
        timetable: prepare.timetable.0,
        amount: prepare.amount.0,
        state: PrepareState::Prepared,
        at: prepare.at.0,
    }
}
