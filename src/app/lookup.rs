//! What handlers ask for by id: the timetable, its plan, where a hold is.

use std::sync::Arc;

use super::App;
use crate::actors::board::SeatCounts;
use crate::catalogue::{Performance, Timetable};
use crate::domain::ids::{HoldId, TimetableId, UserId, shard_in};
use crate::domain::plan::Plan;
use crate::domain::roles::Role;
use crate::domain::timetable;
use crate::http::error::{Answer, Code, Problem};
use crate::http::tokens::Identity;

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

    /// The timetable that a hold of `user` is, or was lately, on.
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
        // It has ended, or never was: those of its shard may remember.
        for timetable in self.node.boards.of_shard(shard_in(hold.0)) {
            let find = timetable::Command::FindHold { hold, user };
            match self.node.timetables.ask(timetable.0, find).await? {
                Err(timetable::Refusal::HoldNotFound) => {}
                Ok(_) | Err(_) => return Ok(Some(timetable)),
            }
        }
        Ok(None)
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
