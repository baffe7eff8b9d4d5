//! How accounts live in their actors: those of a shard share one, because they
//! are many and small.

use std::sync::Arc;

use ractor::ActorRef;
use uuid::Uuid;

use super::host::{Hosted, Needs};
use super::node::Node;
use super::purchase;
use super::shell::Shell;
use super::{Handle, Message};
use crate::domain::account::{Account, Command, Event};
use crate::domain::decision::Tier;
use crate::domain::ids::{Seq, UserId, shard_of};
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::checkpoint::Row;

impl Hosted for Account {
    fn tier(_node: &Node, command: &Command) -> Tier {
        command.tier()
    }

    fn needs(_node: &Node, command: &Command) -> Needs {
        match command {
            Command::Charge { .. } | Command::Prepare { .. } | Command::Reserve(_) => Needs::Store,
            Command::FreeKey { .. }
            | Command::Answer { .. }
            | Command::Post { .. }
            | Command::Void { .. }
            | Command::Credit { .. }
            | Command::Balance => Needs::Nothing,
        }
    }

    fn handle(node: &Node) -> &Handle<Self> {
        &node.accounts
    }

    fn host_key(id: Uuid) -> Uuid {
        Uuid::from_u128(u128::from(shard_of(id).0))
    }

    fn load(node: &Arc<Node>, id: Uuid, host: ActorRef<Message<Self>>) -> bool {
        node.account_loader.want(UserId(id), host)
    }

    fn woken(shell: &mut Shell<Self>, node: &Arc<Node>, _now: Timestamp, _rows: &[Row]) {
        // Money set aside for orders whose saga died with its process.
        for prepare in shell.machine.in_doubt() {
            let user = UserId(shell.entity().id);
            tokio::spawn(purchase::settle(Arc::clone(node), user, *prepare));
        }
    }

    fn take_up(shell: &Shell<Self>, node: &Arc<Node>, now: Timestamp) {
        let user = UserId(shell.entity().id);
        let in_doubt = shell.machine.in_doubt().iter();
        for prepare in in_doubt.filter(|prepare| purchase::is_gone(prepare.at, now)) {
            purchase::go_on(purchase::settle(Arc::clone(node), user, *prepare));
        }
    }

    fn applied(&mut self, _node: &Node, _events: &[(Seq, Event)]) {}

    fn replan(&mut self, _node: &Node) {}

    fn is_idle(&self) -> bool {
        Account::is_idle(self)
    }

    fn idle_after(node: &Node) -> Millis {
        node.options.account_idle
    }

    fn observe(&self, _now: Timestamp) -> serde_json::Value {
        serde_json::json!({
            "balance": self.balance(),
            "spendable": self.spendable(),
            "unfinished_orders": self.in_doubt().len(),
        })
    }

    fn host_name(key: Uuid) -> String {
        format!("shard-{:04}", key.as_u128())
    }
}
