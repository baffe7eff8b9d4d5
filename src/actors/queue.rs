//! How a waiting room lives in its actor: its own actor for each.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use uuid::Uuid;

use super::board::SeatCounts;
use super::host::{Hosted, Needs};
use super::loader::read_queue;
use super::node::Node;
use super::queue_board::{Life, QueueBoard};
use super::shell::Shell;
use super::{Handle, Message};
use crate::domain::decision::Tier;
use crate::domain::ids::{PerformanceId, Seq, TimetableId};
use crate::domain::plan::Plan;
use crate::domain::queue::draw::Seed;
use crate::domain::queue::policy::QueuePolicy;
use crate::domain::queue::{Command, Event, Phase, Queue, QueuePlan, SeatsLeft};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;
use crate::persistence::checkpoint::Row;
use crate::telemetry;

/// How often a queue is told what it can't know by itself, if there is news,
/// and tells its followers what has happened.
const FACTS_EVERY: Duration = Duration::from_millis(250);

impl Hosted for Queue {
    fn tier(node: &Node, command: &Command) -> Tier {
        command.tier(node.options.joins_tier)
    }

    fn needs(node: &Node, command: &Command) -> Needs {
        match command {
            Command::Join { .. } if node.options.joins_tier == Tier::Database => Needs::Store,
            Command::Join { .. } | Command::State { claim: Some(_), .. } => Needs::Room,
            Command::Leave { .. }
            | Command::Extend { .. }
            | Command::Pause
            | Command::Resume
            | Command::Drain(_)
            | Command::LotterySeed(_) => Needs::Store,
            Command::State { claim: None, .. }
            | Command::Purchased { .. }
            | Command::HoldMade { .. }
            | Command::Seats(_)
            | Command::Summary
            | Command::Draw => Needs::Nothing,
        }
    }

    fn handle(node: &Node) -> &Handle<Self> {
        &node.queues
    }

    fn host_key(id: Uuid) -> Uuid {
        id
    }

    fn load(node: &Arc<Node>, id: Uuid, host: ActorRef<Message<Self>>) -> bool {
        // One queue an actor, so that no more loads run than actors.
        tokio::spawn(read_queue(Arc::clone(node), PerformanceId(id), host));
        true
    }

    fn woken(shell: &mut Shell<Self>, node: &Arc<Node>, now: Timestamp, rows: &[Row]) {
        shell.recover(now, rows);
        // Before anything is decided: nobody enters where nothing is left.
        let seats = node.seats_left(shell.machine.plan().performance_id);
        if let Some(left) = seats {
            shell.learn(&Event::SeatsTold(left));
        }
        drop(shell.catch_up(now));
        let life = (shell.epoch(), shell.activation());
        let queue = &mut shell.machine;
        let board = node.queue_boards.open(queue.plan().performance_id);
        board.load(queue, life, now);
        tokio::spawn(tell_facts(Arc::clone(node), board, life));
    }

    fn applied(&mut self, node: &Node, events: &[(Seq, Event)]) {
        let board = node.queue_boards.open(self.plan().performance_id);
        let now = node.clock.now();
        board.stir(self, now);
        // Many joins are told as one change; these few things at once.
        let is_told = |event: &Event| match event {
            Event::Opened { .. }
            | Event::Paused(_)
            | Event::Drained(_)
            | Event::Drawn { .. }
            | Event::Turned { .. }
            | Event::SeatsTold(_) => true,
            Event::Reserved { .. }
            | Event::Joined { .. }
            | Event::Ended { .. }
            | Event::Admitted { .. }
            | Event::Extended { .. }
            | Event::SeedChosen(_)
            | Event::Seen { .. }
            | Event::Sifted { .. } => false,
        };
        if events.iter().any(|(_, event)| is_told(event)) {
            board.tell(self, now);
        }
        for sample in self.take_eta_samples() {
            telemetry::eta_error(sample.error_seconds());
        }
    }

    fn replan(&mut self, node: &Node) {
        let plan = node.queue_plan(self.plan().performance_id);
        if let Some(plan) = plan.filter(|plan| plan != &**self.plan()) {
            Queue::replan(self, Arc::new(plan));
        }
    }

    fn is_idle(&self) -> bool {
        Queue::is_idle(self)
    }

    fn idle_after(node: &Node) -> Millis {
        node.options.timetable_idle
    }

    fn observe(&self, now: Timestamp) -> serde_json::Value {
        let (summary, policy) = (self.summary(now), &self.plan().policy);
        let phase = match summary.phase {
            Phase::PreQueue => "pre_queue",
            Phase::Open => "open",
            Phase::SoldOut => "sold_out",
            Phase::Closed => "closed",
        };
        serde_json::json!({
            "phase": phase,
            "paused": summary.paused,
            "draining": summary.draining,
            "waiting": summary.waiting,
            "active": summary.active,
            "max_active": policy.max_active,
            "admitted_total": summary.admitted_total,
            "admission_per_second": summary.admission_per_second,
            "estimated_wait_seconds": summary.estimated_wait_seconds,
            "left": summary.left,
            "expired": summary.expired,
            "places_kept": self.kept(),
            "seats_available": summary.seats.available,
            "seats_held": summary.seats.held,
        })
    }
}

impl Node {
    /// What the queue of a performance decides by; `None` if there is no such
    /// performance. One without a policy has a queue that takes nobody.
    #[must_use]
    pub fn queue_plan(&self, id: PerformanceId) -> Option<QueuePlan> {
        let performance = self.catalogue.performance(id)?;
        let row = &performance.row;
        let dates = performance.timetables.iter();
        let dates = dates.filter(|date| date.row.cancelled_at.is_none());
        let capacity = dates.map(|date| date.plan.layout.capacity());
        Some(QueuePlan {
            performance_id: id,
            policy: row.queue.unwrap_or(QueuePolicy::PLAIN),
            opens_at: row.opens_at,
            closes_at: row.closes_at,
            capacity: capacity.fold(0, u32::saturating_add),
            places_max: self.options.queue_places_max,
            withdrawn: row.queue.is_none() || !performance.is_public(),
        })
    }

    /// Has those of `queues` loaded whose sale isn't over: the others have nothing
    /// to do by themselves.
    pub async fn wake_queues(&self, queues: impl IntoIterator<Item = PerformanceId>) {
        for id in queues {
            let plan = self.queue_plan(id);
            if plan.is_some_and(|plan| !plan.is_over(self.clock.now())) {
                self.queues.wake(id.0).await;
            }
        }
    }

    /// How many seats are left on all dates of a performance, as far as this
    /// node knows; `None` if it doesn't know that of one of them
    /// ([`Node::count_seats`]), or there is no such performance.
    #[must_use]
    pub fn seats_left(&self, id: PerformanceId) -> Option<SeatsLeft> {
        let mut left = SeatsLeft::default();
        for plan in self.dates_of(id)? {
            let board = self.board(&plan);
            if !board.is_counted() {
                return None;
            }
            let counts = board.counts();
            left.available = left.available.saturating_add(counts.available);
            left.held = left.held.saturating_add(counts.held);
        }
        Some(left)
    }

    /// The same; reads from the store what this node doesn't know yet: of dates
    /// that are new to it.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn count_seats(&self, id: PerformanceId) -> Result<Option<SeatsLeft>, StoreError> {
        let dates = self.dates_of(id).unwrap_or_default();
        let unknown = dates.iter().filter(|plan| !self.board(plan).is_counted());
        let unknown: Vec<TimetableId> = unknown.map(|plan| plan.timetable_id).collect();
        if !unknown.is_empty() {
            let counts = self.store.seat_counts_of(&unknown).await?;
            for (timetable, sold, blocked) in counts {
                let plan = dates.iter().find(|plan| plan.timetable_id == timetable);
                let Some(plan) = plan else { continue };
                self.board(plan).count(SeatCounts {
                    available: plan.layout.capacity().saturating_sub(sold + blocked),
                    held: 0,
                    sold,
                    blocked,
                });
            }
        }
        Ok(self.seats_left(id))
    }

    /// The dates of a performance that weren't cancelled.
    fn dates_of(&self, id: PerformanceId) -> Option<Vec<Arc<Plan>>> {
        let performance = self.catalogue.performance(id)?;
        let dates = performance.timetables.iter();
        let dates = dates.filter(|date| date.row.cancelled_at.is_none());
        Some(dates.map(|date| Arc::clone(&date.plan)).collect())
    }
}

/// Tells a queue how many seats are left, and has it tell its followers what
/// has happened, for as long as it lives this life.
async fn tell_facts(node: Arc<Node>, board: Arc<QueueBoard>, life: Life) {
    let id = board.id();
    let mut told = None;
    loop {
        tokio::time::sleep(FACTS_EVERY).await;
        let is_running = node.queues.directory().running(id.0).is_some();
        if board.life() != Some(life) || !is_running {
            return;
        }
        let left = match node.count_seats(id).await {
            Ok(Some(left)) => left,
            Ok(None) if node.catalogue.performance(id).is_none() => return,
            // Until it is known, nobody enters.
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(%error, performance.id = %id, "seats could not be counted");
                continue;
            }
        };
        // A queue that nobody uses is left in peace, to be unloaded.
        if told == Some(left) && !board.is_stirred() {
            continue;
        }
        match node.queues.resume(id.0, Command::Seats(left)).await {
            Ok(_) => told = Some(left),
            Err(error) => {
                tracing::debug!(%error, performance.id = %id, "a queue could not be told its seats");
            }
        }
    }
}

/// A seed from the operating system's source of randomness.
///
/// # Errors
/// If it gives none.
pub fn new_seed() -> std::io::Result<Seed> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(Seed(bytes))
}
