//! How a timetable lives in its actor: its own actor for each.

use std::sync::Arc;

use ractor::ActorRef;
use uuid::Uuid;

use super::host::{Hosted, Needs};
use super::loader::read_timetable;
use super::node::Node;
use super::shell::Shell;
use super::{Handle, Message, purchase, refund};
use crate::domain::decision::Tier;
use crate::domain::ids::{Seq, TimetableId};
use crate::domain::time::{Millis, Timestamp};
use crate::domain::timetable::{Command, Event, Timetable};
use crate::persistence::checkpoint::Row;

impl Hosted for Timetable {
    fn tier(node: &Node, command: &Command) -> Tier {
        command.tier(node.options.holds_tier)
    }

    fn needs(node: &Node, command: &Command) -> Needs {
        match command {
            // Their callers wait for the commit, where it is configured so.
            Command::Hold { .. }
            | Command::AddSeats { .. }
            | Command::Restore { .. }
            | Command::Release { .. }
            | Command::DropSeat { .. }
                if node.options.holds_tier == Tier::Database =>
            {
                Needs::Store
            }
            Command::Hold { .. }
            | Command::AddSeats { .. }
            | Command::Restore { .. }
            | Command::Release { .. }
            | Command::DropSeat { .. } => Needs::Room,
            Command::OpenOrder { .. }
            | Command::Block { .. }
            | Command::Unblock { .. }
            | Command::Cancel { .. } => Needs::Store,
            Command::FindHold { .. }
            | Command::Sell { .. }
            | Command::Resolve { .. }
            | Command::RefundPaid { .. }
            | Command::Abort { .. } => Needs::Nothing,
        }
    }

    fn handle(node: &Node) -> &Handle<Self> {
        &node.timetables
    }

    fn host_key(id: Uuid) -> Uuid {
        id
    }

    fn load(node: &Arc<Node>, id: Uuid, host: ActorRef<Message<Self>>) -> bool {
        // One timetable an actor, so that no more loads run than actors.
        tokio::spawn(read_timetable(Arc::clone(node), TimetableId(id), host));
        true
    }

    fn woken(shell: &mut Shell<Self>, node: &Arc<Node>, now: Timestamp, rows: &[Row]) {
        let id = shell.machine.plan().timetable_id;
        let is_from_another_epoch = shell.is_from_another_epoch();
        shell.recover(now, rows);
        // Only holds of an owner that died lost time.
        let alive_before = node.ownership.alive_before(shell.entity().shard());
        if let Some(alive_at) = alive_before.filter(|_| is_from_another_epoch) {
            let grace = shell.machine.grace_after_outage(now, alive_at);
            shell.adopt(now, grace);
        }
        let events = shell.catch_up(now);
        drop(events);
        for hold in shell.machine.holds() {
            node.holds.insert(hold.id, hold.user, id);
        }
        node.open_orders.set(id, shell.machine.open_orders());
        // Cancels whose saga died with its process.
        for (order, cancel) in shell.machine.refunds_due() {
            let (node, order) = (Arc::clone(node), Arc::clone(order));
            tokio::spawn(refund::settle(node, id, order, cancel.no));
        }
        let epoch = shell.epoch();
        let machine = &mut shell.machine;
        drop(machine.take_changes());
        let board = node.board(machine.plan());
        board.load(epoch, machine.statuses(), machine.counts());
    }

    fn take_up(shell: &Shell<Self>, node: &Arc<Node>, now: Timestamp) {
        let id = shell.machine.plan().timetable_id;
        for (order, cancel) in shell.machine.refunds_due() {
            if purchase::is_gone(cancel.at, now) {
                let (node, order) = (Arc::clone(node), Arc::clone(order));
                purchase::go_on(refund::settle(node, id, order, cancel.no));
            }
        }
    }

    fn applied(&mut self, node: &Node, events: &[(Seq, Event)]) {
        let id = self.plan().timetable_id;
        for (_, event) in events {
            match event {
                Event::Held { hold, user, .. } => node.holds.insert(*hold, *user, id),
                Event::HoldEnded { hold, user, .. } => node.holds.remove(*hold, *user),
                Event::OrderConfirmed { order } => {
                    node.holds.remove(order.hold, order.user);
                    node.open_orders.set(id, self.open_orders());
                }
                Event::OrderOpened { .. } | Event::OrderAborted { .. } => {
                    node.open_orders.set(id, self.open_orders());
                }
                Event::SeatsAdded { .. }
                | Event::SeatsDropped { .. }
                | Event::HoldProlonged { .. }
                | Event::SeatsCooled { .. }
                | Event::OrderDisowned { .. }
                | Event::SeatsBlocked { .. }
                | Event::SeatsUnblocked { .. }
                | Event::SeatsCancelled { .. }
                | Event::RefundPaid { .. } => {}
            }
        }
        let counts = self.counts();
        let Some(board) = node.boards.get(id) else {
            return;
        };
        board.change(self.take_changes(), counts);
    }

    fn replan(&mut self, node: &Node) {
        if let Some(plan) = node.catalogue.plan(self.plan().timetable_id) {
            Timetable::replan(self, plan);
        }
    }

    fn is_idle(&self) -> bool {
        Timetable::is_idle(self)
    }

    fn idle_after(node: &Node) -> Millis {
        node.options.timetable_idle
    }

    fn observe(&self, _now: Timestamp) -> serde_json::Value {
        let (plan, counts) = (self.plan(), self.counts());
        serde_json::json!({
            "performance_id": plan.performance_id,
            "capacity": counts.capacity(),
            "available": counts.available,
            "held": counts.held,
            "sold": counts.sold,
            "blocked": counts.blocked,
            "holds": self.holds().count(),
            "open_orders": self.open_orders(),
        })
    }
}
