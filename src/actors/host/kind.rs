//! What a kind of entity has to say of itself to be run by a host.

use std::sync::Arc;

use ractor::ActorRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::super::node::Node;
use super::super::shell::Shell;
use super::super::{Handle, Message};
use crate::domain::decision::Tier;
use crate::domain::ids::Seq;
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::checkpoint::Row;
use crate::persistence::checkpoint::rows::Checkpointed;

/// What a command needs to be taken; refused at once if it isn't there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing: it reads, or goes on with something that was begun.
    Nothing,
    /// Room for more that waits to be written.
    Room,
    /// The store, now: its caller is answered after the commit.
    Store,
}

/// What goes from node to node.
pub trait Travels: Serialize + DeserializeOwned + Send {}

impl<T: Serialize + DeserializeOwned + Send> Travels for T {}

/// A kind of entity that a host can run.
pub trait Hosted:
    Checkpointed<Command: Travels, Event: Send, Reply: Travels, Refusal: Travels> + Send + 'static
{
    /// How durable the outputs of `command` must be before they leave.
    fn tier(node: &Node, command: &Self::Command) -> Tier;

    /// What must be there for `command` to be taken.
    fn needs(node: &Node, command: &Self::Command) -> Needs;

    /// How the actors of this kind are reached.
    fn handle(node: &Node) -> &Handle<Self>
    where
        Self: Sized;

    /// Who runs entity `id`: entities with the same key share an actor.
    fn host_key(id: Uuid) -> Uuid;

    /// Has entity `id` read, and sends it to `host` as [`Message::Loaded`].
    /// `false` if too many are being read already.
    fn load(node: &Arc<Node>, id: Uuid, host: ActorRef<Message<Self>>) -> bool
    where
        Self: Sized;

    /// Called once an entity is alive, before anything runs on it. `rows` are
    /// what its checkpoint knows more than the database.
    fn woken(shell: &mut Shell<Self>, node: &Arc<Node>, now: Timestamp, rows: &[Row])
    where
        Self: Sized;

    /// Called now and then: takes up what an entity was asked for by a saga that is
    /// gone, because its node is, while this one lived on. Nothing, where no saga asks.
    fn take_up(_shell: &Shell<Self>, _node: &Arc<Node>, _now: Timestamp)
    where
        Self: Sized,
    {
    }

    /// Called after each run with what was applied, before any reply to it can
    /// have reached its caller's next request: publishes what readers see.
    fn applied(&mut self, node: &Node, events: &[(Seq, Self::Event)]);

    /// The catalogue's part has changed.
    fn replan(&mut self, node: &Node);

    /// Whether it may be forgotten when nobody asks.
    fn is_idle(&self) -> bool;

    /// How long nobody must have asked before that.
    fn idle_after(node: &Node) -> Millis;

    /// What operators see of its state: an object of few members.
    fn observe(&self, now: Timestamp) -> serde_json::Value;

    /// What operators call the actor with this [`Hosted::host_key`].
    fn host_name(key: Uuid) -> String {
        key.to_string()
    }
}
