//! What handlers ask for by id: the timetable, its plan, where a hold is.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use crate::actors::board::{Board, SeatCounts};
use crate::actors::ownership::Shard;
use crate::catalogue::{Performance, Timetable};
use crate::clock::monotonic;
use crate::domain::decision::Tier;
use crate::domain::ids::{HoldId, ShardId, TimetableId, UserId, shard_in, shard_of};
use crate::domain::plan::Plan;
use crate::domain::roles::Role;
use crate::domain::timetable;
use crate::http::error::{Answer, Code, Problem};
use crate::http::hold_id;
use crate::http::tokens::Identity;

/// How old the seat map of another node's timetable may be.
const COPY_AGE_MAX: Duration = Duration::from_millis(100);

/// How long a reader waits for a timetable that is on its way to another node,
/// and how often it looks.
const MOVING_MAX: Duration = Duration::from_secs(1);
const MOVING_PAUSE: Duration = Duration::from_millis(20);

/// A timetable as the public may know it.
#[derive(Clone, Debug)]
pub struct Sale {
    /// What it decides by.
    pub plan: Arc<Plan>,
    /// Who made the performance.
    pub owner: UserId,
    /// Whether it has a waiting room.
    pub has_queue: bool,
    /// Names the layout with its prices.
    pub layout_etag: Arc<str>,
}

impl From<(Arc<Performance>, Arc<Timetable>)> for Sale {
    fn from((performance, timetable): (Arc<Performance>, Arc<Timetable>)) -> Self {
        Self {
            plan: Arc::clone(&timetable.plan),
            owner: performance.row.owner,
            has_queue: performance.row.queue.is_some(),
            layout_etag: Arc::clone(&performance.layout_etag),
        }
    }
}

impl Sale {
    /// Whether `caller` may do what organizers may with it.
    #[must_use]
    pub fn belongs_to(&self, caller: Option<Identity>) -> bool {
        caller.is_some_and(|caller| {
            caller.roles.has(Role::Admin)
                || (caller.roles.has(Role::Organizer) && caller.user_id == self.owner)
        })
    }
}

impl App {
    /// A timetable that the public may know.
    ///
    /// # Errors
    /// 404 `timetable-not-found`
    pub fn sale(&self, id: TimetableId) -> Answer<Sale> {
        self.catalogue
            .public_timetable(id)
            .map(Sale::from)
            .ok_or_else(|| Code::TimetableNotFound.into())
    }

    /// A timetable that `caller` may administer, drafts too.
    ///
    /// # Errors
    /// 404 `timetable-not-found`
    pub fn sale_managed_by(&self, id: TimetableId, caller: &Identity) -> Answer<Sale> {
        self.catalogue
            .timetable(id)
            .map(Sale::from)
            .filter(|sale| sale.belongs_to(Some(*caller)))
            .ok_or_else(|| Code::TimetableNotFound.into())
    }

    /// What a timetable that the public may know decides by.
    ///
    /// # Errors
    /// 404 `timetable-not-found`
    pub fn plan(&self, id: TimetableId) -> Answer<Arc<Plan>> {
        self.catalogue
            .public_timetable(id)
            .map(|(_, timetable)| Arc::clone(&timetable.plan))
            .ok_or_else(|| Code::TimetableNotFound.into())
    }

    /// A timetable whose performance may have been deleted since.
    ///
    /// # Errors
    /// 500 if there never was one, which is a defect.
    pub fn past_sale(&self, id: TimetableId) -> Answer<(Arc<Performance>, Arc<Timetable>)> {
        self.catalogue
            .timetable(id)
            .ok_or_else(|| Problem::internal_text("an order is of an unknown timetable"))
    }

    /// What such a timetable decides by.
    ///
    /// # Errors
    /// Those of [`App::past_sale`].
    pub fn plan_of_past(&self, id: TimetableId) -> Answer<Arc<Plan>> {
        self.past_sale(id)
            .map(|(_, timetable)| Arc::clone(&timetable.plan))
    }

    /// The timetable that a hold of `user` is, was lately, or was bought on.
    ///
    /// # Errors
    /// If it can't be told now.
    pub async fn timetable_of_hold(
        &self,
        hold: HoldId,
        user: UserId,
    ) -> Answer<Option<TimetableId>> {
        if let Some(timetable) = self.node.holds.timetable_of(hold) {
            return Ok(Some(timetable));
        }
        // The live ones of this node's shards are in the index. It has ended, or
        // never was, or is another node's.
        if !hold_id::is_of(&self.keys, hold, user) {
            return Ok(None);
        }
        let shard = shard_in(hold.0);
        let timetables = &self.node.timetables;
        for timetable in self.timetables_of_shard(shard) {
            // Those that are running may remember; one that isn't can't.
            let is_here = self.node.ownership.is_here(shard);
            if is_here && timetables.directory().running(timetable.0).is_none() {
                continue;
            }
            let find = timetable::Command::FindHold { hold, user };
            match timetables.ask(timetable.0, find).await? {
                Err(timetable::Refusal::HoldNotFound) => {}
                Ok(_) | Err(_) => return Ok(Some(timetable)),
            }
        }
        // Bought; or live on a shard that this node has only just taken.
        Ok(self.store.timetable_of_hold(user, hold).await?)
    }

    fn timetables_of_shard(&self, shard: ShardId) -> Vec<TimetableId> {
        if self.node.ownership.is_here(shard) {
            return self.node.boards.of_shard(shard);
        }
        let performances = self.catalogue.performances();
        let ids = performances.iter().flat_map(|performance| {
            let ids = performance.timetables.iter();
            ids.map(|timetable| timetable.plan.timetable_id)
        });
        ids.filter(|id| shard_of(id.0) == shard).collect()
    }

    /// The live holds of a user, on whichever node they are, oldest first.
    ///
    /// # Errors
    /// 503 if a node doesn't answer: some of them may be there.
    pub async fn holds_of(&self, user: UserId) -> Answer<Vec<(HoldId, TimetableId)>> {
        let mut holds = self.own_holds_of(user);
        let owners = self.node.ownership.others();
        if let Some(peers) = self.node.route.peers() {
            let asked = owners.iter().map(|owner| {
                peers.query::<_, Vec<(HoldId, TimetableId)>>(
                    &owner.address,
                    "/internal/holds",
                    &user,
                )
            });
            for answer in futures_util::future::join_all(asked).await {
                holds.extend(
                    answer.map_err(|error| {
                        Problem::store_unavailable().caused_by(error.to_string())
                    })?,
                );
            }
        }
        holds.sort_unstable();
        // A shard may have moved while its owners were asked.
        holds.dedup();
        Ok(holds)
    }

    /// The live holds of a user on timetables of this node.
    #[must_use]
    pub fn own_holds_of(&self, user: UserId) -> Vec<(HoldId, TimetableId)> {
        let holds = self.node.holds.of_user(user).into_iter();
        holds
            .filter_map(|hold| Some((hold, self.node.holds.timetable_of(hold)?)))
            .collect()
    }

    /// The seat map of a timetable, wherever it is; on a node that doesn't own
    /// it, as it was at most `COPY_AGE_MAX` ago.
    ///
    /// # Errors
    /// 503 if it can't be read now.
    pub async fn board(&self, plan: &Plan) -> Answer<Arc<Board>> {
        let id = plan.timetable_id;
        if !self.node.timetables.is_here(id.0) {
            return self.copied_board(plan).await;
        }
        if !self.node.ownership.may_acknowledge(Tier::Memory) {
            // Somebody else may own it by now.
            return Err(Problem::store_unavailable());
        }
        self.load_board(plan).await
    }

    /// The seat map of a timetable of this node.
    ///
    /// # Errors
    /// 503 if it can't be read now.
    pub async fn load_board(&self, plan: &Plan) -> Answer<Arc<Board>> {
        let board = self.node.board(plan);
        if !board.is_loaded() {
            let mut versions = board.versions();
            self.node.timetables.wake(plan.timetable_id.0).await;
            let loaded = versions.wait_for(|_| board.is_loaded());
            let patience = self.config.actors.ask_timeout();
            if !matches!(tokio::time::timeout(patience, loaded).await, Ok(Ok(_))) {
                return Err(Problem::store_unavailable());
            }
        }
        Ok(board)
    }

    async fn copied_board(&self, plan: &Plan) -> Answer<Arc<Board>> {
        let board = self.node.board(plan);
        let Some(peers) = self.node.route.peers() else {
            return Err(Problem::store_unavailable());
        };
        // One copy at a time; who waited for it has it.
        let _one = board.copying.lock().await;
        let mut since = board.is_copied().then(|| *board.versions().borrow());
        let begun = monotonic();
        while !board.is_fresh_copy(COPY_AGE_MAX) {
            let shard = shard_of(plan.timetable_id.0);
            let question = (plan.timetable_id, since.unwrap_or(0));
            let asked_at = monotonic();
            let copy = match self.node.ownership.state(shard) {
                Shard::Elsewhere {
                    owner: Some(owner), ..
                } => {
                    let asked = peers.query(&owner.address, "/internal/seats", &question);
                    asked.await.map_err(|error| error.to_string())
                }
                // It has come here meanwhile.
                Shard::Ours { .. } => return self.load_board(plan).await,
                Shard::Elsewhere { owner: None, .. } | Shard::HandingOver { .. } => {
                    Err("its shard is on its way".to_owned())
                }
            };
            match copy {
                Ok(copy) => {
                    if !board.mirror(question.1, copy, asked_at) {
                        since = None;
                    }
                }
                Err(_) if begun.elapsed() < MOVING_MAX => tokio::time::sleep(MOVING_PAUSE).await,
                Err(cause) => return Err(Problem::store_unavailable().caused_by(cause)),
            }
        }
        Ok(Arc::clone(&board))
    }

    /// How many seats of a timetable are in which status.
    #[must_use]
    pub fn seats_of(&self, id: TimetableId) -> SeatCounts {
        match (self.node.boards.get(id), self.catalogue.plan(id)) {
            (Some(board), _) => board.counts(),
            (None, Some(plan)) => self.node.board(&plan).counts(),
            (None, None) => SeatCounts::default(),
        }
    }
}
