//! An account: one user's wallet and idempotency keys.
//!
//! The wallet takes part in an order as a participant of its saga: money is
//! *prepared* (set aside, durably), and later *posted* (spent) or *void*
//! (returned). All three are idempotent by order id, and a `void` of an order
//! that was never prepared leaves a tombstone that refuses a late `prepare`.
//! What a cancel refunds is *credited*, idempotently by order and cancel.

mod keys;
mod refund;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use uuid::Uuid;

pub use keys::{Claimant, KEY_LIFE, KEYS_MAX, KeyClaim, KeyHash, KeyState, Keys, stable_hash};
pub use refund::{CREDITED_MAX, KeyedAnswer, Known, Refund};

use refund::Credited;

use super::decision::{Decision, Events, Machine, Tier};
use super::ids::{OrderId, Seq, TimetableId};
use super::money::Money;
use super::order::CancelNo;
use super::time::Timestamp;

/// The largest balance a wallet may reach: a thousand of the largest charges,
/// far from the end of `i64`.
pub const BALANCE_MAX: Money = Money(Money::MAX_ENTERED.0 * 1_000);

/// How many orders of one user may have their money set aside at once.
pub const PREPARED_MAX: usize = 64;

/// What became of the money of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PrepareState {
    /// Set aside, not spent.
    Prepared,
    /// Spent.
    Posted,
    /// Returned, or never set aside.
    Void,
}

impl PrepareState {
    /// As in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Posted => "posted",
            Self::Void => "void",
        }
    }
}

/// Money set aside for an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prepare {
    /// For which order.
    pub order: OrderId,
    /// Who decides that order.
    pub timetable: TimetableId,
    /// How much.
    pub amount: Money,
    /// Since when.
    pub at: Timestamp,
}

/// What a charge did, and its stored answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Charge {
    /// Identifies the charge.
    pub id: Uuid,
    /// How much was added.
    pub amount: Money,
    /// What can be spent after it.
    pub balance: Money,
    /// When.
    pub at: Timestamp,
}

/// What an account can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Begin a request under an idempotency key (in memory).
    Reserve(KeyClaim),
    /// The request came to nothing, in a way that is not stored: the key is free
    /// again, if it is this request's, or that of `order`.
    FreeKey {
        key: KeyClaim,
        order: Option<OrderId>,
    },
    /// Store the final answer of a request, unless there is one.
    Answer {
        key: KeyClaim,
        status: u16,
        body: String,
    },
    /// Add money, unless another request has got ahead under the key.
    Charge {
        id: Uuid,
        amount: Money,
        key: Option<KeyClaim>,
    },
    /// Set money aside for an order, and claim the key of its request, unless
    /// another request has got ahead under it.
    Prepare {
        order: OrderId,
        timetable: TimetableId,
        amount: Money,
        key: Option<KeyClaim>,
    },
    /// The order was confirmed: spend it.
    Post { order: OrderId },
    /// The order came to nothing: give it back.
    Void {
        order: OrderId,
        timetable: TimetableId,
    },
    /// What can be spent.
    Balance,
    /// A cancel refunds this (nothing, perhaps): it can be spent again. With it,
    /// stores the final answer of the request, unless there is one.
    Credit {
        refund: Refund,
        answer: Option<KeyedAnswer>,
        known: Known,
    },
}

impl Command {
    /// How durable its outputs must be before they leave.
    #[must_use]
    pub fn tier(&self) -> Tier {
        match self {
            Self::Reserve(_) | Self::FreeKey { .. } => Tier::Memory,
            Self::Answer { .. }
            | Self::Charge { .. }
            | Self::Prepare { .. }
            | Self::Post { .. }
            | Self::Void { .. }
            | Self::Credit { .. }
            | Self::Balance => Tier::Database,
        }
    }
}

/// What can happen to an account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A request has begun under a key. Volatile.
    KeyReserved { key: KeyClaim, at: Timestamp },
    /// A key is free again. Volatile.
    KeyFreed { hash: KeyHash },
    /// A request has its final answer.
    KeyAnswered {
        key: KeyClaim,
        status: u16,
        body: String,
        at: Timestamp,
    },
    /// Money came in, and the request's answer is that charge.
    Charged {
        charge: Charge,
        key: Option<KeyClaim>,
    },
    /// Money was set aside; the request's answer is that of the order.
    Prepared {
        prepare: Prepare,
        key: Option<KeyClaim>,
    },
    /// What was set aside is spent.
    Posted { prepare: Prepare, at: Timestamp },
    /// What was set aside is back; a tombstone if nothing was (amount 0).
    Voided { prepare: Prepare, at: Timestamp },
    /// What a cancel refunds has come in.
    Credited { refund: Refund, at: Timestamp },
}

/// What an account answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done, or done before.
    Done,
    /// The key is the caller's: go on.
    KeyIsNew,
    /// A request under this key has a stored answer.
    KeyIsAnswered,
    /// A request under this key has begun; if an order is named, that order
    /// decides the answer.
    KeyIsRunning(Option<(OrderId, TimetableId)>),
    /// The charge.
    Charged(Charge),
    /// What can be spent.
    Balance(Money),
}

/// Why an account did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The key belongs to another request.
    KeyReused,
    /// More than [`KEYS_MAX`] keys within a day.
    TooManyKeys,
    /// Less can be spent than is asked.
    InsufficientBalance { balance: Money },
    /// The balance would pass [`BALANCE_MAX`].
    BalanceTooLarge,
    /// More than [`PREPARED_MAX`] unfinished orders.
    TooManyUnfinishedOrders,
    /// The order was void before its money was asked for.
    OrderIsVoid,
    /// The refund may have come in so long ago that it is forgotten. The caller
    /// asks the store, which has all decisions up to this one by now, and
    /// comes back with what it says ([`Known`]).
    AskTheStore { upto: Seq },
}

/// One user's wallet and idempotency keys.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// With what is set aside.
    balance: Money,
    prepared: SmallVec<[Prepare; 1]>,
    /// Settled orders that may still be asked about, newest last: a repeated
    /// `prepare`, `post` or `void` meets them. Recovery reads them from the
    /// store.
    settled: SmallVec<[(OrderId, PrepareState); 4]>,
    /// Refunds that may still be repeated. Recovery reads them from the store.
    credited: Credited,
    keys: Keys,
}

/// How many settled orders are remembered for repetitions. A saga repeats a
/// step within its own life, and one account has at most [`PREPARED_MAX`]
/// sagas alive.
const SETTLED_MAX: usize = PREPARED_MAX * 2;

impl Account {
    /// The account as the store has it, at version `seq`; of the refunds that
    /// have come in the last [`CREDITED_MAX`].
    #[must_use]
    pub fn restore(
        balance: Money,
        prepared: impl IntoIterator<Item = Prepare>,
        settled: impl IntoIterator<Item = (OrderId, PrepareState)>,
        (credited, seq): (impl IntoIterator<Item = (OrderId, CancelNo)>, Seq),
        keys: Keys,
    ) -> Self {
        Self {
            balance,
            prepared: prepared.into_iter().collect(),
            settled: settled.into_iter().collect(),
            credited: Credited::restore(credited, seq),
            keys,
        }
    }

    /// What can be spent: the balance without what is set aside.
    #[must_use]
    pub fn spendable(&self) -> Money {
        self.balance
            .minus(self.prepared.iter().map(|prepare| prepare.amount).sum())
    }

    /// The balance with what is set aside, as the store keeps it.
    #[must_use]
    pub fn balance(&self) -> Money {
        self.balance
    }

    /// The money that is set aside for orders of which nothing more is known.
    #[must_use]
    pub fn in_doubt(&self) -> &[Prepare] {
        &self.prepared
    }

    /// Whether it can be forgotten until it is asked again.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.prepared.is_empty() && !self.keys.any_running()
    }

    fn prepared(&self, order: OrderId) -> Option<&Prepare> {
        self.prepared.iter().find(|prepare| prepare.order == order)
    }

    fn settled(&self, order: OrderId) -> Option<PrepareState> {
        self.settled
            .iter()
            .find(|(id, _)| *id == order)
            .map(|(_, state)| *state)
    }

    fn other_than(&self, now: Timestamp, key: Option<&KeyClaim>) -> Result<Option<Reply>, Refusal> {
        key.map_or(Ok(None), |key| self.keys.other_than(now, key))
    }

    fn charge(
        &self,
        now: Timestamp,
        id: Uuid,
        amount: Money,
        key: Option<KeyClaim>,
    ) -> Result<Decision<Event, Reply>, Refusal> {
        if let Some(other) = self.other_than(now, key.as_ref())? {
            return Ok(Decision::unchanged(other));
        }
        if self.balance.plus(amount) > BALANCE_MAX {
            return Err(Refusal::BalanceTooLarge);
        }
        let charge = Charge {
            id,
            amount,
            balance: self.spendable().plus(amount),
            at: now,
        };
        Ok(Decision::one(
            Event::Charged { charge, key },
            Reply::Charged(charge),
        ))
    }

    fn prepare(
        &self,
        prepare: Prepare,
        key: Option<KeyClaim>,
    ) -> Result<Decision<Event, Reply>, Refusal> {
        if self.prepared(prepare.order).is_some() {
            return Ok(Decision::unchanged(Reply::Done));
        }
        match self.settled(prepare.order) {
            Some(PrepareState::Void) => return Err(Refusal::OrderIsVoid),
            Some(PrepareState::Posted | PrepareState::Prepared) => {
                return Ok(Decision::unchanged(Reply::Done));
            }
            None => {}
        }
        if let Some(other) = self.other_than(prepare.at, key.as_ref())? {
            return Ok(Decision::unchanged(other));
        }
        let balance = self.spendable();
        if balance < prepare.amount {
            return Err(Refusal::InsufficientBalance { balance });
        }
        if self.prepared.len() >= PREPARED_MAX {
            return Err(Refusal::TooManyUnfinishedOrders);
        }
        Ok(Decision::one(Event::Prepared { prepare, key }, Reply::Done))
    }

    fn settle_order(&mut self, order: OrderId, state: PrepareState) {
        self.prepared.retain(|prepare| prepare.order != order);
        if self.settled.len() >= SETTLED_MAX {
            self.settled.remove(0);
        }
        self.settled.push((order, state));
    }
}

impl Machine for Account {
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Refusal = Refusal;

    fn due(&self, _now: Timestamp) -> Events<Event> {
        Events::new()
    }

    fn decide(&self, now: Timestamp, command: Command) -> Result<Decision<Event, Reply>, Refusal> {
        match command {
            Command::Reserve(key) => self.keys.reserve(now, key),
            Command::FreeKey { key, order } => Ok(self.keys.release(&key, order)),
            Command::Answer { key, status, body } => self.keys.answer(now, key, status, body),
            Command::Charge { id, amount, key } => self.charge(now, id, amount, key),
            Command::Prepare {
                order,
                timetable,
                amount,
                key,
            } => self.prepare(
                Prepare {
                    order,
                    timetable,
                    amount,
                    at: now,
                },
                key,
            ),
            Command::Post { order } => Ok(match self.prepared(order) {
                Some(prepare) => Decision::one(
                    Event::Posted {
                        prepare: *prepare,
                        at: now,
                    },
                    Reply::Done,
                ),
                None => Decision::unchanged(Reply::Done),
            }),
            Command::Void { order, timetable } => {
                Ok(match (self.prepared(order), self.settled(order)) {
                    (Some(prepare), _) => Decision::one(
                        Event::Voided {
                            prepare: *prepare,
                            at: now,
                        },
                        Reply::Done,
                    ),
                    (None, Some(_)) => Decision::unchanged(Reply::Done),
                    (None, None) => {
                        let prepare = Prepare {
                            order,
                            timetable,
                            amount: Money::ZERO,
                            at: now,
                        };
                        Decision::one(Event::Voided { prepare, at: now }, Reply::Done)
                    }
                })
            }
            Command::Balance => Ok(Decision::unchanged(Reply::Balance(self.spendable()))),
            Command::Credit {
                refund,
                answer,
                known,
            } => self.credit(now, (refund, known), answer),
        }
    }

    fn apply(&mut self, seq: Seq, event: &Event) {
        match event {
            Event::KeyReserved { key, at } => {
                self.keys.set(key, KeyState::Running(key.by), *at);
            }
            Event::KeyFreed { hash } => self.keys.free(*hash),
            Event::KeyAnswered { key, at, .. } => self.keys.set(key, KeyState::Answered, *at),
            Event::Charged { charge, key } => {
                self.balance = self.balance.plus(charge.amount);
                if let Some(key) = key {
                    self.keys.set(key, KeyState::Answered, charge.at);
                }
            }
            Event::Prepared { prepare, key } => {
                self.prepared.push(*prepare);
                if let Some(key) = key {
                    let state = KeyState::Ordered(prepare.order, prepare.timetable);
                    self.keys.set(key, state, prepare.at);
                }
            }
            Event::Posted { prepare, .. } => {
                self.balance = self.balance.minus(prepare.amount);
                self.settle_order(prepare.order, PrepareState::Posted);
            }
            Event::Voided { prepare, .. } => {
                self.settle_order(prepare.order, PrepareState::Void);
            }
            Event::Credited { refund, .. } => self.apply_credited(refund, seq),
        }
        debug_assert!(self.spendable() >= Money::ZERO, "I7: a balance below zero");
    }

    fn is_durable(event: &Event) -> bool {
        !matches!(event, Event::KeyReserved { .. } | Event::KeyFreed { .. })
    }

    /// All that shows money is of the strongest tier already.
    fn reveals(&self, _outcome: &Result<Reply, Refusal>) -> Tier {
        Tier::Memory
    }

    fn settle(&mut self, _upto: Seq) {}

    fn next_deadline(&self) -> Option<Timestamp> {
        None
    }
}

#[cfg(test)]
mod tests;
