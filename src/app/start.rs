//! Starts the node: its name, what it owns, its lanes, its directories.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ractor::{Actor, ActorRef};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::StartError;
use crate::actors::Handle;
use crate::actors::board::Boards;
use crate::actors::checkpoint_lane::keep_usable;
use crate::actors::coupon::CouponBoards;
use crate::actors::directory::{Directory, Supervisor};
use crate::actors::keeper::Parts;
use crate::actors::lanes::{self, Lanes};
use crate::actors::loader::{AccountLoader, read_accounts};
use crate::actors::node::{HoldIndex, Node, OpenOrders, Options};
use crate::actors::ownership::Ownership;
use crate::actors::queue_board::QueueBoards;
use crate::actors::route::{Peers, Route};
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::domain::ids::{Epoch, Incarnation, NodeId, SHARDS, ShardId};
use crate::domain::time::Millis;
use crate::http::tickets::TicketSigner;
use crate::keys::Keys;
use crate::persistence::Store;
use crate::persistence::checkpoint::{Checkpoints, RedisCheckpoints};
use crate::persistence::lease::application_name;
use crate::persistence::postgres::lease;
use crate::persistence::store::shards::Claim;
use crate::telemetry::CouponUses;

/// How long the start waits for the fences.
const FENCES_MAX: Duration = Duration::from_secs(3);

pub(super) async fn ticket_signer(
    store: &Store,
    clock: &Clock,
) -> Result<TicketSigner, StartError> {
    if let Some((kid, key)) = store.signing_key("tickets").await? {
        return Ok(TicketSigner::new(kid, &key)?);
    }
    let (kid, key) = TicketSigner::generate()?;
    store
        .add_signing_key("tickets", kid.clone(), key.clone(), clock.now())
        .await?;
    // Another node may have been first.
    let (kid, key) = store.signing_key("tickets").await?.unwrap_or((kid, key));
    Ok(TicketSigner::new(kid, &key)?)
}

/// By what this node owns shards.
pub(super) enum Title {
    /// The lock of the data folder: all of them, for as long as it runs.
    Lock(Claim),
    /// A lease in the database: those that it is given, next to other nodes.
    Lease {
        /// What keeps it.
        parts: Box<Parts>,
        /// The way to the other nodes.
        peers: Peers,
        /// Where they reach this one.
        listener: TcpListener,
    },
}

impl Title {
    /// What `config` asks for.
    ///
    /// # Errors
    /// [`StartError`]
    pub(super) async fn take(
        config: &Config,
        clock: &Clock,
        store: &Store,
        keys: &Keys,
        name: &NodeId,
        checkpoints: Option<&Checkpoints>,
    ) -> Result<Self, StartError> {
        if !config.store.is_server() {
            let (node, address) = (name.as_str().to_owned(), config.http.listen.clone());
            let above = match checkpoints {
                Some(checkpoints) => highest_fence(checkpoints).await,
                None => Epoch(0),
            };
            let claim = store
                .claim_all_shards_above(node, address, clock.now(), above)
                .await?;
            tracing::info!(
                shard.epoch = claim.epoch.0,
                node.incarnation = claim.incarnation,
                "took all shards"
            );
            return Ok(Self::Lock(claim));
        }
        let options = PgConnectOptions::from_str(config.store.direct_url())
            .map_err(|error| StartError::Other(format!("store.url: {error}")))?;
        let (listener, address) = listen(&config.node).await?;
        let (me, heart, claims) = lease::register(&options, name, &address).await?;
        store.name_writers(&application_name(&me.node, me.incarnation));
        tracing::info!(
            node.id = %me.node,
            node.incarnation = me.incarnation.0,
            node.address = address,
            "joined the cluster"
        );
        let peers = Peers::new(keys.clone())
            .map_err(|error| StartError::Other(format!("the internal client: {error}")))?;
        Ok(Self::Lease {
            parts: Box::new(Parts { me, heart, claims }),
            peers,
            listener,
        })
    }

    fn ownership(&self) -> Ownership {
        match self {
            Self::Lock(claim) => Ownership::of_all(claim.epoch, claim.alive_at),
            Self::Lease { .. } => Ownership::none(),
        }
    }

    fn incarnation(&self) -> Incarnation {
        match self {
            Self::Lock(claim) => Incarnation(claim.incarnation),
            Self::Lease { parts, .. } => parts.me.incarnation,
        }
    }

    fn peers(&self) -> Option<Peers> {
        match self {
            Self::Lock(_) => None,
            Self::Lease { peers, .. } => Some(peers.clone()),
        }
    }
}

/// The port for the other nodes, and the address that they are told.
async fn listen(config: &config::Node) -> Result<(TcpListener, String), StartError> {
    let wanted = match config.internal_listen.as_str() {
        "" => "127.0.0.1:0",
        given => given,
    };
    let unusable = |source| {
        StartError::Other(format!(
            "node.internal_listen: {wanted} can't be listened on: {source}"
        ))
    };
    let listener = TcpListener::bind(wanted).await.map_err(unusable)?;
    let local = listener.local_addr().map_err(unusable)?;
    let address = match config.address.as_str() {
        "" => local.to_string(),
        given => given.to_owned(),
    };
    Ok((listener, address))
}

/// What this node is called: by its configuration, else by its data folder.
///
/// # Errors
/// If the folder can't be read or written.
pub(super) fn name(config: &config::Node) -> Result<NodeId, StartError> {
    match config.id.as_str() {
        "" => stored_name(&config.data_dir),
        given => Ok(NodeId::new(given)),
    }
}

pub(super) async fn node(
    config: &Config,
    clock: &Clock,
    store: &Store,
    catalogue: &Arc<Catalogue>,
    outbox: &Arc<Notify>,
    checkpoints: Option<Checkpoints>,
    (name, title): (NodeId, &Title),
) -> Result<(Arc<Node>, ActorRef<()>, JoinHandle<()>), StartError> {
    let lane_options = lanes::Options {
        lanes: config.store.lanes(),
        batch_rows_max: config.store.batch_rows_max as usize,
        dirty_bytes_max: usize::try_from(config.store.dirty_bytes_max).unwrap_or(usize::MAX),
    };
    let lanes = Lanes::start(store, checkpoints, lane_options, outbox);
    let (supervisor, _) = Actor::spawn(None, Supervisor, ())
        .await
        .map_err(|error| StartError::Other(format!("the supervisor did not start: {error}")))?;
    let permits = config.actors.permits_max as usize;
    let patience = config.actors.ask_timeout();
    let timetables = Arc::new(Directory::new(supervisor.clone(), permits));
    let accounts = Arc::new(Directory::new(supervisor.clone(), permits));
    // All of a crowd come to its queue in one instant.
    let at_a_queue = config.queue.permits_max as usize;
    let queues = Arc::new(Directory::new(supervisor.clone(), at_a_queue));
    let coupons = Arc::new(Directory::new(supervisor.clone(), permits));
    let (account_loader, line) = AccountLoader::new();
    let ownership = Arc::new(title.ownership());
    let route = Route::new(Arc::clone(&ownership), title.peers(), patience);
    let node = Arc::new(Node {
        name,
        incarnation: title.incarnation(),
        clock: clock.clone(),
        store: store.clone(),
        catalogue: Arc::clone(catalogue),
        lanes,
        ownership,
        route: route.clone(),
        keeper: OnceLock::new(),
        options: Options {
            patience,
            holds_tier: config.holds_tier(),
            joins_tier: config.joins_tier(),
            queue_places_max: config.queue.places_max,
            account_idle: Millis::from_secs(config.actors.account_idle_seconds),
            timetable_idle: Millis::from_secs(config.actors.timetable_idle_seconds),
        },
        boards: Boards::default(),
        holds: HoldIndex::default(),
        open_orders: OpenOrders::default(),
        cancels: Arc::new(tokio::sync::Semaphore::new(
            crate::actors::refund::CANCELS_MAX,
        )),
        timetables: Handle::new(Arc::clone(&timetables), route.clone()),
        accounts: Handle::new(Arc::clone(&accounts), route.clone()),
        queues: Handle::new(Arc::clone(&queues), route.clone()),
        coupons: Handle::new(Arc::clone(&coupons), route),
        coupon_boards: CouponBoards::default(),
        coupon_uses: CouponUses::new(),
        queue_boards: QueueBoards::default(),
        account_loader,
    });
    timetables.belong_to(Arc::clone(&node));
    accounts.belong_to(Arc::clone(&node));
    queues.belong_to(Arc::clone(&node));
    coupons.belong_to(Arc::clone(&node));
    let loading = tokio::spawn(read_accounts(Arc::clone(&node), line));
    if let Some((_, health)) = node.lanes.checkpoints() {
        tokio::spawn(keep_usable(Arc::downgrade(&node), Arc::clone(health)));
        // Fences go up before anything is loaded. Without them recovery is from
        // the store alone, so a server that is only slow is waited for.
        let usable = health.until_usable();
        if tokio::time::timeout(FENCES_MAX, usable).await.is_err() {
            tracing::warn!("starting without checkpoints");
        }
    }
    Ok((node, supervisor, loading))
}

/// Where checkpoints are kept, if anywhere.
pub(super) fn checkpoints(config: &config::Redis) -> Result<Option<Checkpoints>, StartError> {
    let urls = config.urls();
    if urls.is_empty() {
        return Ok(None);
    }
    let redis = RedisCheckpoints::new(&urls, &config.prefix)
        .map_err(|error| StartError::Other(format!("redis.url: {error}")))?;
    Ok(Some(Checkpoints::Redis(Box::new(redis))))
}

/// The highest fence that there is: the epoch that is claimed must be above it,
/// even if the store is an older one (or another) than the checkpoints know.
async fn highest_fence(checkpoints: &Checkpoints) -> Epoch {
    let shards: Vec<ShardId> = (0..SHARDS).map(ShardId).collect();
    let fences = tokio::time::timeout(FENCES_MAX, checkpoints.fences(&shards)).await;
    match fences {
        Ok(Ok(fences)) => fences.into_iter().flatten().max().unwrap_or_default(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the fences can't be read");
            Epoch(0)
        }
        Err(_elapsed) => {
            tracing::warn!("reading the fences takes too long");
            Epoch(0)
        }
    }
}

/// The name that was written once to the data folder.
fn stored_name(folder: &Path) -> Result<NodeId, StartError> {
    let file = folder.join("node-id");
    let unusable =
        |error: std::io::Error| StartError::Other(format!("{}: {error}", file.display()));
    match std::fs::read_to_string(&file) {
        Ok(name) if !name.trim().is_empty() => Ok(NodeId::new(name.trim())),
        _ => {
            let name = uuid::Uuid::new_v4().simple().to_string();
            std::fs::write(&file, &name).map_err(unusable)?;
            Ok(NodeId::new(&name))
        }
    }
}
