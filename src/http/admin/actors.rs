//! What operators see of all actors, and of one.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::actors::observe::{ActorRow, Life, Observed, Place};
use crate::app::App;
use crate::domain::ids::EntityKind;
use crate::domain::time::Timestamp;
use crate::http::auth::Admin;
use crate::http::error::{Answer, Code, Problem};
use crate::http::extract::{Json, List, Named, Page, Path};

/// An actor.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActorAnswer {
    /// `timetable`, `account`, `queue` or `coupon`.
    #[schema(example = "timetable")]
    kind: &'static str,
    /// The id of what it runs; the accounts of a shard have one actor,
    /// `shard-0017`.
    name: String,
    /// What people call it.
    title: Option<String>,
    /// The node that it runs on.
    node: String,
    /// `loading`, `running`, `idle`, `quarantined` (it was discarded three
    /// times, and isn't read again until the process starts anew), or
    /// `stopping`.
    #[schema(example = "running")]
    state: &'static str,
    /// How many entities it has in memory.
    entities: u64,
    /// Requests that it has not taken yet.
    mailbox_depth: u64,
    /// Requests of clients that have no answer yet.
    permits_in_use: u64,
    /// Messages that it has handled, requests and others.
    messages: u64,
    /// How long it took for one of them, in microseconds.
    handling_mean_us: f64,
    /// The time that half of them were done within, in microseconds; at most a
    /// quarter too high.
    handling_p50_us: f64,
    /// The same of 99 %.
    handling_p99_us: f64,
    /// How often something in it was discarded, and read again: after a panic,
    /// or a write that was refused.
    restarts: u32,
    /// For how long it has been running.
    uptime_seconds: f64,
}

impl From<ActorRow> for ActorAnswer {
    fn from(row: ActorRow) -> Self {
        Self {
            kind: row.kind.as_str(),
            name: row.name,
            title: row.title,
            node: row.node,
            state: row.state.as_str(),
            entities: row.entities,
            mailbox_depth: row.mailbox_depth,
            permits_in_use: row.permits_in_use,
            messages: row.messages,
            handling_mean_us: thousandth(row.mean_ns),
            handling_p50_us: thousandth(row.p50_ns),
            handling_p99_us: thousandth(row.p99_ns),
            restarts: row.restarts,
            uptime_seconds: thousandth(row.uptime_ms),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people to read")]
fn thousandth(number: u64) -> f64 {
    number as f64 / 1000.0
}

/// A page of the list of actors.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActorsAnswer {
    items: Vec<ActorAnswer>,
    /// Send it as `cursor` to get the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// The nodes that did not answer in time: their actors are not listed.
    unanswered: Vec<String>,
}

/// List the actors
///
/// Those of all nodes, by kind and name. A node that doesn't answer within two
/// seconds is named in `unanswered`.
#[utoipa::path(get, path = "/api/v1/admin/actors", operation_id = "list_actors",
    tag = "administration", security(("bearer" = [])),
    params(("limit" = Option<u32>, Query, description = "How many at most: 1 to 100, by default 20"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = ActorsAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`")))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: Admin,
    page: Page,
) -> Answer<Json<ActorsAnswer>> {
    let after = page.after::<Place>()?;
    let found = app.node.actors(after, page.limit as usize + 1).await;
    let List { items, next_cursor } = List::page(found.rows, &page, ActorRow::place);
    Ok(Json(ActorsAnswer {
        items: items.into_iter().map(Into::into).collect(),
        next_cursor,
        unanswered: found.unanswered,
    }))
}

/// What is in memory of one timetable, queue, coupon or account.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ObservedAnswer {
    kind: &'static str,
    id: Uuid,
    /// Its actor; that of an account has others of its shard, too.
    actor: ActorAnswer,
    /// Its present life; null while it is being read, and in quarantine.
    #[schema(required = true)]
    life: Option<LifeAnswer>,
}

/// A life of an entity: from its being read to its being forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LifeAnswer {
    /// The epoch of its shard in which it was read.
    epoch: u32,
    /// Which of its lives in that epoch.
    activation: u32,
    /// Its last decision.
    seq: u64,
    /// The last decision that is in the database.
    stored_seq: u64,
    /// Replies that wait until what they promise is durable.
    parked_replies: u64,
    #[schema(value_type = String, format = "date-time")]
    used_at: Timestamp,
    /// When it has something to do by itself.
    #[schema(value_type = Option<String>, format = "date-time", required = true)]
    next_deadline: Option<Timestamp>,
    /// What it says of itself; the members depend on the kind.
    #[schema(value_type = Object)]
    observed: Value,
}

impl TryFrom<Life> for LifeAnswer {
    type Error = serde_json::Error;

    fn try_from(life: Life) -> Result<Self, Self::Error> {
        Ok(Self {
            epoch: life.epoch,
            activation: life.activation,
            seq: life.seq,
            stored_seq: life.stored_seq,
            parked_replies: life.parked_replies,
            used_at: life.used_at,
            next_deadline: life.next_deadline,
            observed: serde_json::from_str(&life.state)?,
        })
    }
}

/// The kind of an entity, as a path says it.
#[derive(Debug, Deserialize)]
pub(super) struct KindName(String);

impl Named for KindName {
    const NOT_FOUND: Code = Code::ActorNotFound;
}

/// Read what is in memory of a timetable, a queue, a coupon or an account
///
/// It is not read from the store for that: 404 where it isn't in memory.
#[utoipa::path(get, path = "/api/v1/admin/actors/{kind}/{id}", operation_id = "read_actor",
    tag = "administration", security(("bearer" = [])),
    params(("kind" = String, Path, description = "`timetable`, `queue`, `coupon` or `account`"),
        ("id" = Uuid, Path, description = "Of the timetable, of the performance, of the coupon, of the user")),
    responses((status = 200, body = ObservedAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"), (status = 404, description = "`actor-not-found`"),
        (status = 503, description = "`store-unavailable`: its node does not answer")))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    _: Admin,
    Path((kind, id)): Path<(KindName, Uuid)>,
) -> Answer<Json<ObservedAnswer>> {
    let kind = EntityKind::named(&kind.0).ok_or(Code::ActorNotFound)?;
    let seen = app.node.observe_entity(kind, id).await;
    let Observed { actor, life } = seen
        .map_err(|node| {
            Problem::store_unavailable().detail(format!("the node {node} does not answer"))
        })?
        .ok_or(Code::ActorNotFound)?;
    let life = life.map(LifeAnswer::try_from).transpose();
    Ok(Json(ObservedAnswer {
        kind: kind.as_str(),
        id,
        actor: actor.into(),
        life: life.map_err(|error| Problem::internal(&error))?,
    }))
}
