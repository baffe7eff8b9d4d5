//! All that the operators' page shows of one node, in one answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::actors::ActorAnswer;
use crate::actors::busiest::Busy;
use crate::app::App;
use crate::domain::ids::EntityKind;
use crate::domain::time::{Millis, Timestamp};
use crate::http::auth::Admin;
use crate::http::error::{Answer, Problem};
use crate::http::extract::Query;
use crate::telemetry::history::{Column, SAMPLE_EVERY, Samples};
use crate::telemetry::{self};

/// So many timetables, queues and coupons are listed: those with the most people,
/// those that were claimed last.
const LISTED_MAX: usize = 20;

/// Which part of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OpsQuery {
    /// `last` of the answer before: only later samples are sent. Without it,
    /// those of the last 15 minutes.
    since: Option<u64>,
    /// Of which node; by default of the one that answers.
    node: Option<String>,
}

/// A node, as its operators see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpsAnswer {
    /// The node that this is about.
    node: String,
    /// All nodes that live.
    nodes: Vec<String>,
    version: &'static str,
    /// When the last sample was taken.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// Whether requests should be sent to it.
    ready: bool,
    /// What can't be done at the moment, or only by a detour.
    reasons: Vec<String>,
    /// How far apart samples are.
    sample_seconds: u64,
    /// The number of the last sample: send it as `since`.
    last: u64,
    /// By name; all have as many values. What does not exist on this node has
    /// null alone.
    series: BTreeMap<String, SeriesAnswer>,
    /// The actors that have the most to do, the busiest first.
    actors: Vec<BusyAnswer>,
    /// The waiting rooms with the most people.
    queues: Vec<QueueRow>,
    /// The dates with the most held seats.
    timetables: Vec<TimetableRow>,
    /// The coupons that were claimed last.
    coupons: Vec<CouponRow>,
}

/// Figures over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SeriesAnswer {
    /// `count`, `per_second`, `seconds`, `bytes` or `cores`.
    #[schema(example = "per_second")]
    unit: &'static str,
    /// Oldest first.
    values: Vec<Option<f64>>,
}

/// An actor that has something to do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BusyAnswer {
    #[serde(flatten)]
    actor: ActorAnswer,
    /// Lately.
    messages_per_second: f64,
    /// Which share of the time it works, lately.
    busy_share: f64,
}

/// A waiting room.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueRow {
    performance_id: Uuid,
    title: Option<String>,
    waiting: u32,
    active: u32,
    admitted_total: u64,
    admission_per_second: f64,
    paused: bool,
    draining: bool,
}

/// A date.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TimetableRow {
    timetable_id: Uuid,
    title: Option<String>,
    available: u32,
    held: u32,
    sold: u32,
    blocked: u32,
}

/// A coupon.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CouponRow {
    coupon_id: Uuid,
    title: String,
    stock: u32,
    claimed: u32,
    remaining: u32,
    /// `scheduled`, `open`, `sold_out` or `over`.
    #[schema(example = "open")]
    state: &'static str,
    /// When the last one was claimed, if that was since the coupon was read.
    #[schema(value_type = Option<String>, format = "date-time", required = true)]
    claimed_at: Option<Timestamp>,
    /// How long after it opened that was, if it is sold out.
    #[schema(required = true)]
    sold_out_after_seconds: Option<f64>,
}

/// Read all that the operators' page shows
///
/// Of one node: figures of the last 15 minutes, a sample a second, the busiest
/// actors, waiting rooms, dates and coupons. The figures are those of `/metrics`.
#[utoipa::path(get, path = "/api/v1/admin/ops", operation_id = "read_ops", tag = "administration",
    security(("bearer" = [])), params(OpsQuery),
    responses((status = 200, body = OpsAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"),
        (status = 422, description = "`invalid-request`: there is no such node"),
        (status = 503, description = "`store-unavailable`: the node does not answer")))]
pub(super) async fn ops(
    State(app): State<Arc<App>>,
    _: Admin,
    Query(query): Query<OpsQuery>,
) -> Answer<Response> {
    let since = query.since.unwrap_or(0);
    let json = match query.node.filter(|name| *name != app.node.name.as_str()) {
        None => snapshot(&app, since),
        Some(name) => of_other(&app, &name, since).await?,
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn of_other(app: &App, name: &str, since: u64) -> Answer<String> {
    let (peers, owner) = app
        .node
        .route
        .peers()
        .zip(member(app, name))
        .ok_or_else(|| Problem::invalid_field("node", "there is no such node"))?;
    peers
        .query(&owner, "/internal/ops", &since)
        .await
        .map_err(|error| {
            tracing::debug!(%error, node.id = name, "a node did not show its figures");
            Problem::store_unavailable().detail(format!("the node {name} does not answer"))
        })
}

/// The address of a node that lives.
fn member(app: &App, name: &str) -> Option<Arc<str>> {
    let seen = app.node.keeper.get()?.seen()?;
    let mut living = seen.view.members.iter().filter(|member| member.lives());
    let found = living.find(|member| member.owner.node.as_str() == name)?;
    Some(Arc::clone(&found.owner.address))
}

/// The answer of this node, as JSON.
pub(crate) fn snapshot(app: &App, since: u64) -> String {
    let Samples { last, at, columns } = telemetry::history::since(since);
    let series = |column: Column| {
        let Column { name, unit, values } = column;
        (name, SeriesAnswer { unit, values })
    };
    let reasons = app.readiness();
    let answer = OpsAnswer {
        node: app.node.name.to_string(),
        nodes: nodes(app),
        version: env!("CARGO_PKG_VERSION"),
        at,
        ready: reasons.is_empty(),
        reasons: [reasons, app.degradations()].concat(),
        sample_seconds: SAMPLE_EVERY.as_secs(),
        last,
        series: columns.into_iter().map(series).collect(),
        actors: app.busiest.read().into_iter().map(Into::into).collect(),
        queues: queues(app),
        timetables: timetables(app),
        coupons: coupons(app),
    };
    // It is plain data, which always serialises.
    serde_json::to_string(&answer).unwrap_or_default()
}

fn nodes(app: &App) -> Vec<String> {
    let own = app.node.name.to_string();
    let mut nodes = vec![own];
    if let Some(seen) = app.node.keeper.get().and_then(|keeper| keeper.seen()) {
        let living = seen.view.members.iter().filter(|member| member.lives());
        nodes.extend(living.map(|member| member.owner.node.to_string()));
    }
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn queues(app: &App) -> Vec<QueueRow> {
    let mut found = app.node.queue_boards.summaries();
    found.sort_unstable_by_key(|(id, s)| std::cmp::Reverse((s.waiting, s.active, id.0)));
    found.truncate(LISTED_MAX);
    let row = |(id, summary): (
        crate::domain::ids::PerformanceId,
        crate::domain::queue::Summary,
    )| {
        QueueRow {
            performance_id: id.0,
            title: app.catalogue.title(id),
            waiting: summary.waiting,
            active: summary.active,
            admitted_total: summary.admitted_total,
            admission_per_second: summary.admission_per_second,
            paused: summary.paused,
            draining: summary.draining,
        }
    };
    found.into_iter().map(row).collect()
}

fn timetables(app: &App) -> Vec<TimetableRow> {
    let mut found = app.node.own_counts();
    found.sort_unstable_by_key(|(id, counts)| std::cmp::Reverse((counts.held, counts.sold, id.0)));
    found.truncate(LISTED_MAX);
    let rows = found.into_iter().map(|(id, counts)| TimetableRow {
        timetable_id: id.0,
        title: app.node.title_of(EntityKind::Timetable, &id.0.to_string()),
        available: counts.available,
        held: counts.held,
        sold: counts.sold,
        blocked: counts.blocked,
    });
    rows.collect()
}

fn coupons(app: &App) -> Vec<CouponRow> {
    let mut found = app.node.coupon_boards.all();
    found.sort_unstable_by_key(|(id, view)| std::cmp::Reverse((view.claimed_at, *id)));
    found.truncate(LISTED_MAX);
    let now = app.clock.now();
    let rows = found.into_iter().map(|(id, view)| CouponRow {
        coupon_id: id.0,
        title: view.terms.name.clone(),
        stock: view.terms.stock,
        claimed: view.claimed,
        remaining: view.remaining(),
        state: view.standing(now).as_str(),
        claimed_at: view.claimed_at,
        sold_out_after_seconds: view.sold_out_after().map(Millis::seconds),
    });
    rows.collect()
}

impl From<Busy> for BusyAnswer {
    fn from(busy: Busy) -> Self {
        Self {
            actor: busy.row.into(),
            messages_per_second: busy.messages_per_second,
            busy_share: busy.busy_share,
        }
    }
}
