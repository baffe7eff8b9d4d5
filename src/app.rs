//! The composition root: builds everything once, in the order in which it
//! depends on each other, and takes it down the other way round.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorRef};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::actors::Handle;
use crate::actors::board::{Boards, SeatCounts};
use crate::actors::directory::{Directory, Supervisor};
use crate::actors::lane::{self, Lane};
use crate::actors::loader::{AccountLoader, read_accounts};
use crate::actors::node::{HoldIndex, Node, Options, Ownership};
use crate::catalogue::{Catalogue, Performance, Timetable};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::domain::decision::Tier;
use crate::domain::ids::{HoldId, TimetableId, UserId, shard_in};
use crate::domain::plan::Plan;
use crate::domain::roles::{Role, Roles};
use crate::domain::time::Millis;
use crate::domain::timetable;
use crate::http::accounts::{Accounts, AccountsOptions};
use crate::http::error::{Answer, Code, Problem};
use crate::http::live::LiveMaps;
use crate::http::rates::Rates;
use crate::http::sockets::Places;
use crate::http::tickets::TicketSigner;
use crate::http::tokens::Identity;
use crate::keys::{Keys, KeysError, Purpose};
use crate::persistence::bus::Bus;
use crate::persistence::lock::{DataLock, LockError};
use crate::persistence::{Store, StoreError};
use crate::telemetry::{self, Outcomes, SeatMetrics};

/// How often the node notes that it lives, and looks at the system's clock.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often what nobody uses is looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// How long the start waits for one timetable with live holds.
const LOAD_MAX: Duration = Duration::from_secs(10);

/// How long what waits to be written may take when the server ends.
const FLUSH_MAX: Duration = Duration::from_secs(15);

/// How many old idempotency keys are forgotten in one go.
const KEYS_SWEPT_MAX: u32 = 10_000;

/// How many live sockets there may be: a process here may open 20,000 files.
const SOCKETS_MAX: usize = 15_000;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4_096;

/// Why the server did not start. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// How many sockets there may be.
    pub sockets: Places,
    /// Told true when the server is to end.
    pub shutdown: watch::Sender<bool>,
    /// How orders ended.
    pub orders: Outcomes,
    /// How holds ended.
    pub holds: Outcomes,
    supervisor: ActorRef<()>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    _bus: Bus,
    _lock: DataLock,
}

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
        let store = Store::open(
            &config.store.url,
            config.store.readers,
            config.store.migrate,
        )
        .await?;
        let view_key = keys.sign(Purpose::Viewer, b"views");
        let catalogue = Arc::new(Catalogue::load(&store, view_key, clock.now()).await?);
        let tickets = ticket_signer(&store, &clock).await?;
        let outbox = Arc::new(Notify::new());
        let (node, supervisor, loading) =
            start_node(&config, &clock, &store, &catalogue, &outbox).await?;
        let bus = Bus::start(
            store.clone(),
            clock.clone(),
            tickets.kid().to_owned(),
            outbox,
        );
        let options = AccountsOptions::from(&config.auth);
        let accounts = Accounts::open(store.clone(), keys.clone(), clock.clone(), &options).await?;
        let app = Arc::new(Self {
            rates: Rates::new(&config.rates),
            config,
            clock,
            keys,
            store,
            catalogue,
            node,
            accounts,
            tickets,
            live: LiveMaps::default(),
            sockets: Places::new(SOCKETS_MAX),
            shutdown: watch::Sender::new(false),
            orders: Outcomes::of_orders(),
            holds: Outcomes::of_holds(),
            supervisor,
            tasks: parking_lot::Mutex::new(vec![loading]),
            _bus: bus,
            _lock: lock,
        });
        app.resume().await?;
        app.start_upkeep();
        Ok(app)
    }

    /// Has everything loaded that has something to do by itself: holds that
    /// end, orders that were under way.
    async fn resume(&self) -> Result<(), StartError> {
        for (timetable, sold, blocked) in self.store.seat_counts().await? {
            let Some(plan) = self.catalogue.plan(timetable) else {
                continue;
            };
            self.node.boards.open(timetable, || SeatCounts {
                available: plan.layout.capacity().saturating_sub(sold + blocked),
                held: 0,
                sold,
                blocked,
            });
        }
        for performance in self.catalogue.performances() {
            for timetable in &performance.timetables {
                drop(self.node.board(&timetable.plan));
            }
        }
        // One after the other, before anything is served: who asks for their holds
        // must not be told that there are none.
        for timetable in self.store.timetables_with_holds().await? {
            let Some(plan) = self.catalogue.plan(timetable) else {
                continue;
            };
            let mut versions = self.node.board(&plan).versions();
            self.node.timetables.wake(timetable.0).await;
            let loaded = versions.wait_for(|version| *version > 0);
            if tokio::time::timeout(LOAD_MAX, loaded).await.is_err() {
                tracing::warn!(timetable.id = %timetable, "a timetable with holds takes long to load");
            }
        }
        for user in self.store.accounts_in_doubt().await? {
            self.node.accounts.wake(user.0).await;
        }
        Ok(())
    }

    fn start_upkeep(self: &Arc<Self>) {
        let beat = tokio::spawn(heartbeat(Arc::downgrade(self)));
        let sweep = tokio::spawn(sweep(Arc::downgrade(self)));
        self.tasks.lock().extend([beat, sweep]);
    }

    /// Flushes what waits to be written, then stops the actors, leaves first.
    /// Call it after the HTTP server has drained.
    pub async fn shutdown(&self) {
        self.shutdown.send_replace(true);
        if tokio::time::timeout(FLUSH_MAX, self.node.lane.drained())
            .await
            .is_err()
        {
            tracing::error!(
                "not everything could be written before the end; it was never acknowledged as durable"
            );
        }
        self.node.timetables.directory().stop().await;
        self.node.accounts.directory().stop().await;
        // What was still in the mailboxes.
        if tokio::time::timeout(FLUSH_MAX, self.node.lane.drained())
            .await
            .is_err()
        {
            tracing::error!("the last decisions could not be written");
        }
        self.supervisor.stop(None);
        if let Err(error) = self.catalogue.flush_views().await {
            tracing::warn!(%error, "views could not be written");
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.store.close().await;
    }

    /// What can't be done now; empty if everything can.
    #[must_use]
    pub fn readiness(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if *self.shutdown.borrow() {
            reasons.push("draining".to_owned());
        }
        if !self.node.lane.is_healthy() {
            reasons.push("the store is unavailable".to_owned());
        }
        if !self.node.lane.has_room() {
            reasons.push("too much waits to be written".to_owned());
        }
        reasons
    }

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

    /// Tells a timetable, if it is loaded, that its plan has changed.
    pub fn plan_changed(&self, id: TimetableId) {
        self.node.timetables.replan(id.0);
        if let Some(plan) = self.catalogue.plan(id) {
            self.node.board(&plan).touch();
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

async fn ticket_signer(store: &Store, clock: &Clock) -> Result<TicketSigner, StartError> {
    if let Some((kid, key)) = store.signing_key("tickets").await? {
        return Ok(TicketSigner::new(kid, &key)?);
    }
    let (kid, key) = TicketSigner::generate()?;
    store
        .add_signing_key("tickets", kid.clone(), key.clone(), clock.now())
        .await?;
    Ok(TicketSigner::new(kid, &key)?)
}

async fn start_node(
    config: &Config,
    clock: &Clock,
    store: &Store,
    catalogue: &Arc<Catalogue>,
    outbox: &Arc<Notify>,
) -> Result<(Arc<Node>, ActorRef<()>, JoinHandle<()>), StartError> {
    let name = node_name(&config.node.data_dir)?;
    let claim = store
        .claim_all_shards(name.clone(), config.http.listen.clone(), clock.now())
        .await?;
    tracing::info!(
        shard.epoch = claim.epoch.0,
        node.incarnation = claim.incarnation,
        "took all shards"
    );
    let lane_options = lane::Options {
        batch_rows_max: config.store.batch_rows_max as usize,
        dirty_bytes_max: usize::try_from(config.store.dirty_bytes_max).unwrap_or(usize::MAX),
    };
    let lane = Lane::start(store.clone(), lane_options, Arc::clone(outbox));
    let (supervisor, _) = Actor::spawn(None, Supervisor, ())
        .await
        .map_err(|error| StartError::Other(format!("the supervisor did not start: {error}")))?;
    let permits = config.actors.permits_max as usize;
    let patience = config.actors.ask_timeout();
    let timetables = Arc::new(Directory::new(supervisor.clone(), permits));
    let accounts = Arc::new(Directory::new(supervisor.clone(), permits));
    let (account_loader, line) = AccountLoader::new();
    let node = Arc::new(Node {
        name,
        clock: clock.clone(),
        store: store.clone(),
        catalogue: Arc::clone(catalogue),
        lane,
        ownership: Ownership::of_all(claim.epoch),
        alive_before: claim.alive_at,
        options: Options {
            permits_max: permits,
            patience,
            holds_tier: match config.durability.holds {
                config::Tier::Memory => Tier::Memory,
                config::Tier::Checkpoint => Tier::Checkpoint,
                config::Tier::Database => Tier::Database,
            },
            account_idle: Millis::from_secs(config.actors.account_idle_seconds),
            timetable_idle: Millis::from_secs(config.actors.timetable_idle_seconds),
        },
        boards: Boards::default(),
        holds: HoldIndex::default(),
        timetables: Handle::new(Arc::clone(&timetables)),
        accounts: Handle::new(Arc::clone(&accounts)),
        account_loader,
    });
    timetables.belong_to(Arc::clone(&node));
    accounts.belong_to(Arc::clone(&node));
    let loading = tokio::spawn(read_accounts(Arc::clone(&node), line));
    Ok((node, supervisor, loading))
}

/// The name of this node: written once to the data folder.
fn node_name(folder: &Path) -> Result<String, StartError> {
    let file = folder.join("node-id");
    let unusable =
        |error: std::io::Error| StartError::Other(format!("{}: {error}", file.display()));
    match std::fs::read_to_string(&file) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        _ => {
            let name = uuid::Uuid::new_v4().simple().to_string();
            std::fs::write(&file, &name).map_err(unusable)?;
            Ok(name)
        }
    }
}

/// Once a second: the clock, the sign of life, the gauges.
async fn heartbeat(app: std::sync::Weak<App>) {
    let seats = SeatMetrics::new();
    let flush = telemetry::FlushMetrics::new();
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let Some(app) = app.upgrade() else { return };
        app.clock.anchor();
        let counts = app.node.boards.totals();
        seats.available.set(counts.available);
        seats.held.set(counts.held);
        seats.sold.set(counts.sold);
        seats.blocked.set(counts.blocked);
        #[allow(clippy::cast_precision_loss, reason = "a metric")]
        flush.dirty_bytes.set(app.node.lane.dirty_bytes() as f64);
        app.node.observe();
        match app.store.outbox_lag().await {
            #[allow(clippy::cast_precision_loss, reason = "a metric")]
            Ok(events) => metrics::gauge!(telemetry::OUTBOX_EVENTS).set(events as f64),
            Err(error) => tracing::debug!(%error, "the outbox could not be counted"),
        }
        // Whether the store refuses or hangs: nobody waits for ever.
        app.node.give_up();
        if let Err(error) = app
            .store
            .note_alive(app.node.name.clone(), app.clock.now())
            .await
        {
            tracing::debug!(%error, "the sign of life could not be written");
        }
        if let Err(error) = app.catalogue.flush_views().await {
            tracing::debug!(%error, "views could not be written");
        }
    }
}

/// Forgets what nobody uses.
async fn sweep(app: std::sync::Weak<App>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(app) = app.upgrade() else { return };
        app.node.sweep();
        app.rates.holds.sweep();
        let before = app
            .clock
            .now()
            .plus(Millis(-crate::domain::account::KEY_LIFE.0));
        if let Err(error) = app.store.forget_keys(before, KEYS_SWEPT_MAX).await {
            tracing::debug!(%error, "old idempotency keys could not be removed");
        }
        if let Err(error) = app.accounts.sweep_sessions().await {
            tracing::debug!(%error, "old sessions could not be removed");
        }
    }
}

/// Makes an admin; the password counts only for a new account.
///
/// # Errors
/// If the store refuses, or e-mail or password are not acceptable.
pub async fn ensure_admin(app: &App, email: &str, password: &str) -> Result<(), StartError> {
    app.accounts
        .ensure_admin(email, password)
        .await
        .map(|_| ())
        .map_err(|error| StartError::Other(format!("the admin {email}: {error}")))
}

/// Applies the migrations.
///
/// # Errors
/// [`StartError`]
pub async fn migrate(config: Config) -> Result<(), StartError> {
    let _lock = DataLock::take(&config.node.data_dir)?;
    let store = Store::open(&config.store.url, 1, true).await?;
    store.close().await;
    Ok(())
}

/// Makes an admin without a server.
///
/// # Errors
/// [`StartError`]
pub async fn create_admin(config: Config, email: &str, password: &str) -> Result<(), StartError> {
    let app = App::open(config).await?;
    let made = ensure_admin(&app, email, password).await;
    app.shutdown().await;
    made
}

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`]
pub async fn serve(config: Config, demo: bool) -> Result<(), StartError> {
    let address = config.http.listen.clone();
    let listener = listen(&address)
        .await
        .map_err(|source| StartError::Listen {
            address: address.clone(),
            source,
        })?;
    let local = listener
        .local_addr()
        .map_err(|source| StartError::Listen { address, source })?;
    let admin = (config.admin.email.clone(), config.admin.password.clone());
    let app = App::open(config).await?;
    if let (Some(email), Some(password)) = admin {
        ensure_admin(&app, &email, password.expose()).await?;
    }
    if demo {
        crate::demo::seed(&app, local).await?;
    }
    announce(local);
    let served = crate::http::serve(listener, Arc::clone(&app), terminated()).await;
    app.shutdown().await;
    served.map_err(|error| StartError::Other(error.to_string()))
}

/// Listens on `address` with a long line: a thousand buyers connect in the same
/// instant, and whom the kernel turns away tries again only after a second.
async fn listen(address: &str) -> std::io::Result<tokio::net::TcpListener> {
    let mut refused = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host(address).await? {
        let socket = match address {
            std::net::SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            std::net::SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// The line that scripts wait for.
#[allow(
    clippy::print_stdout,
    reason = "what the program says to who started it"
)]
fn announce(local: std::net::SocketAddr) {
    println!("listening on http://{local}");
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("draining: answering what is under way, then ending");
}
