//! Starts the node: its name, what it owns, its lanes, its directories.

use std::path::Path;
use std::sync::Arc;

use ractor::{Actor, ActorRef};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::StartError;
use crate::actors::Handle;
use crate::actors::board::Boards;
use crate::actors::directory::{Directory, Supervisor};
use crate::actors::lanes::{self, Lanes};
use crate::actors::loader::{AccountLoader, read_accounts};
use crate::actors::node::{HoldIndex, Node, Options};
use crate::actors::ownership::Ownership;
use crate::actors::route::Route;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::domain::decision::Tier;
use crate::domain::ids::NodeId;
use crate::domain::time::Millis;
use crate::http::tickets::TicketSigner;
use crate::persistence::Store;

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
    Ok(TicketSigner::new(kid, &key)?)
}

pub(super) async fn node(
    config: &Config,
    clock: &Clock,
    store: &Store,
    catalogue: &Arc<Catalogue>,
    outbox: &Arc<Notify>,
) -> Result<(Arc<Node>, ActorRef<()>, JoinHandle<()>), StartError> {
    let name = node_name(&config.node.data_dir)?;
    let claim = store
        .claim_all_shards(
            name.as_str().to_owned(),
            config.http.listen.clone(),
            clock.now(),
        )
        .await?;
    tracing::info!(
        shard.epoch = claim.epoch.0,
        node.incarnation = claim.incarnation,
        "took all shards"
    );
    let lane_options = lanes::Options {
        lanes: config.store.lanes(),
        batch_rows_max: config.store.batch_rows_max as usize,
        dirty_bytes_max: usize::try_from(config.store.dirty_bytes_max).unwrap_or(usize::MAX),
    };
    let lanes = Lanes::start(store, lane_options, outbox);
    let (supervisor, _) = Actor::spawn(None, Supervisor, ())
        .await
        .map_err(|error| StartError::Other(format!("the supervisor did not start: {error}")))?;
    let permits = config.actors.permits_max as usize;
    let patience = config.actors.ask_timeout();
    let timetables = Arc::new(Directory::new(supervisor.clone(), permits));
    let accounts = Arc::new(Directory::new(supervisor.clone(), permits));
    let (account_loader, line) = AccountLoader::new();
    let ownership = Arc::new(Ownership::of_all(claim.epoch, claim.alive_at));
    let route = Route::new(Arc::clone(&ownership), None, patience);
    let node = Arc::new(Node {
        name,
        clock: clock.clone(),
        store: store.clone(),
        catalogue: Arc::clone(catalogue),
        lanes,
        ownership,
        route: route.clone(),
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
        timetables: Handle::new(Arc::clone(&timetables), route.clone()),
        accounts: Handle::new(Arc::clone(&accounts), route),
        account_loader,
    });
    timetables.belong_to(Arc::clone(&node));
    accounts.belong_to(Arc::clone(&node));
    let loading = tokio::spawn(read_accounts(Arc::clone(&node), line));
    Ok((node, supervisor, loading))
}

/// The name of this node: written once to the data folder.
fn node_name(folder: &Path) -> Result<NodeId, StartError> {
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
