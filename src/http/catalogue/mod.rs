//! What everyone may see of the catalogue. All of it is answered from memory.

pub mod answers;
mod layout;
mod poster;
mod schema;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::answers::{
    CategoryAnswer, PerformanceDetail, PerformanceSummary, RankedAnswer, TimetableAnswer,
    TimetableDetail,
};
use super::auth::MaybeSignedIn;
use super::error::{Answer, Code, Problem};
use super::etag::public_json;
use super::extract::{List, Page, Path, Query, cursor};
use crate::app::App;
use crate::catalogue::{Found, Position, RankBy, Ranked, SaleStatus, Sort, Viewer, Wanted};
use crate::domain::ids::{PerformanceId, TimetableId};
use crate::domain::time::Timestamp;

/// The longest search, in characters.
const QUERY_CHARS_MAX: usize = 200;
/// How many performances a ranking shows where `limit` isn't given.
const RANKING_DEFAULT: u32 = 5;
/// The most performances that a ranking shows.
const RANKING_MAX: u32 = 100;

/// The routes of this file and those below it.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(categories))
        .routes(routes!(list))
        .routes(routes!(ranking))
        .routes(routes!(performance))
        .routes(routes!(timetables))
        .routes(routes!(timetable))
        .routes(routes!(layout::layout))
        .routes(routes!(poster::poster))
}

/// List categories
#[utoipa::path(get, path = "/api/v1/categories", operation_id = "list_categories", tag = "catalogue",
    responses((status = 200, body = List<CategoryAnswer>), (status = 304, description = "not modified")))]
async fn categories(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer<Response> {
    let categories = app.catalogue.categories().into_iter();
    let items = categories.map(|(category, performances)| CategoryAnswer {
        category,
        performances,
    });
    public_json(&headers, &List::whole(items.collect()))
}

/// Which performances are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Words, each anywhere in title, cast or venue; without regard to case.
    query: Option<String>,
    /// Filed under this category.
    category: Option<String>,
    /// With this status at this moment.
    #[param(inline)]
    status: Option<SaleStatus>,
    /// With a date that starts then or later.
    #[serde(default, deserialize_with = "time_in_query")]
    #[param(value_type = Option<Timestamp>)]
    from: Option<Timestamp>,
    /// With a date that starts then or earlier.
    #[serde(default, deserialize_with = "time_in_query")]
    #[param(value_type = Option<Timestamp>)]
    to: Option<Timestamp>,
    /// By default the soonest sale first.
    #[param(inline)]
    sort: Option<Sort>,
    /// How many at most: 1 to 100, by default 20.
    #[serde(rename = "limit")]
    #[param(value_type = Option<u32>)]
    _limit: Option<String>,
    /// `next_cursor` of the page before, with the same `sort`.
    #[serde(rename = "cursor")]
    _cursor: Option<String>,
}

/// A `+` that was not escaped arrives as a space: no time has one before its
/// offset.
fn time_in_query<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let time = text.parse().or_else(|_| text.replace(' ', "+").parse());
    time.map(Some).map_err(serde::de::Error::custom)
}

impl ListQuery {
    fn wanted(self) -> Answer<Wanted> {
        let query = self.query.filter(|query| !query.trim().is_empty());
        if query
            .as_ref()
            .is_some_and(|query| query.chars().count() > QUERY_CHARS_MAX)
        {
            let message = format!("at most {QUERY_CHARS_MAX} characters");
            return Err(Problem::invalid_field("query", message));
        }
        Ok(Wanted {
            query,
            category: self.category.filter(|category| !category.is_empty()),
            status: self.status,
            from: self.from,
            to: self.to,
            sort: self.sort.unwrap_or_default(),
        })
    }
}

/// List performances
#[utoipa::path(get, path = "/api/v1/performances", operation_id = "list_performances", tag = "catalogue",
    params(ListQuery),
    responses((status = 200, body = List<PerformanceSummary>), (status = 304, description = "not modified"),
        (status = 422, description = "`invalid-request`")))]
async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<ListQuery>,
    page: Page,
    headers: HeaderMap,
) -> Answer<Response> {
    let wanted = query.wanted()?;
    let after = page.after::<Position>()?;
    if after.is_some_and(|after| after.sort != wanted.sort) {
        return Err(Problem::invalid_field(
            "cursor",
            "is of a list with another sort",
        ));
    }
    let limit = page.limit as usize;
    let seats = |id| app.seats_of(id);
    let mut found = app
        .catalogue
        .list(&wanted, after, limit + 1, app.clock.now(), &seats);
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more);
    let next_cursor = last.map(|last: &Found| cursor(&last.position));
    let items = found
        .iter()
        .map(|f| PerformanceSummary::new(&f.performance, f.status))
        .collect();
    public_json(&headers, &List { items, next_cursor })
}

/// Show a performance
///
/// Counts one view a user, else an address, a day.
#[utoipa::path(get, path = "/api/v1/performances/{performance_id}", operation_id = "show_performance",
    tag = "catalogue", params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = PerformanceDetail), (status = 304, description = "not modified"),
        (status = 404, description = "`performance-not-found`")))]
async fn performance(
    State(app): State<Arc<App>>,
    MaybeSignedIn(caller): MaybeSignedIn,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Path(id): Path<PerformanceId>,
    headers: HeaderMap,
) -> Answer<Response> {
    let performance = app
        .catalogue
        .public_performance(id)
        .ok_or(Code::PerformanceNotFound)?;
    let now = app.clock.now();
    let address = peer.map(|Extension(ConnectInfo(peer))| Viewer::Address(peer.ip()));
    let viewer = caller
        .map(|caller| Viewer::User(caller.user_id))
        .or(address);
    if let Some(viewer) = viewer {
        app.catalogue.view(&performance, viewer, now);
    }
    let commitment = app.commitment(&performance).await;
    let detail = PerformanceDetail::new(&performance, now, &|id| app.seats_of(id));
    public_json(&headers, &detail.with_commitment(commitment))
}

/// What is ranked.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RankingQuery {
    /// By default views.
    #[param(inline)]
    by: Option<RankBy>,
    /// Of the last 1, 7 or 30 days; by default 7.
    days: Option<u32>,
    /// How many at most: 1 to 100, by default 5.
    limit: Option<u32>,
}

/// Rank performances
#[utoipa::path(get, path = "/api/v1/performances/ranking", operation_id = "rank_performances",
    tag = "catalogue", params(RankingQuery),
    responses((status = 200, body = List<RankedAnswer>), (status = 304, description = "not modified"),
        (status = 422, description = "`invalid-request`")))]
async fn ranking(
    State(app): State<Arc<App>>,
    Query(query): Query<RankingQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let days = query.days.unwrap_or(7);
    if ![1, 7, 30].contains(&days) {
        return Err(Problem::invalid_field("days", "1, 7 or 30"));
    }
    let limit = query.limit.unwrap_or(RANKING_DEFAULT);
    if !(1..=RANKING_MAX).contains(&limit) {
        return Err(Problem::invalid_field(
            "limit",
            format!("from 1 to {RANKING_MAX}"),
        ));
    }
    let by = query.by.unwrap_or_default();
    let ranking = app
        .catalogue
        .ranking(by, i64::from(days), app.clock.now())
        .await?;
    let items = (1..=limit)
        .zip(ranking.iter())
        .map(|(rank, ranked)| ranked_answer(rank, ranked));
    public_json(&headers, &List::whole(items.collect()))
}

fn ranked_answer(rank: u32, ranked: &Ranked) -> RankedAnswer {
    RankedAnswer {
        rank,
        performance_id: ranked.performance.id(),
        title: ranked.performance.row.title.clone(),
        views: ranked.views,
        sales: ranked.sales,
    }
}

/// List the dates of a performance
#[utoipa::path(get, path = "/api/v1/performances/{performance_id}/timetables",
    operation_id = "list_timetables", tag = "catalogue",
    params(("performance_id" = PerformanceId, Path)),
    responses((status = 200, body = List<TimetableAnswer>), (status = 304, description = "not modified"),
        (status = 404, description = "`performance-not-found`")))]
async fn timetables(
    State(app): State<Arc<App>>,
    Path(id): Path<PerformanceId>,
    headers: HeaderMap,
) -> Answer<Response> {
    let performance = app
        .catalogue
        .public_performance(id)
        .ok_or(Code::PerformanceNotFound)?;
    let items = performance.timetables.iter();
    let items = items
        .map(|t| TimetableAnswer::new(t, &|id| app.seats_of(id)))
        .collect();
    public_json(&headers, &List::<TimetableAnswer>::whole(items))
}

/// Show a date
#[utoipa::path(get, path = "/api/v1/timetables/{timetable_id}", operation_id = "show_timetable",
    tag = "catalogue", params(("timetable_id" = TimetableId, Path)),
    responses((status = 200, body = TimetableDetail), (status = 304, description = "not modified"),
        (status = 404, description = "`timetable-not-found`")))]
async fn timetable(
    State(app): State<Arc<App>>,
    Path(id): Path<TimetableId>,
    headers: HeaderMap,
) -> Answer<Response> {
    let found = app
        .catalogue
        .public_timetable(id)
        .ok_or(Code::TimetableNotFound)?;
    let (performance, timetable) = found;
    let (now, seats) = (app.clock.now(), |id| app.seats_of(id));
    public_json(
        &headers,
        &TimetableDetail::new(&performance, &timetable, now, &seats),
    )
}
