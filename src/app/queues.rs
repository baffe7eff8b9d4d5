//! What handlers ask of waiting rooms, wherever those are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::App;
use crate::actors::AskError;
use crate::actors::node::Node;
use crate::actors::ownership::Shard;
use crate::actors::queue::new_seed;
use crate::actors::queue_board::QueueBoard;
use crate::catalogue::Performance;
use crate::catalogue::cache::BodyCache;
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::{Epoch, PerformanceId, UserId, shard_of};
use crate::domain::queue::draw::{Digest, Draw};
use crate::domain::queue::policy::Opening;
use crate::domain::queue::{Command, Phase, Refusal, Reply, SeatsLeft, Summary};
use crate::http::error::{Answer, Code, Problem};
use crate::http::problems::queue_refusal;
use crate::http::queue_tokens::Pass;
use crate::persistence::bus::notices::{Deed, NotTold, Notice, Tell};

/// How old what a node knows of another node's passes may be: half of the
/// second within which an end of a pass must be known everywhere.
const COPY_AGE_MAX: Duration = Duration::from_millis(500);

/// How long a check waits for a queue that is on its way to another node, and
/// how often it looks.
const MOVING_MAX: Duration = Duration::from_secs(1);
const MOVING_PAUSE: Duration = Duration::from_millis(20);

/// How many bytes of published draws are kept.
const DRAW_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What never changes about the draws of waiting rooms.
#[derive(Debug)]
pub struct Draws {
    /// Once the seed is in the database; one a performance with a lottery.
    commitments: DashMap<PerformanceId, Digest, RandomState>,
    /// Once they have taken place, as JSON.
    published: BodyCache<PerformanceId>,
}

impl Default for Draws {
    fn default() -> Self {
        Self {
            commitments: DashMap::default(),
            published: BodyCache::new(DRAW_BYTES_MAX),
        }
    }
}

/// How the bus tells the waiting rooms what their visitors did.
pub(super) fn teller(node: &Arc<Node>) -> Tell {
    let node = Arc::clone(node);
    Arc::new(move |notice| Box::pin(tell(Arc::clone(&node), notice)))
}

async fn tell(node: Arc<Node>, notice: Notice) -> Result<(), NotTold> {
    let id = notice.performance;
    let performance = node.catalogue.performance(id);
    if performance.is_none_or(|performance| performance.row.queue.is_none()) {
        return Ok(());
    }
    let Notice { user, at, .. } = notice;
    let command = match notice.deed {
        Deed::Purchased => {
            // First what is left: who leaves makes room, and nobody is to enter
            // where nothing is left.
            let left = node.count_seats(id).await;
            if let Some(left) = left.map_err(|_| NotTold::StoreAway)? {
                tell_one(&node, id, Command::Seats(left)).await?;
            }
            Command::Purchased { user, at }
        }
        Deed::HoldMade => Command::HoldMade { user, at },
    };
    tell_one(&node, id, command).await
}

async fn tell_one(node: &Node, id: PerformanceId, command: Command) -> Result<(), NotTold> {
    match node.queues.resume(id.0, command).await {
        // These are never refused.
        Ok(_) => Ok(()),
        Err(AskError::StoreUnavailable) => Err(NotTold::StoreAway),
        Err(AskError::Overloaded | AskError::Unknown) => Err(NotTold::NoAnswer),
    }
}

impl Draws {
    /// The hash of a draw's seed, if this node has seen it.
    #[must_use]
    pub fn commitment(&self, id: PerformanceId) -> Option<Digest> {
        self.commitments.get(&id).map(|commitment| *commitment)
    }
}

impl App {
    /// Whether the performance, which the public may know, has a waiting room.
    ///
    /// # Errors
    /// 404 `performance-not-found`, `queue-not-found`
    pub fn check_queue(&self, id: PerformanceId) -> Answer<()> {
        let performance = self.catalogue.public_performance(id);
        let performance = performance.ok_or(Code::PerformanceNotFound)?;
        match performance.row.queue {
            Some(_) => Ok(()),
            None => Err(Code::QueueNotFound.into()),
        }
    }

    /// Asks the queue of a performance. One that has no seed yet for its draw
    /// gets one first.
    ///
    /// # Errors
    /// The queue's refusal, or 503.
    pub async fn ask_queue(&self, id: PerformanceId, command: Command) -> Answer<Reply> {
        let queues = &self.node.queues;
        match queues.ask(id.0, command.clone()).await? {
            Ok(reply) => Ok(reply),
            // Once in a queue's life: boxed, so that not every call carries it.
            Err(Refusal::SeedMissing) => Box::pin(self.ask_with_seed(id, command)).await,
            Err(refusal) => Err(queue_refusal(refusal)),
        }
    }

    async fn ask_with_seed(&self, id: PerformanceId, command: Command) -> Answer<Reply> {
        let queues = &self.node.queues;
        let seed = new_seed().map_err(|error| Problem::internal(&error))?;
        queues
            .ask(id.0, Command::LotterySeed(seed))
            .await?
            .map_err(queue_refusal)?;
        queues.ask(id.0, command).await?.map_err(queue_refusal)
    }

    /// The figures of a queue whose sale is over, if `command` of an operator has
    /// nothing to change in it: as the store has them, so that nothing is loaded
    /// which may have a million places and nothing to do any more.
    ///
    /// # Errors
    /// 503 if the store can't be read.
    pub async fn figures_if_over(
        &self,
        id: PerformanceId,
        command: &Command,
    ) -> Answer<Option<Summary>> {
        let now = self.clock.now();
        let plan = self.node.queue_plan(id);
        let Some(plan) = plan.filter(|plan| plan.is_over(now)) else {
            return Ok(None);
        };
        let stored = self.store.queue_figures(id, now).await?;
        let is_so = match command {
            Command::Pause => stored.paused,
            Command::Resume => !stored.paused,
            Command::Drain(draining) => stored.draining == *draining,
            _ => false,
        };
        if !is_so {
            return Ok(None);
        }
        let seats = self.node.count_seats(id).await?;
        Ok(Some(Summary {
            waiting: stored.waiting,
            active: stored.active,
            admitted_total: stored.admitted_total,
            // Nobody enters any more.
            admission_per_second: 0.0,
            estimated_wait_seconds: None,
            paused: stored.paused,
            draining: stored.draining,
            phase: Phase::Closed,
            seats: seats.unwrap_or(SeatsLeft {
                available: plan.capacity,
                held: 0,
            }),
            left: 0,
            expired: 0,
        }))
    }

    /// The epoch in which the queue of a performance lives, as far as is known.
    #[must_use]
    pub fn queue_epoch(&self, id: PerformanceId) -> Epoch {
        match self.node.ownership.state(shard_of(id.0)) {
            Shard::Ours { epoch, .. }
            | Shard::Elsewhere { epoch, .. }
            | Shard::HandingOver { epoch, .. } => epoch,
        }
    }

    /// Whether the user holds seats of a performance, on whichever node.
    ///
    /// # Errors
    /// 503 if a node doesn't answer.
    pub async fn has_holds(&self, user: UserId, id: PerformanceId) -> Answer<bool> {
        let holds = self.holds_of(user).await?;
        let is_of = |plan: Arc<crate::domain::plan::Plan>| plan.performance_id == id;
        Ok(holds
            .into_iter()
            .any(|(_, timetable)| self.catalogue.plan(timetable).is_some_and(is_of)))
    }

    /// Whether a genuine pass is over before its time: its user left, or
    /// bought. On the owner of the queue that is known at once, elsewhere within
    /// a second.
    ///
    /// # Errors
    /// 503 if it can't be told now.
    pub async fn is_pass_over(&self, pass: &Pass) -> Answer<bool> {
        let id = pass.performance;
        if self.node.queues.is_here(id.0) {
            if !self.node.ownership.may_acknowledge(Tier::Memory) {
                // Somebody else may own it by now.
                return Err(Problem::store_unavailable());
            }
            let board = self.load_queue_board(id).await?;
            let is_over = board.is_over(pass.user, pass.number);
            return is_over.ok_or_else(Problem::store_unavailable);
        }
        self.is_over_elsewhere(pass).await
    }

    /// What a queue of this node publishes.
    ///
    /// # Errors
    /// 503 if it can't be read now.
    pub async fn load_queue_board(&self, id: PerformanceId) -> Answer<Arc<QueueBoard>> {
        let board = self.node.queue_boards.open(id);
        if !board.is_loaded() {
            let mut told = board.told();
            self.node.queues.wake(id.0).await;
            let loaded = told.wait_for(|_| board.is_loaded());
            let patience = self.config.actors.ask_timeout();
            if !matches!(tokio::time::timeout(patience, loaded).await, Ok(Ok(_))) {
                return Err(Problem::store_unavailable());
            }
        }
        Ok(board)
    }

    async fn is_over_elsewhere(&self, pass: &Pass) -> Answer<bool> {
        let id = pass.performance;
        let board = self.node.queue_boards.open(id);
        let in_copy = || board.is_over_in_copy(pass.user, pass.number, COPY_AGE_MAX);
        if let Some(is_over) = in_copy() {
            return Ok(is_over);
        }
        let Some(peers) = self.node.route.peers() else {
            return Err(Problem::store_unavailable());
        };
        // One copy at a time; who waited for it has it.
        let _one = board.copying.lock().await;
        let mut known = board.known();
        let begun = monotonic();
        loop {
            if let Some(is_over) = in_copy() {
                return Ok(is_over);
            }
            let asked_at = monotonic();
            let copy = match self.node.ownership.state(shard_of(id.0)) {
                Shard::Elsewhere {
                    owner: Some(owner), ..
                } => {
                    let question = (id, known);
                    let asked = peers.query(&owner.address, "/internal/passes", &question);
                    asked.await.map_err(|error| error.to_string())
                }
                // It has come here meanwhile.
                Shard::Ours { .. } => {
                    let board = self.load_queue_board(id).await?;
                    let is_over = board.is_over(pass.user, pass.number);
                    return is_over.ok_or_else(Problem::store_unavailable);
                }
                Shard::Elsewhere { owner: None, .. } | Shard::HandingOver { .. } => {
                    Err("its shard is on its way".to_owned())
                }
            };
            match copy {
                Ok(copy) => {
                    if !board.copy(known, copy, asked_at, self.clock.now()) {
                        known = None;
                    }
                }
                Err(_) if begun.elapsed() < MOVING_MAX => tokio::time::sleep(MOVING_PAUSE).await,
                Err(cause) => return Err(Problem::store_unavailable().caused_by(cause)),
            }
            if begun.elapsed() > 2 * MOVING_MAX {
                return Err(Problem::store_unavailable().caused_by("passes can't be copied"));
            }
        }
    }

    /// All that is public of a draw, as JSON, and what names this version of it.
    ///
    /// # Errors
    /// 404 if there is no lottery; 503.
    pub async fn published_draw(&self, id: PerformanceId) -> Answer<(String, Bytes)> {
        // The same at every call, once it has taken place.
        let etag = |commitment: &Digest, is_over| {
            let text = commitment.to_string();
            let start = text.get(..32).unwrap_or_default();
            format!("\"{start}-{}\"", u8::from(is_over))
        };
        if let (Some(body), Some(commitment)) =
            (self.draws.published.get(&id), self.draws.commitment(id))
        {
            return Ok((etag(&commitment, true), body));
        }
        let draw = self.draw(id).await?;
        let body = serde_json::to_vec(&draw).map_err(|error| Problem::internal(&error))?;
        let is_over = draw.seed.is_some();
        let mut body = Bytes::from(body);
        if is_over {
            body = self.draws.published.get_or_make(&id, || body.clone());
        }
        Ok((etag(&draw.commitment, is_over), body))
    }

    /// The hash of the seed of a performance's draw, public before the first
    /// joiner. `None` if there is no lottery, or it can't be told now.
    pub async fn commitment(&self, performance: &Performance) -> Option<Digest> {
        let id = performance.id();
        let is_lottery = performance
            .row
            .queue
            .is_some_and(|policy| policy.opening == Opening::Lottery);
        if !is_lottery || !performance.is_public() {
            return None;
        }
        if let Some(commitment) = self.draws.commitment(id) {
            return Some(commitment);
        }
        self.draw(id).await.ok().map(|draw| draw.commitment)
    }

    async fn draw(&self, id: PerformanceId) -> Answer<Draw> {
        match self.ask_queue(id, Command::Draw).await? {
            Reply::Draw(draw) => {
                self.draws.commitments.insert(id, draw.commitment);
                Ok(draw)
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// A queue answered something that isn't an answer to what it was asked.
pub fn unexpected(reply: &Reply) -> Problem {
    let kind = match reply {
        Reply::Joined { .. } => "joined",
        Reply::Standing(_) => "standing",
        Reply::Left => "left",
        Reply::Done => "done",
        Reply::Summary(_) => "summary",
        Reply::Draw(_) => "draw",
    };
    Problem::internal_text(format!("a queue answered {kind}"))
}
