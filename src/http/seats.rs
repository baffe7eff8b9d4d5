//! The seat map: what is free, and what changed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{MaybeSignedIn, Organizer};
use super::error::{Answer, Code, Problem};
use super::etag::public_json;
use super::extract::{Json, Path, Query};
use super::problems::timetable_refusal;
use super::queue_pass::{self, QueuePass};
use crate::actors::board::{Board, MapRead, SeatCounts};
use crate::app::{App, Sale};
use crate::domain::ids::TimetableId;
use crate::domain::seat::Seats;
use crate::domain::timetable::Command;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(map))
        .routes(routes!(availability))
}

/// The routes of this file for organizers.
pub fn admin_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(block, unblock))
}

/// Which part of the map is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct MapQuery {
    /// The version that the reader has.
    since: Option<u64>,
}

/// What changed since a version.
#[derive(Debug, Serialize, ToSchema)]
pub struct MapChanges {
    version: u64,
    /// Pairs of a seat's index in layout order and its status.
    #[schema(value_type = Vec<(u32, String)>)]
    changes: Vec<(u32, char)>,
}

/// The seat map: one character a seat in layout order.
#[utoipa::path(get, path = "/api/v1/timetables/{timetable_id}/seats", tag = "seats",
    params(("timetable_id" = TimetableId, Path), MapQuery, ("Queue-Pass" = Option<String>, Header)),
    responses((status = 200, description = "the whole map, or the changes since a version", body = MapChanges),
        (status = 304, description = "nothing changed")))]
pub async fn map(
    State(app): State<Arc<App>>,
    MaybeSignedIn(caller): MaybeSignedIn,
    Path(id): Path<TimetableId>,
    Query(query): Query<MapQuery>,
    pass: QueuePass,
    headers: HeaderMap,
) -> Answer<Response> {
    let sale = app.sale(id)?;
    if !sale.belongs_to(caller) {
        let user = caller.map(|caller| caller.user_id);
        queue_pass::check(&app, &sale, user, &pass).await?;
    }
    let board = loaded_board(&app, &sale).await?;
    Ok(match board.read(query.since, &sale.layout_etag) {
        MapRead::Since { version, changes } => answer(version, &headers, || {
            Json(MapChanges { version, changes }).into_response()
        }),
        MapRead::Whole { version, body } => answer(version, &headers, || {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], body).into_response()
        }),
    })
}

/// The answer at a version, or 304 if the reader has it.
fn answer(version: u64, headers: &HeaderMap, body: impl FnOnce() -> Response) -> Response {
    let mut buffer = [0u8; 24];
    let etag = etag(version, &mut buffer);
    let has_it = headers.get(header::IF_NONE_MATCH).is_some_and(|known| {
        known
            .to_str()
            .is_ok_and(|known| known.split(',').any(|tag| tag.trim() == etag))
    });
    let mut response = if has_it {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        body()
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    let fresh = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, fresh);
    response
}

/// `"<version>"`, without an allocation.
fn etag(version: u64, buffer: &mut [u8; 24]) -> &str {
    use std::io::Write as _;
    let capacity = buffer.len();
    let mut rest = &mut buffer[..];
    // 20 digits and two quotes fit.
    let _ = write!(rest, "\"{version}\"");
    let written = capacity - rest.len();
    std::str::from_utf8(&buffer[..written]).unwrap_or_default()
}

/// The map of a timetable, read from the store, or from the node that owns it,
/// if it isn't in memory.
pub(super) async fn loaded_board(app: &App, sale: &Sale) -> Answer<Arc<Board>> {
    app.board(&sale.plan).await
}

/// Free seats by section and by grade.
#[derive(Debug, Serialize, ToSchema)]
pub struct Availability {
    timetable_id: TimetableId,
    #[serde(flatten)]
    total: Counts,
    sections: Vec<Part>,
    grades: Vec<Part>,
}

/// The counts of a section or a grade.
#[derive(Debug, Serialize, ToSchema)]
pub struct Part {
    name: String,
    #[serde(flatten)]
    counts: Counts,
}

/// How many seats are in which status.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Counts {
    capacity: u32,
    available: u32,
    held: u32,
    sold: u32,
    blocked: u32,
}

impl From<SeatCounts> for Counts {
    fn from(counts: SeatCounts) -> Self {
        let SeatCounts {
            available,
            held,
            sold,
            blocked,
        } = counts;
        Self {
            capacity: counts.capacity(),
            available,
            held,
            sold,
            blocked,
        }
    }
}

/// Counts by section and by grade.
#[utoipa::path(get, path = "/api/v1/timetables/{timetable_id}/availability", tag = "seats",
    params(("timetable_id" = TimetableId, Path)), responses((status = 200, body = Availability)))]
pub async fn availability(
    State(app): State<Arc<App>>,
    Path(id): Path<TimetableId>,
    headers: HeaderMap,
) -> Answer<Response> {
    let sale = app.sale(id)?;
    let board = loaded_board(&app, &sale).await?;
    let sections = sale.plan.layout.sections();
    let ranges: Vec<Range<u32>> = sections
        .iter()
        .map(|s| s.first.0..s.first.0 + s.seats)
        .collect();
    let counts = board.count_ranges(&ranges);
    let mut total = SeatCounts::default();
    let mut by_grade: BTreeMap<usize, SeatCounts> = BTreeMap::new();
    for (counts, grade) in counts.iter().zip(&sale.plan.grade_of_section) {
        for sum in [
            &mut total,
            by_grade.entry(usize::from(grade.0)).or_default(),
        ] {
            sum.available += counts.available;
            sum.held += counts.held;
            sum.sold += counts.sold;
            sum.blocked += counts.blocked;
        }
    }
    let sections = sections.iter().zip(counts).map(|(section, counts)| Part {
        name: section.name.to_string(),
        counts: counts.into(),
    });
    let grades = sale
        .plan
        .grades
        .iter()
        .enumerate()
        .map(|(index, grade)| Part {
            name: grade.name.clone(),
            counts: by_grade.get(&index).copied().unwrap_or_default().into(),
        });
    let body = Availability {
        timetable_id: id,
        total: total.into(),
        sections: sections.collect(),
        grades: grades.collect(),
    };
    public_json(&headers, &body)
}

/// Seats to take off sale, or to put back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    seat_ids: Vec<String>,
}

/// Take free seats off sale.
#[utoipa::path(post, path = "/api/v1/admin/timetables/{timetable_id}/blocks", tag = "admin",
    params(("timetable_id" = TimetableId, Path)), request_body = BlockRequest,
    responses((status = 200, body = Counts), (status = 409, description = "held or sold")))]
pub async fn block(
    State(app): State<Arc<App>>,
    Organizer(caller): Organizer,
    Path(id): Path<TimetableId>,
    Json(request): Json<BlockRequest>,
) -> Answer<Json<Counts>> {
    let sale = app.sale_managed_by(id, &caller)?;
    let seats = named(&sale, &request.seat_ids)?;
    change_blocks(&app, &sale, Command::Block { seats }).await
}

/// Put seats back on sale.
#[utoipa::path(delete, path = "/api/v1/admin/timetables/{timetable_id}/blocks", tag = "admin",
    params(("timetable_id" = TimetableId, Path)), request_body = BlockRequest,
    responses((status = 200, body = Counts)))]
pub async fn unblock(
    State(app): State<Arc<App>>,
    Organizer(caller): Organizer,
    Path(id): Path<TimetableId>,
    Json(request): Json<BlockRequest>,
) -> Answer<Json<Counts>> {
    let sale = app.sale_managed_by(id, &caller)?;
    let seats = named(&sale, &request.seat_ids)?;
    change_blocks(&app, &sale, Command::Unblock { seats }).await
}

async fn change_blocks(app: &App, sale: &Sale, command: Command) -> Answer<Json<Counts>> {
    let plan = &sale.plan;
    match app
        .node
        .timetables
        .ask(plan.timetable_id.0, command)
        .await?
    {
        Ok(_) => Ok(Json(app.node.board(plan).counts().into())),
        Err(refusal) => Err(timetable_refusal(plan, refusal)),
    }
}

fn named(sale: &Sale, names: &[String]) -> Answer<Seats> {
    if names.is_empty() {
        return Err(Problem::invalid_field("seat_ids", "at least one seat"));
    }
    let mut seats = Seats::with_capacity(names.len());
    let mut unknown = Vec::new();
    for name in names {
        match sale.plan.layout.seat_named(name) {
            Some(seat) => seats.push(seat),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        return Err(Problem::new(Code::UnknownSeat).with("seat_ids", serde_json::json!(unknown)));
    }
    seats.sort_unstable();
    seats.dedup();
    Ok(seats)
}
