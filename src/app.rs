//! The composition root: builds everything once, in the order in which it
//! depends on each other, and takes it down the other way round.
//!
//! * `program`: what the commands of the program do; serving until told to end.
//! * `start`: the node: its name, what it owns, its lanes and directories.
//! * `resume`: what is loaded at once, because it has something to do by itself.
//! * `upkeep`: what is done again and again while it runs.
//! * `lookup`: what handlers ask for by id.
//! * `queues`: the waiting rooms, wherever they are.
//! * [`coupons`]: the coupons, wherever they are.
//! * `queue_follow`: keeps up with those of other nodes.

pub mod coupons;
mod follow;
mod lookup;
mod program;
mod queue_follow;
mod queues;
mod resume;
mod start;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use self::lookup::Sale;
pub use self::program::{create_admin, ensure_admin, migrate, serve};
pub use self::queues::{Draws, unexpected};
use crate::actors::busiest::Busiest;
use crate::actors::keeper::{Keeper, Parts};
use crate::actors::node::Node;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::decision::Tier;
use crate::domain::ids::{SHARDS, TimetableId, UserId};
use crate::domain::roles::Roles;
use crate::http::accounts::{Accounts, AccountsOptions};
use crate::http::error::Answer;
use crate::http::live::LiveMaps;
use crate::http::queue::door::Door;
use crate::http::queue::feed::QueueFeeds;
use crate::http::rates::Rates;
use crate::http::sockets::Places;
use crate::http::tickets::TicketSigner;
use crate::keys::{Keys, KeysError, Purpose};
use crate::persistence::bus::{self, Bus, BusError};
use crate::persistence::lock::{DataLock, LockError};
use crate::persistence::{Store, StoreError};
use crate::telemetry::Outcomes;

/// How long what waits to be written may take when the server ends.
const FLUSH_MAX: Duration = Duration::from_secs(15);

/// How far the clock may be off that of the database.
const UNCERTAINTY_MAX: Duration = Duration::from_millis(50);

/// Why the server did not start. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The secret.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The address.
    #[error("http.listen: {address} can't be listened on: {source}")]
    Listen {
        /// Which one.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Everything, while it runs.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// What time it is.
    pub clock: Clock,
    /// What signs tokens.
    pub keys: Keys,
    /// What outlives the process.
    pub store: Store,
    /// What is sold.
    pub catalogue: Arc<Catalogue>,
    /// The actors.
    pub node: Arc<Node>,
    /// People and their sessions.
    pub accounts: Accounts,
    /// Signs tickets.
    pub tickets: TicketSigner,
    /// Limits by user.
    pub rates: Rates,
    /// Live seat maps.
    pub live: LiveMaps,
    /// What newcomers of waiting rooms have to show.
    pub queue_door: Door,
    /// Which coupons there are.
    pub coupons: coupons::Coupons,
    /// The draws of waiting rooms.
    pub draws: Draws,
    /// Live positions in waiting rooms.
    pub queue_feeds: QueueFeeds,
    /// How many sockets there may be.
    pub sockets: Places,
    /// Told true when the server is to end.
    pub shutdown: watch::Sender<bool>,
    /// How orders ended.
    pub orders: Outcomes,
    /// How cancels ended.
    pub cancels: Outcomes,
    /// How claims of coupons ended.
    pub claims: Outcomes,
    /// How holds ended.
    pub holds: Outcomes,
    /// Carries events to their consumers.
    pub bus: Bus,
    /// Which actors have the most to do.
    pub busiest: Busiest,
    supervisor: ActorRef<()>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    _lock: DataLock,
}

impl App {
    /// Opens the store, takes over what it has, and starts the actors.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn open(config: Config) -> Result<Arc<Self>, StartError> {
        let clock = Clock::system();
        let lock = DataLock::take(&config.node.data_dir)?;
        let secrets: Vec<String> = config
            .auth
            .previous_secrets
            .iter()
            .map(|s| s.expose().to_owned())
            .collect();
        let keys = Keys::open(config.auth.secret.expose(), &secrets, &config.node.data_dir)?;
        let store = Store::open(&config.store).await?;
        let view_key = keys.sign(Purpose::Viewer, b"views");
        let catalogue = Arc::new(Catalogue::load(&store, view_key, clock.now()).await?);
        let tickets = start::ticket_signer(&store, &clock).await?;
        let outbox = Arc::new(Notify::new());
        let name = start::name(&config.node)?;
        let checkpoints = start::checkpoints(&config.redis)?;
        let kept = checkpoints.as_ref();
        let title = start::Title::take(&config, &clock, &store, &keys, &name, kept).await?;
        let named = (name, &title);
        let (node, supervisor, loading) = start::node(
            &config,
            &clock,
            &store,
            &catalogue,
            &outbox,
            checkpoints,
            named,
        )
        .await?;
        let bus = bus::Options {
            store: store.clone(),
            clock: clock.clone(),
            ticket_kid: tickets.kid().to_owned(),
            node: node.name.to_string(),
            owned: owned_shards(&node),
            wake: outbox,
            tell_queue: queues::teller(&node),
        };
        let bus = Bus::start(&config.kafka, bus)?;
        let options = AccountsOptions::from(&config.auth);
        let accounts = Accounts::open(store.clone(), keys.clone(), clock.clone(), &options).await?;
        let app = Arc::new(Self {
            rates: Rates::new(&config.rates),
            sockets: Places::new(&config.http),
            queue_door: Door::new(&config.queue),
            config,
            clock,
            keys,
            store,
            catalogue,
            node,
            accounts,
            tickets,
            live: LiveMaps::default(),
            draws: Draws::default(),
            queue_feeds: QueueFeeds::default(),
            coupons: coupons::Coupons::default(),
            shutdown: watch::Sender::new(false),
            orders: Outcomes::of_orders(),
            cancels: Outcomes::of_cancels(),
            claims: Outcomes::of_claims(),
            holds: Outcomes::of_holds(),
            supervisor,
            tasks: parking_lot::Mutex::new(vec![loading]),
            bus,
            busiest: Busiest::default(),
            _lock: lock,
        });
        if let start::Title::Lease {
            parts, listener, ..
        } = title
        {
            app.join(*parts, listener).await?;
        }
        app.resume().await?;
        app.start_upkeep();
        app.start_following();
        Ok(app)
    }

    /// Answers the other nodes, and takes the shards that can be had at once.
    async fn join(self: &Arc<Self>, parts: Parts, listener: TcpListener) -> Result<(), StartError> {
        let app = Arc::clone(self);
        let internal = tokio::spawn(async move {
            let forever = std::future::pending();
            if let Err(error) = crate::http::internal::serve(listener, app, forever).await {
                tracing::error!(%error, "the internal interface has failed");
            }
        });
        let (keeper, mut tasks) = Keeper::start(&self.node, parts).await?;
        // Set once, here.
        let _ = self.node.keeper.set(keeper);
        tasks.push(internal);
        self.tasks.lock().extend(tasks);
        Ok(())
    }

    /// Hands everything over to the other nodes, if there are any; this one
    /// forwards what still comes. Call it before the HTTP server drains.
    pub async fn leave(&self) {
        self.shutdown.send_replace(true);
        if let Some(keeper) = self.node.keeper.get() {
            keeper.leave(&self.node).await;
        }
    }

    /// Flushes what waits to be written, then stops the actors, leaves first.
    /// Call it after the HTTP server has drained.
    pub async fn shutdown(&self) {
        self.shutdown.send_replace(true);
        if tokio::time::timeout(FLUSH_MAX, self.node.lanes.drained())
            .await
            .is_err()
        {
            tracing::error!(
                "not everything could be written before the end; it was never acknowledged as durable"
            );
        }
        self.node.timetables.directory().stop().await;
        self.node.accounts.directory().stop().await;
        self.node.queues.directory().stop().await;
        self.node.coupons.directory().stop().await;
        // What was still in the mailboxes.
        if tokio::time::timeout(FLUSH_MAX, self.node.lanes.drained())
            .await
            .is_err()
        {
            tracing::error!("the last decisions could not be written");
        }
        self.supervisor.stop(None);
        if let Err(error) = self.catalogue.flush_views().await {
            tracing::warn!(%error, "views could not be written");
        }
        self.bus.stop().await;
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.store.close().await;
    }

    /// What is done in another way than it should be, though all of it is done.
    #[must_use]
    pub fn degradations(&self) -> Vec<String> {
        let checkpoints = self.node.lanes.checkpoints();
        let lost = checkpoints.filter(|(_, health)| health.usable().is_none());
        let lost = lost.map(|_| "no checkpoints: holds wait for the store".to_owned());
        lost.into_iter().collect()
    }

    /// What can't be done now; empty if everything can.
    #[must_use]
    pub fn readiness(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if *self.shutdown.borrow() {
            reasons.push("draining".to_owned());
        }
        if !self.node.lanes.are_healthy() {
            reasons.push("the store is unavailable".to_owned());
        }
        if !self.node.lanes.have_room() {
            reasons.push("too much waits to be written".to_owned());
        }
        if let Some(keeper) = self.node.keeper.get() {
            if !self.node.ownership.may_acknowledge(Tier::Memory) {
                reasons.push("the lease of this node has run out".to_owned());
            }
            if keeper.uncertainty() > UNCERTAINTY_MAX {
                reasons.push("the clock can't be compared with the database's".to_owned());
            }
        }
        reasons
    }

    /// Tells a timetable and the queue before it, if they are loaded, that their
    /// plan has changed.
    pub fn plan_changed(&self, id: TimetableId) {
        self.node.timetables.replan(id.0);
        if let Some(plan) = self.catalogue.plan(id) {
            self.node.board(&plan).touch();
            self.node.queues.replan(plan.performance_id.0);
        }
    }

    /// An access token for any user id, outside of any session.
    #[must_use]
    pub fn mint_access_token(&self, user: UserId, roles: Roles) -> String {
        self.accounts.mint(user, roles)
    }

    /// Counts how a hold ended.
    pub fn count_hold<T>(&self, outcome: &Answer<T>) {
        match outcome {
            Ok(_) => self.holds.ok(),
            Err(problem) => self.holds.refused(problem.code().as_str()),
        }
    }
}

/// Which shards' events this node publishes; `None` while all are its own.
fn owned_shards(node: &Arc<Node>) -> bus::Owned {
    let ownership = Arc::clone(&node.ownership);
    Arc::new(move || {
        let owned = ownership.owned();
        (owned.len() < usize::from(SHARDS))
            .then(|| owned.into_iter().map(|(shard, _)| shard).collect())
    })
}
