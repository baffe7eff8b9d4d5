//! What a queue can be asked, what can happen to it, and what it answers.

use serde::{Deserialize, Serialize};

use super::draw::{Digest, Draw, Seed};
use super::line::TicketNumber;
use super::policy::Terms;
use crate::domain::decision::Tier;
use crate::domain::ids::{QueueTicketId, UserId};
use crate::domain::time::Timestamp;

/// A place as its signed ticket tells it; the signature was verified, and that
/// it is of this queue and this user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The place.
    pub ticket: QueueTicketId,
    /// Its number; `None` on a receipt from before the draw, which claims
    /// nothing: the store has it.
    pub number: Option<TicketNumber>,
}

/// How many seats are not sold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SeatsLeft {
    /// Anyone with a pass may hold them.
    pub available: u32,
    /// Somebody holds them; they may come back.
    pub held: u32,
}

impl SeatsLeft {
    /// Those that can still be had, perhaps.
    #[must_use]
    pub fn total(self) -> u32 {
        self.available.saturating_add(self.held)
    }
}

/// What a queue can be asked. Travels between nodes of the same version only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Take a place; who has one keeps it. `ticket` is the name of a new one,
    /// made by the caller.
    Join {
        user: UserId,
        ticket: QueueTicketId,
        claim: Option<Claim>,
    },
    /// Where does the user stand? A sign of life. A claim that is valid
    /// restores a lost place.
    State { user: UserId, claim: Option<Claim> },
    /// Renew the pass of a user who holds seats, or doesn't.
    Extend { user: UserId, has_hold: bool },
    /// Give the place or the pass up. Twice is as good as once.
    Leave { user: UserId },
    /// The user's order was confirmed at `at`. Twice is as good as once, however
    /// late: a pass that was granted since is not meant.
    Purchased { user: UserId, at: Timestamp },
    /// A hold of the user, made at `at`, is durable. Twice is as good as once.
    HoldMade { user: UserId, at: Timestamp },
    /// Admit nobody until [`Command::Resume`].
    Pause,
    /// Admit again.
    Resume,
    /// Take no newcomers (`true`), or take them again; who has a place keeps
    /// it.
    Drain(bool),
    /// How many seats are left; of all timetables of the performance.
    Seats(SeatsLeft),
    /// The secret of the draw, random, made by the caller: the first one stays.
    /// Given once [`super::Queue::wants_seed`].
    LotterySeed(Seed),
    /// The figures that anybody may see.
    Summary,
    /// All that is public of the draw.
    Draw,
}

impl Command {
    /// How durable its outputs must be before they leave; `joins` is the tier
    /// configured for joins. [`super::Queue`] asks for more where an answer
    /// shows more.
    #[must_use]
    pub fn tier(&self, joins: Tier) -> Tier {
        match self {
            Self::Join { .. } => joins,
            Self::State { .. } | Self::Seats(_) | Self::Summary | Self::Draw => Tier::Memory,
            // A pass that has ended, or lives longer, must do so after a crash,
            // too; and who tells of a purchase or a hold repeats it until it is
            // durable.
            Self::Leave { .. }
            | Self::Extend { .. }
            | Self::Purchased { .. }
            | Self::HoldMade { .. }
            | Self::Pause
            | Self::Resume
            | Self::Drain(_)
            | Self::LotterySeed(_) => Tier::Database,
        }
    }
}

/// How a place or a pass ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum End {
    /// The time of the pass was up, or its user gave no sign of life while
    /// waiting.
    Expired,
    /// Its user left.
    Left,
    /// Its user bought, and the policy lets one purchase a pass.
    Purchased,
    /// The same user came back with a ticket for a better place.
    Replaced,
}

/// What time it is for the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Before `opens_at`: nobody enters.
    PreQueue,
    /// Who is next enters.
    Open,
    /// Nothing is available or held: nobody enters, until seats come back.
    SoldOut,
    /// The sale is over, or withdrawn.
    Closed,
}

/// What can happen to a queue. Serialised into the journal: variants are
/// appended, never reordered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Numbers up to this one may be given out: recovery goes on above it.
    Reserved { upto: TicketNumber },
    /// Somebody has a place. Without a number until the draw. A number below
    /// the next one is a claimed one; one above it raises the counter, and
    /// those between may be claimed later.
    Joined {
        user: UserId,
        ticket: QueueTicketId,
        number: Option<TicketNumber>,
        at: Timestamp,
    },
    /// A place or a pass is over. Carries its whole row: when it is written,
    /// the user may have another place already.
    Ended {
        user: UserId,
        ticket: QueueTicketId,
        number: Option<TicketNumber>,
        entrant: bool,
        joined_at: Timestamp,
        end: End,
        at: Timestamp,
        /// When the pass would have ended; `at` if there was none.
        pass_until: Timestamp,
    },
    /// These are next: who claimed a number that was passed (`late`), and all
    /// who wait with a number above the last one admitted and up to `upto`.
    /// They enter by [`Event::Opened`], once this is in the database.
    /// `metered` of them count in the window of the policy, whose `terms` these
    /// were.
    Admitted {
        late: Vec<TicketNumber>,
        upto: TicketNumber,
        metered: u32,
        terms: Terms,
    },
    /// Those of the last [`Event::Admitted`] who are still there have passes.
    Opened {
        at: Timestamp,
        expires_at: Timestamp,
    },
    /// A pass lives longer.
    Extended {
        user: UserId,
        ticket: QueueTicketId,
        expires_at: Timestamp,
    },
    /// Nobody enters (`true`), or they do again.
    Paused(bool),
    /// No newcomers are taken (`true`), or they are again.
    Drained(bool),
    /// The secret of the draw is chosen.
    SeedChosen(Seed),
    /// Who joined before the opening was drawn: they have the numbers from
    /// `first` on, in the order of their ranks, which the seed and their
    /// tickets make.
    Drawn {
        at: Timestamp,
        first: TicketNumber,
        entrants: u32,
        entrants_hash: Digest,
    },
    /// Somebody who waits is there. Volatile.
    Seen { user: UserId, at: Timestamp },
    /// It opened, closed, has seats again, or has just been loaded. Volatile.
    Turned { phase: Phase, at: Timestamp },
    /// Of those whose sign of life may be overdue, so many were looked at; who
    /// was overdue is out. Volatile.
    Sifted { bucket: u32, looked_at: u32 },
    /// Seats were sold or came back. Volatile.
    SeatsTold(SeatsLeft),
}

/// How a user stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Before the opening; `number` is `None` where it will be drawn.
    PreQueue,
    /// Waits for its turn.
    Waiting,
    /// Has a pass.
    Admitted,
    /// The pass has ended, or there was no sign of life.
    Expired,
    /// Has left, or has bought.
    Left,
    /// Waits, but there is nothing to wait for now.
    Closed,
}

/// How a user stands, with all that the HTTP contract shows of it but what is
/// signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Who.
    pub user: UserId,
    /// See [`State`].
    pub state: State,
    /// The place; what its signed ticket names.
    pub ticket: QueueTicketId,
    /// Its number.
    pub number: Option<TicketNumber>,
    /// 1 is next; never grows. `None` before the draw, and for who doesn't
    /// wait.
    pub position: Option<u32>,
    /// How many numbers wait behind it.
    pub waiting_behind: u32,
    /// `None`: it can't be told, e.g. in a pause.
    pub estimated_wait_seconds: Option<u32>,
    /// What is left.
    pub seats: SeatsLeft,
    /// When the pass ends; durable. `None` for who has none.
    pub pass_expires_at: Option<Timestamp>,
    /// Nobody enters now, by an operator's word.
    pub paused: bool,
    /// When to ask again.
    pub poll_after_seconds: u32,
    /// The version of the line that `position` is of, see
    /// [`super::line::Line::seq`].
    pub line_seq: u64,
}

/// The figures of a queue that anybody may see.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// How many wait, the entrants of a draw included.
    pub waiting: u32,
    /// How many have a pass, or are about to.
    pub active: u32,
    /// How many ever had one.
    pub admitted_total: u64,
    /// As measured.
    pub admission_per_second: f64,
    /// Of somebody who joins now.
    pub estimated_wait_seconds: Option<u32>,
    /// Nobody enters now, by an operator's word.
    pub paused: bool,
    /// No newcomers are taken, by an operator's word.
    pub draining: bool,
    /// See [`Phase`].
    pub phase: Phase,
    /// What is left.
    pub seats: SeatsLeft,
    /// How many left, waiting or inside, since this was loaded.
    pub left: u64,
    /// How many ran out of time, waiting or inside, since this was loaded.
    pub expired: u64,
}

/// What a queue answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The place, and whether it is new (201) or not (200).
    Joined { standing: Standing, new: bool },
    /// How the user stands.
    Standing(Standing),
    /// The place is given up, or was.
    Left,
    /// Done, or done before.
    Done,
    /// See [`Summary`].
    Summary(Summary),
    /// See [`Draw`].
    Draw(Draw),
}

/// Why a queue did not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The user has no place, and had none lately.
    NotInQueue,
    /// Too many wait for the seats left, or there is no room for more at all.
    QueueFull,
    /// The sale is over, nothing is left, or no newcomers are taken.
    QueueClosed,
    /// There is no pass, no hold, or the policy renews none.
    NothingToExtend,
    /// The draw has no seed yet: the caller gives one and asks again.
    SeedMissing,
    /// There is no lottery.
    NoDraw,
}
