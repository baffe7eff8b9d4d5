//! Which entity runs in which actor. Starts actors when they are first needed,
//! supervises them, and forgets those that failed.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};
use tokio::sync::{Mutex, OnceCell, Semaphore};
use uuid::Uuid;

use super::Message;
use super::host::{Host, Hosted};
use super::node::Node;
use super::stats::ActorStats;
use crate::domain::ids::{ShardId, ShardSet, shard_of};

/// How long to wait before an actor that did not start is tried again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How long an actor may take to stop.
const STOP_MAX: Duration = Duration::from_secs(5);

/// An actor, and the door to it.
#[derive(Debug)]
pub struct HostRef<M: Hosted> {
    actor: ActorRef<Message<M>>,
    /// Of all its entities.
    shard: ShardId,
    /// How many clients may ask at once.
    pub permits: Arc<Semaphore>,
    stats: Arc<ActorStats>,
}

impl<M: Hosted> Clone for HostRef<M> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            shard: self.shard,
            permits: Arc::clone(&self.permits),
            stats: Arc::clone(&self.stats),
        }
    }
}

impl<M: Hosted> HostRef<M> {
    /// Sends a message.
    ///
    /// # Errors
    /// The message, if the actor takes none any more, because it was retired or
    /// has failed: whoever has to be heard looks up its successor.
    pub fn tell(&self, message: Message<M>) -> Result<(), TooLate<M>> {
        let is_request = matches!(message, Message::Ask { .. });
        if is_request {
            self.stats.sent();
        }
        match self.actor.cast(message) {
            Ok(()) => Ok(()),
            Err(refused) => {
                if is_request {
                    self.stats.taken();
                }
                match refused {
                    MessagingErr::SendErr(message) => Err(TooLate(Some(Box::new(message)))),
                    MessagingErr::ChannelClosed | MessagingErr::InvalidActorType => {
                        Err(TooLate(None))
                    }
                }
            }
        }
    }

    /// Takes all places at the door, so that nobody gets in any more; not if
    /// somebody is in.
    fn close(&self, permits_max: usize) -> bool {
        let all = u32::try_from(permits_max).unwrap_or(u32::MAX);
        let Ok(places) = self.permits.try_acquire_many(all) else {
            return false;
        };
        places.forget();
        self.permits.close();
        true
    }

    /// How many places at its door are taken.
    #[must_use]
    pub fn permits_used(&self, permits_max: usize) -> usize {
        permits_max.saturating_sub(self.permits.available_permits())
    }

    /// How many requests are in its mailbox.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.stats.depth()
    }

    /// What is counted of it.
    #[must_use]
    pub fn stats(&self) -> &ActorStats {
        &self.stats
    }

    /// Whether it takes messages.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        use ractor::ActorStatus as S;
        matches!(
            self.actor.get_status(),
            S::Unstarted | S::Starting | S::Running | S::Upgrading
        )
    }
}

/// What an actor that has ended did not take.
pub struct TooLate<M: Hosted>(pub Option<Box<Message<M>>>);

/// The running actors of one kind.
#[derive(Debug)]
pub struct Directory<M: Hosted> {
    node: OnceCell<Arc<Node>>,
    hosts: DashMap<Uuid, HostRef<M>, foldhash::fast::RandomState>,
    starting: Mutex<()>,
    supervisor: ActorRef<()>,
    permits_max: usize,
}

impl<M: Hosted> Directory<M> {
    /// An empty directory whose actors `supervisor` watches.
    #[must_use]
    pub fn new(supervisor: ActorRef<()>, permits_max: usize) -> Self {
        Self {
            node: OnceCell::new(),
            hosts: DashMap::default(),
            starting: Mutex::new(()),
            supervisor,
            permits_max,
        }
    }

    /// How many places there are at the door of each actor.
    #[must_use]
    pub fn permits_max(&self) -> usize {
        self.permits_max
    }

    /// Told once, before anything is asked: the node that the actors are of.
    pub fn belong_to(&self, node: Arc<Node>) {
        // A second call would be a defect of the composition root, and harmless.
        let _ = self.node.set(node);
    }

    /// The actor of entity `id`, started if it isn't running.
    pub async fn host(&self, id: Uuid) -> HostRef<M> {
        match self.running(id) {
            Some(host) => host,
            // Boxed: nearly always it runs.
            None => Box::pin(self.started(id)).await,
        }
    }

    async fn started(&self, id: Uuid) -> HostRef<M> {
        loop {
            if let Some(host) = self.running(id) {
                return host;
            }
            self.start(M::host_key(id), shard_of(id)).await;
            // Only a server that is ending starts none: nothing to hurry for.
            if self.running(id).is_none() {
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        }
    }

    /// The actor of entity `id`, if it is running.
    #[must_use]
    pub fn running(&self, id: Uuid) -> Option<HostRef<M>> {
        let host = self.hosts.get(&M::host_key(id))?;
        host.is_alive().then(|| host.clone())
    }

    /// The actor in this place, whose key is [`Hosted::host_key`].
    #[must_use]
    pub fn at(&self, key: Uuid) -> Option<HostRef<M>> {
        self.hosts.get(&key).map(|host| host.clone())
    }

    /// Tells all running actors.
    pub fn tell_all(&self, message: impl Fn() -> Message<M>) {
        for (_, host) in self.all() {
            // One that has just ended has nothing left to be told of.
            let _ = host.tell(message());
        }
    }

    /// All running actors.
    #[must_use]
    pub fn all(&self) -> Vec<(Uuid, HostRef<M>)> {
        self.hosts
            .iter()
            .map(|entry| (*entry.key(), entry.value().clone()))
            .collect()
    }

    /// Stops all actors, whose entities must be clean.
    pub async fn stop(&self) {
        for (key, host) in self.all() {
            self.hosts.remove(&key);
            let _ = host.actor.drain_and_wait(Some(STOP_MAX)).await;
        }
    }

    /// Takes `actor`, which has no entity left, out of the directory: who looks
    /// it up from now on starts another. `false` if somebody is asking it.
    pub fn retire(&self, key: Uuid, actor: &ActorRef<Message<M>>) -> bool {
        let is_it = |_: &Uuid, host: &HostRef<M>| {
            host.actor.get_id() == actor.get_id() && host.close(self.permits_max)
        };
        self.hosts.remove_if(&key, is_it).is_some()
    }

    /// Discards all entities of `shards`: whoever waits for one of them learns
    /// that the outcome is unknown. When this returns, nothing of them leaves
    /// any more.
    pub async fn empty(&self, shards: &ShardSet) {
        for host in self.take_out(shards) {
            // What is in its mailbox is dropped.
            host.actor.stop(None);
            // Its handler never waits, so that this is a matter of microseconds.
            if host.actor.wait(Some(STOP_MAX)).await.is_err() {
                tracing::error!("an actor did not stop");
            }
        }
    }

    /// Ends the actors of `shards`, whose entities are clean, once they have
    /// read what is in their mailboxes.
    pub async fn dismiss(&self, shards: &ShardSet) {
        for host in self.take_out(shards) {
            if host.actor.drain_and_wait(Some(STOP_MAX)).await.is_err() {
                tracing::error!("an actor did not stop");
            }
        }
    }

    fn take_out(&self, shards: &ShardSet) -> Vec<HostRef<M>> {
        let leaving = self.all().into_iter();
        let leaving = leaving.filter(|(_, host)| shards.contains(host.shard));
        let out = leaving.map(|(key, host)| {
            self.hosts.remove(&key);
            host
        });
        out.collect()
    }

    /// How many requests wait in the mailboxes of the actors of `shards`.
    #[must_use]
    pub fn waiting(&self, shards: &ShardSet) -> usize {
        let hosts = self.hosts.iter();
        hosts
            .filter(|host| shards.contains(host.shard))
            .map(|host| host.depth())
            .sum()
    }

    async fn start(&self, key: Uuid, shard: ShardId) {
        let _one_at_a_time = self.starting.lock().await;
        let before = self.hosts.get(&key).map(|host| host.clone());
        if before.as_ref().is_some_and(HostRef::is_alive) {
            return;
        }
        let Some(node) = self.node.get() else { return };
        // One that has failed is still there.
        let restarts = before.map_or(0, |failed| failed.stats.restarts().saturating_add(1));
        let stats = Arc::new(ActorStats::new(restarts));
        let started = Actor::spawn_linked(
            None,
            Host::<M>::new(Arc::clone(node), key),
            Arc::clone(&stats),
            self.supervisor.get_cell(),
        )
        .await;
        match started {
            Ok((actor, _)) => {
                let permits = Arc::new(Semaphore::new(self.permits_max));
                self.hosts.insert(
                    key,
                    HostRef {
                        actor,
                        shard,
                        permits,
                        stats,
                    },
                );
            }
            Err(error) => tracing::error!(%error, "an actor did not start"),
        }
    }
}

/// Watches all hosts. One that fails is not restarted here: the directory
/// starts another when one of its entities is next needed.
#[derive(Debug)]
pub struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<()>,
        (): (),
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(())
    }

    /// The default stops the supervisor, and with it every actor, when any
    /// child exits.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(actor, error) = event {
            tracing::error!(actor.id = %actor.get_id(), %error, "an actor failed");
            metrics::counter!(crate::telemetry::ACTOR_RESTARTS_TOTAL, "kind" => "host")
                .increment(1);
        }
        Ok(())
    }
}
