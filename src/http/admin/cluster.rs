//! The nodes of the cluster, as this one sees them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::ids::{Epoch, SHARDS};
use crate::http::auth::Admin;
use crate::http::error::Answer;
use crate::http::extract::Json;
use crate::persistence::lease::{Assigned, Member, View};

/// The nodes of the cluster, and how far this one is behind with writing.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterAnswer {
    /// The node that answers.
    node_id: String,
    nodes: Vec<NodeAnswer>,
    shards: ShardsAnswer,
    /// Changes that wait to be written to the journal, in bytes.
    journal_lag_bytes: usize,
    /// Events that wait to be published.
    outbox_events: u64,
}

/// A node, in its latest life.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeAnswer {
    node_id: String,
    /// How often it has started.
    incarnation: u32,
    /// Where the other nodes reach it; none needs to reach a lone one.
    address: Option<String>,
    /// `up`, `draining`, or `gone`: its lease has run out.
    #[schema(example = "up")]
    state: &'static str,
    /// What was left of its lease; a lone node has none.
    lease_left_ms: Option<i64>,
    /// How many shards it owns.
    shards: usize,
}

/// The shards.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShardsAnswer {
    total: u16,
    /// Those that no node owns that lives.
    unowned: usize,
    /// How often shards have changed hands: the lowest and the highest.
    epoch_min: u32,
    epoch_max: u32,
    /// By the number of the shard: which of `nodes` owns it, counted from 0;
    /// null where none does that lives.
    #[schema(value_type = Vec<Option<usize>>)]
    owners: Vec<Option<usize>>,
    /// By the number of the shard: how often it has changed hands.
    epochs: Vec<u32>,
}

/// The nodes, their shards, and what waits to be written
#[utoipa::path(get, path = "/api/v1/admin/cluster", tag = "administration",
    security(("bearer" = [])),
    responses((status = 200, body = ClusterAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`")))]
pub(super) async fn cluster(State(app): State<Arc<App>>, _: Admin) -> Answer<Json<ClusterAnswer>> {
    let seen = app.node.keeper.get().and_then(|keeper| keeper.seen());
    let (nodes, shards) = match &seen {
        Some(seen) => of_cluster(&seen.view),
        None => of_lone_node(&app),
    };
    Ok(Json(ClusterAnswer {
        node_id: app.node.name.to_string(),
        nodes,
        shards,
        journal_lag_bytes: app.node.lanes.dirty_bytes(),
        outbox_events: app.store.backlog().await?.events,
    }))
}

fn of_cluster(view: &View) -> (Vec<NodeAnswer>, ShardsAnswer) {
    let owned_by = |member: &Member| {
        let life = (&member.owner.node, member.owner.incarnation);
        let owned = view.shards.iter().filter(|shard| {
            let owner = shard.to.as_ref();
            owner.map(|(node, incarnation)| (node, *incarnation)) == Some(life)
        });
        owned.count()
    };
    let nodes: Vec<NodeAnswer> = view
        .members
        .iter()
        .map(|member| NodeAnswer {
            node_id: member.owner.node.to_string(),
            incarnation: member.owner.incarnation.0,
            address: Some(member.owner.address.as_ref().to_owned()),
            state: if member.lives() {
                member.state.as_str()
            } else {
                "gone"
            },
            lease_left_ms: Some(member.lease_left.0),
            shards: owned_by(member),
        })
        .collect();
    let living = nodes.iter().filter(|node| node.state != "gone");
    let owned: usize = living.map(|node| node.shards).sum();
    let lives_of = view.members.iter().zip(&nodes);
    let lives: HashMap<(&str, u32), usize> = lives_of
        .enumerate()
        .filter(|(_, (_, node))| node.state != "gone")
        .map(|(at, (member, _))| ((member.owner.node.as_str(), member.owner.incarnation.0), at))
        .collect();
    let owner = |shard: &Assigned| {
        let (node, incarnation) = shard.to.as_ref()?;
        lives.get(&(node.as_str(), incarnation.0)).copied()
    };
    let owners = view.shards.iter().map(owner).collect();
    let epochs = view.shards.iter().map(|shard| shard.epoch);
    let shards = shards_answer(epochs, usize::from(SHARDS).saturating_sub(owned), owners);
    (nodes, shards)
}

fn of_lone_node(app: &App) -> (Vec<NodeAnswer>, ShardsAnswer) {
    let owned = app.node.ownership.owned();
    let node = NodeAnswer {
        node_id: app.node.name.to_string(),
        incarnation: app.node.incarnation.0,
        address: None,
        state: "up",
        lease_left_ms: None,
        shards: owned.len(),
    };
    let epochs = owned.iter().map(|(_, epoch)| *epoch);
    let owners = vec![Some(0); owned.len()];
    (vec![node], shards_answer(epochs, 0, owners))
}

fn shards_answer(
    epochs: impl Iterator<Item = Epoch> + Clone,
    unowned: usize,
    owners: Vec<Option<usize>>,
) -> ShardsAnswer {
    ShardsAnswer {
        total: SHARDS,
        unowned,
        epoch_min: epochs.clone().min().unwrap_or_default().0,
        epoch_max: epochs.clone().max().unwrap_or_default().0,
        owners,
        epochs: epochs.map(|epoch| epoch.0).collect(),
    }
}
