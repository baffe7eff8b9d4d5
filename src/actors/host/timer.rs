//! One timer for the deadlines of all entities of a host.

use ractor::ActorRef;

use super::super::Message;
use super::{Entities, Host, Hosted, Slot};
use crate::domain::time::Timestamp;

impl<M: Hosted> Host<M> {
    pub(super) fn tick(
        &self,
        myself: &ActorRef<Message<M>>,
        state: &mut Entities<M>,
        of: Timestamp,
    ) {
        // A timer that an earlier one has replaced.
        if state.armed == Some(of) {
            self.rearm(myself, state);
        }
    }

    /// Does what is due, and sets the timer for what is due next.
    pub(super) fn rearm(&self, myself: &ActorRef<Message<M>>, state: &mut Entities<M>) {
        state.armed = None;
        let now = self.node.clock.now();
        self.each_alive(myself, state, |shell| {
            let events = shell.catch_up(now);
            shell.machine.applied(&self.node, &events);
        });
        let alive = state.slots.values().filter_map(|slot| match slot {
            Slot::Alive(shell) => shell.machine.next_deadline(),
            Slot::Loading(_) => None,
        });
        let next = alive.min();
        self.arm(myself, &mut state.armed, next);
    }

    /// Has one timer for the earliest deadline of all entities. It may fire
    /// too early (what it was for is gone), never too late.
    pub(super) fn arm(
        &self,
        myself: &ActorRef<Message<M>>,
        armed: &mut Option<Timestamp>,
        deadline: Option<Timestamp>,
    ) {
        let Some(next) = deadline else { return };
        if armed.is_some_and(|armed| armed <= next) {
            return;
        }
        *armed = Some(next);
        myself.send_after(self.node.clock.until(next), move || Message::Tick {
            of: next,
        });
    }
}
