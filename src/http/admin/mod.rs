//! The administration: the catalogue, the cluster, and what went wrong.

mod actors;
mod categories;
mod cluster;
mod coupons;
mod dead_letters;
pub(super) mod ops;
mod performances;
mod queue;
mod timetables;
mod venues;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{Answer, Code, Problem};
use super::idempotency::{Request, Stored, once};
use super::tokens::Identity;
use crate::app::App;
use crate::catalogue::{Caller, CatalogueError, Made, Performance};
use crate::domain::roles::Role;

/// The routes of the files below.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(venues::create))
        .routes(routes!(performances::create, performances::list))
        .routes(routes!(performances::change, performances::delete))
        .routes(routes!(performances::restore))
        .routes(routes!(performances::put_poster))
        .routes(routes!(performances::put_queue))
        .routes(routes!(queue::pause))
        .routes(routes!(queue::resume))
        .routes(routes!(queue::drain, queue::undrain))
        .routes(routes!(timetables::add))
        .routes(routes!(coupons::create))
        .routes(routes!(coupons::change))
        .routes(routes!(categories::rename, categories::delete))
        .routes(routes!(cluster::cluster))
        .routes(routes!(actors::list))
        .routes(routes!(actors::read))
        .routes(routes!(ops::ops))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::requeue))
}

fn caller(identity: &Identity) -> Caller {
    Caller {
        user: identity.user_id,
        is_admin: identity.roles.has(Role::Admin),
    }
}

/// Tells the actors of a performance, of its queue and of all its dates, that
/// it has changed.
fn tell_actors(app: &App, performance: &Performance) {
    app.node.queues.replan(performance.id().0);
    for timetable in &performance.timetables {
        app.plan_changed(timetable.row.id);
    }
}

/// The answer to a request that makes something: once for all that are sent
/// under a key. Should the answer not have been stored, the row that was made
/// under the key is found again.
async fn created<T, F>(
    app: &Arc<App>,
    key: Option<String>,
    request: Request,
    work: F,
) -> Answer<Response>
where
    T: Serialize + Send,
    F: Future<Output = Answer<Made<T>>> + Send + 'static,
{
    once(app, key, request, || async move {
        let made = work.await?;
        Ok(Stored::json(StatusCode::CREATED, &made.value)?.again(made.replayed))
    })
    .await
}

impl From<CatalogueError> for Problem {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Invalid(errors) => Self::invalid_fields(errors),
            CatalogueError::VenueNotFound => Code::VenueNotFound.into(),
            CatalogueError::PerformanceNotFound => Code::PerformanceNotFound.into(),
            CatalogueError::TimetableNotFound => Code::TimetableNotFound.into(),
            CatalogueError::CategoryNotFound => Code::CategoryNotFound.into(),
            CatalogueError::CategoryInUse(count) => {
                Self::new(Code::CategoryInUse).with("performances", count)
            }
            CatalogueError::HasOrders => Code::PerformanceHasOrders.into(),
            CatalogueError::KeyReused => Code::IdempotencyKeyReused.into(),
            CatalogueError::NotAPicture => {
                Self::new(Code::UnsupportedMediaType).detail("send a PNG, JPEG or WebP picture")
            }
            CatalogueError::Store(error) => error.into(),
        }
    }
}
