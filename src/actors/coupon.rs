//! How a coupon lives in its actor: its own actor for each.

use std::sync::Arc;

use dashmap::DashMap;
use ractor::ActorRef;
use uuid::Uuid;

use super::host::{Hosted, Needs};
use super::loader::read_coupon;
use super::node::Node;
use super::purchase::{self, participant};
use super::shell::Shell;
use super::{Handle, Message};
use crate::domain::coupon::{Command, Coupon, Event, Prepare, View};
use crate::domain::decision::Tier;
use crate::domain::ids::{CouponId, Seq, ShardSet, shard_of};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::checkpoint::Row;

/// What anyone may see of the coupons of this node: what is in the database.
/// One that isn't here was not asked for since its shard came.
#[derive(Debug, Default)]
pub struct CouponBoards(DashMap<CouponId, View, foldhash::fast::RandomState>);

impl CouponBoards {
    /// What a coupon is, and how many are left.
    #[must_use]
    pub fn get(&self, id: CouponId) -> Option<View> {
        self.0.get(&id).map(|view| view.clone())
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(CouponId, View)> {
        let shown = self.0.iter();
        shown.map(|shown| (*shown.key(), shown.clone())).collect()
    }

    /// A coupon is now so.
    pub fn show(&self, id: CouponId, view: View) {
        self.0.insert(id, view);
    }

    /// The coupons of `shards` are another node's affair.
    pub fn cool(&self, shards: &ShardSet) {
        self.0.retain(|id, _| !shards.contains(shard_of(id.0)));
    }
}

impl Hosted for Coupon {
    fn tier(_node: &Node, command: &Command) -> Tier {
        command.tier()
    }

    fn needs(_node: &Node, command: &Command) -> Needs {
        match command {
            Command::Create(_)
            | Command::Change(_)
            | Command::Claim { .. }
            | Command::Prepare { .. } => Needs::Store,
            Command::Post { .. }
            | Command::Void { .. }
            | Command::Return { .. }
            | Command::View => Needs::Nothing,
        }
    }

    fn handle(node: &Node) -> &Handle<Self> {
        &node.coupons
    }

    fn host_key(id: Uuid) -> Uuid {
        id
    }

    fn load(node: &Arc<Node>, id: Uuid, host: ActorRef<Message<Self>>) -> bool {
        // One coupon an actor, so that no more loads run than actors.
        tokio::spawn(read_coupon(Arc::clone(node), CouponId(id), host));
        true
    }

    fn woken(shell: &mut Shell<Self>, node: &Arc<Node>, now: Timestamp, rows: &[Row]) {
        shell.recover(now, rows);
        let id = CouponId(shell.entity().id);
        if let Some(view) = shell.machine.shown() {
            node.coupon_boards.show(id, view.clone());
        }
        // Claims set aside for orders whose saga died with its process.
        let in_doubt: Vec<Prepare> = shell.machine.in_doubt().copied().collect();
        if !in_doubt.is_empty() {
            tokio::spawn(participant::settle_claims(Arc::clone(node), id, in_doubt));
        }
    }

    fn take_up(shell: &Shell<Self>, node: &Arc<Node>, now: Timestamp) {
        let in_doubt = shell.machine.in_doubt().copied();
        let left: Vec<Prepare> = in_doubt
            .filter(|prepare| purchase::is_gone(prepare.at, now))
            .collect();
        if !left.is_empty() {
            let id = CouponId(shell.entity().id);
            purchase::go_on(participant::settle_claims(Arc::clone(node), id, left));
        }
    }

    fn applied(&mut self, node: &Node, _events: &[(Seq, Event)]) {
        if let Some((id, view)) = self.take_shown() {
            node.coupon_boards.show(id, view);
        }
        node.coupon_uses.add(self.take_tally());
    }

    fn replan(&mut self, _node: &Node) {}

    fn is_idle(&self) -> bool {
        Coupon::is_idle(self)
    }

    fn idle_after(node: &Node) -> Millis {
        node.options.timetable_idle
    }

    fn observe(&self, now: Timestamp) -> serde_json::Value {
        let Some(view) = self.view() else {
            return serde_json::json!({ "state": "missing" });
        };
        let terms = &view.terms;
        let shown = self.shown();
        serde_json::json!({
            "state": view.standing(now).as_str(),
            "stock": terms.stock,
            "claimed": view.claimed,
            "claimed_durably": shown.map_or(0, |shown| shown.claimed),
            "remaining": shown.map_or(0, View::remaining),
            "orders_under_way": self.in_doubt().count(),
            "used": self.used(),
            "sold_out_after_seconds": shown.and_then(View::sold_out_after).map(Millis::seconds),
            "starts_at": terms.starts_at,
            "ends_at": terms.ends_at,
        })
    }
}
