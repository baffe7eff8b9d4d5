//! The waiting room of one performance: who may enter when, and where everybody
//! else stands.
//!
//! * [`command`]: what it can be asked, what can happen, what it answers.
//! * [`plan`], [`policy`]: what it decides by.
//! * [`mod@line`]: positions; every node keeps a copy.
//! * `places`, `numbers`: everybody's place, by user and by number.
//! * `join`: who gets a place, and who gets it back.
//! * `passes`: how passes are renewed and end.
//! * `admit`: who is next, and when something is due.
//! * `window`, `rate`: how many were admitted of late.
//! * `signs`: who has given no sign of life.
//! * `standing`: what is told.
//! * [`draw`]: the opening by lot.
//! * `apply`: what events do.
//! * `check`: a second look at each decision, for I8.
//! * [`revoked`]: passes that are over before their time.
//! * `rows`, [`restore`]: what is stored of it, and how it comes back.

mod admit;
mod apply;
mod check;
pub mod command;
pub mod draw;
mod join;
pub mod line;
mod numbers;
mod passes;
mod places;
pub mod plan;
pub mod policy;
mod rate;
pub mod restore;
pub mod revoked;
mod rows;
mod signs;
mod standing;
mod window;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use command::{
    Claim, Command, End, Event, Phase, Refusal, Reply, SeatsLeft, Standing, State, Summary,
};
pub use line::{LineDelta, LineSnapshot, TicketNumber};
pub use places::ENDED_FOR;
pub use plan::QueuePlan;
pub use standing::{EtaSample, Pace};

use super::decision::{Decision, Events, Machine, Tier};
use super::ids::{QueueTicketId, Seq, UserId};
use super::invariant::Violation;
use super::time::Timestamp;

use admit::Batch;
use draw::{Digest, Seed};
use line::LeadingLine;
use places::{Places, Slot};
use rate::Rate;
use restore::Gap;
use revoked::Revocations;
use signs::Signs;
use window::Window;

/// How many numbers are reserved ahead at least: so many may be lost in a
/// crash, and each is a place that nobody takes until admission has passed it.
pub const RESERVE_MIN: u32 = 4_096;

/// How many numbers are reserved ahead at most, however fast they go.
pub const RESERVE_MAX: u32 = 262_144;

/// How many users with news are listed by name; if there are more, all are
/// asked to look again.
const NEWS_MAX: usize = 65_536;

/// What was drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Drawn {
    /// When.
    pub at: Timestamp,
    /// The number of the first.
    pub first: TicketNumber,
    /// How many were drawn.
    pub entrants: u32,
    /// See [`draw::entrants_hash`].
    pub entrants_hash: Digest,
}

/// The lottery of a queue that has one.
#[derive(Clone, Debug, Default)]
struct Lottery {
    seed: Option<Seed>,
    /// The decision that chose the seed, until it is in the database.
    choosing: Option<Seq>,
    drawn: Option<Drawn>,
    /// The decision that drew, until it is in the database.
    drawing: Option<Seq>,
    /// In the order of their numbers.
    entrants: Arc<[QueueTicketId]>,
}

/// Whose sockets must be told something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct News {
    /// These stand otherwise than before.
    pub users: Vec<UserId>,
    /// Everybody may.
    pub all: bool,
}

/// The state of one queue.
#[derive(Clone, Debug)]
pub struct Queue {
    plan: Arc<QueuePlan>,
    places: Places,
    line: LeadingLine,
    /// The number of the next newcomer.
    next: TicketNumber,
    /// Numbers up to here may be given out.
    reserved_upto: TicketNumber,
    /// Up to here that is in the database.
    reserved_durably: TicketNumber,
    /// Reservations on their way to the database.
    reserving: VecDeque<(Seq, TicketNumber)>,
    /// How many to reserve the next time.
    block: u32,
    /// Numbers of which it is not known whether somebody has them: who comes
    /// with a ticket gets them back.
    gaps: Vec<Gap>,
    /// Those that were got back.
    claimed: HashSet<TicketNumber, RandomState>,
    /// Claimed numbers that admission had passed: they enter first.
    late: BTreeSet<TicketNumber>,
    /// The last number decided to be admitted; the line's follows when the
    /// passes are given.
    cursor: TicketNumber,
    /// Who is being admitted.
    batch: Option<Batch>,
    /// Who got passes by the last [`Event::Opened`].
    opened: Vec<Slot>,
    /// That one, and until when its passes live, until it is in the database.
    opening: Option<(Seq, Timestamp)>,
    window: Window,
    rate: Rate,
    admitted_total: u64,
    left: u64,
    expired: u64,
    paused: bool,
    draining: bool,
    /// As it was told; `None` until the first look at the clock after loading
    /// or after a change of the plan.
    phase: Option<Phase>,
    /// Since when signs of life could be given.
    listening_since: Timestamp,
    seats: Option<SeatsLeft>,
    passes: BTreeSet<(Timestamp, u32)>,
    /// Passes whose longer life is not in the database yet, with the end that
    /// is.
    renewing: HashMap<u32, (Seq, Timestamp), RandomState>,
    revoked: Revocations,
    /// Who left the line, but not in the database yet.
    departing: VecDeque<(Seq, TicketNumber)>,
    /// Whose place or pass was given up, but not in the database yet.
    ending: HashMap<UserId, Seq, RandomState>,
    signs: Signs,
    lottery: Lottery,
    news: News,
    eta_samples: Vec<EtaSample>,
}

impl Queue {
    /// A queue that nobody has joined.
    #[must_use]
    pub fn new(plan: Arc<QueuePlan>) -> Self {
        Self {
            plan,
            places: Places::default(),
            line: LeadingLine::default(),
            next: TicketNumber(1),
            reserved_upto: TicketNumber(0),
            reserved_durably: TicketNumber(0),
            reserving: VecDeque::new(),
            block: RESERVE_MIN,
            gaps: Vec::new(),
            claimed: HashSet::default(),
            late: BTreeSet::new(),
            cursor: TicketNumber(0),
            batch: None,
            opened: Vec::new(),
            opening: None,
            window: Window::default(),
            rate: Rate::default(),
            admitted_total: 0,
            left: 0,
            expired: 0,
            paused: false,
            draining: false,
            phase: None,
            listening_since: Timestamp(i64::MIN),
            seats: None,
            passes: BTreeSet::new(),
            renewing: HashMap::default(),
            revoked: Revocations::default(),
            departing: VecDeque::new(),
            ending: HashMap::default(),
            signs: Signs::default(),
            lottery: Lottery::default(),
            news: News::default(),
            eta_samples: Vec::new(),
        }
    }

    /// What it decides by.
    #[must_use]
    pub fn plan(&self) -> &Arc<QueuePlan> {
        &self.plan
    }

    /// Decides by `plan` from now on. Everybody keeps their place, and who is
    /// inside their pass.
    pub fn replan(&mut self, plan: Arc<QueuePlan>) {
        self.plan = plan;
        self.phase = None;
        self.news.all = true;
    }

    /// Where everybody is; what other nodes copy.
    #[must_use]
    pub fn line(&self) -> &line::Line {
        self.line.line()
    }

    /// What has changed in the line since this was last called.
    pub fn take_delta(&mut self) -> Option<LineDelta> {
        self.line.take_delta()
    }

    /// Numbers the versions of the line from `seq` on, if they are below: what
    /// an earlier life has told is older.
    pub fn number_line_from(&mut self, seq: u64) {
        self.line.number_from(seq);
    }

    /// Whose sockets must be told something, since this was last called: a
    /// pass, its end, another number, the end of the sale.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// How well entries were foretold, since this was last called; a sample.
    pub fn take_eta_samples(&mut self) -> Vec<EtaSample> {
        std::mem::take(&mut self.eta_samples)
    }

    /// Whether there are changes that are shown only once they are in the
    /// database: of the line, or of passes.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        !self.departing.is_empty() || !self.renewing.is_empty()
    }

    /// Passes that are over before their time.
    #[must_use]
    pub fn revoked(&self) -> &Revocations {
        &self.revoked
    }

    /// Until when the user has a pass, as far as that is in the database; for
    /// the owner's own check of a pass.
    #[must_use]
    pub fn pass_of(&self, user: UserId) -> Option<(TicketNumber, Timestamp)> {
        let (slot, place) = self.places.of_user(user)?;
        place.number().zip(self.shown_expiry(slot, place))
    }

    /// The position of a user who waits with a number: 1 is next.
    #[must_use]
    pub fn position_of(&self, user: UserId) -> Option<u32> {
        let (_, place) = self.places.of_user(user)?;
        let number = place.number().filter(|_| place.waits())?;
        Some(self.line.line().position(number))
    }

    /// Whether the lottery needs its secret: [`Command::LotterySeed`].
    #[must_use]
    pub fn wants_seed(&self) -> bool {
        self.is_lottery() && self.lottery.seed.is_none() && self.lottery.drawn.is_none()
    }

    /// Whether it can be unloaded: nobody is inside or waits, or the sale is
    /// over; and nothing waits for the database.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let counts = self.places.counts();
        let nobody = counts.waiting + counts.entrants + counts.active == 0;
        (nobody || self.phase == Some(Phase::Closed))
            && self.batch.is_none()
            && self.reserving.is_empty()
            && self.departing.is_empty()
    }

    /// How many bytes of places, numbers and signs a person takes is measured
    /// by `benches/domain/memory.rs`; this is how many there are.
    #[must_use]
    pub fn kept(&self) -> u32 {
        self.places.len()
    }

    fn tell(&mut self, user: UserId) {
        if self.news.all {
            return;
        }
        if self.news.users.len() < NEWS_MAX {
            self.news.users.push(user);
        } else {
            self.news = News {
                users: Vec::new(),
                all: true,
            };
        }
    }
}

impl Machine for Queue {
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Refusal = Refusal;

    fn due(&self, now: Timestamp) -> Events<Event> {
        self.all_due(now)
    }

    fn decide(&self, now: Timestamp, command: Command) -> Result<Decision<Event, Reply>, Refusal> {
        match command {
            Command::Join {
                user,
                ticket,
                claim,
            } => self.join(now, user, ticket, claim),
            Command::State { user, claim } => self.state(now, user, claim),
            Command::Extend { user, has_hold } => self.extend(now, user, has_hold),
            Command::Leave { user } => Ok(self.leave(now, user)),
            Command::Purchased { user, at } => Ok(self.purchased(now, user, at)),
            Command::HoldMade { user, at } => Ok(self.hold_made(now, user, at)),
            Command::Pause => Ok(self.pause(true)),
            Command::Resume => Ok(self.pause(false)),
            Command::Drain(draining) => Ok(self.drain(draining)),
            Command::Seats(seats) => Ok(Decision::one(Event::SeatsTold(seats), Reply::Done)),
            Command::LotterySeed(seed) => Ok(self.choose_seed(seed)),
            Command::Summary => Ok(Decision::unchanged(Reply::Summary(self.summary(now)))),
            Command::Draw => self.draw().map(Decision::unchanged),
        }
    }

    fn check(&self, event: &Event) -> Result<(), Violation> {
        self.check_event(event)
    }

    fn apply(&mut self, seq: Seq, event: &Event) {
        self.apply_event(seq, event);
    }

    fn is_durable(event: &Event) -> bool {
        match event {
            Event::Reserved { .. }
            | Event::Joined { .. }
            | Event::Ended { .. }
            | Event::Admitted { .. }
            | Event::Opened { .. }
            | Event::Extended { .. }
            | Event::Paused(_)
            | Event::Drained(_)
            | Event::SeedChosen(_)
            | Event::Drawn { .. } => true,
            Event::Seen { .. }
            | Event::Turned { .. }
            | Event::Sifted { .. }
            | Event::SeatsTold(_) => false,
        }
    }

    /// A number is shown when its reservation is in the database, one that was
    /// drawn when the draw is, a place from before the opening and a pass when
    /// they are themselves, a place after another when the other's end is, and a
    /// seed's hash when the seed is.
    fn reveals(&self, outcome: &Result<Reply, Refusal>) -> Tier {
        let shows_more = match outcome {
            Ok(Reply::Joined { standing, .. }) => {
                standing.state == State::PreQueue || self.shows_undurable(standing)
            }
            Ok(Reply::Standing(standing)) => self.shows_undurable(standing),
            Ok(Reply::Draw(_)) => self.lottery.choosing.is_some() || self.lottery.drawing.is_some(),
            Ok(Reply::Left | Reply::Done | Reply::Summary(_)) | Err(_) => false,
        };
        if shows_more {
            Tier::Database
        } else {
            Tier::Memory
        }
    }

    fn settle(&mut self, upto: Seq) {
        self.settle_all(upto);
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        self.first_deadline()
    }
}

#[cfg(test)]
mod tests;
