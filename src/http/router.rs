//! All routes on one page.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use super::edge::EdgeLayer;
use super::extract::BodyDeadline;
use super::{
    accounts, admin, cancels, catalogue, coupons, holds, live, ops, orders, pages, queue, seats,
    tickets, wallet,
};
use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(title = "Onsale", description = "The ticketing backend for the minute a sale opens."),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Every call of the API. Each handler names its whole path: a nested router
/// would rewrite the path of every request.
fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(accounts::routes())
        .merge(catalogue::routes())
        .merge(admin::routes())
        .merge(seats::routes())
        .merge(seats::admin_routes())
        .merge(live::routes())
        .merge(queue::routes())
        .merge(holds::routes())
        .merge(orders::routes())
        .merge(coupons::routes())
        .merge(cancels::routes())
        .merge(wallet::routes())
        .merge(tickets::routes())
}

/// The whole service.
pub fn router(app: Arc<App>) -> Router {
    let (api, document) = api().split_for_parts();
    let edge = EdgeLayer::new(&app.config.http);
    let document = document.to_pretty_json().unwrap_or_default();
    api.merge(ops::router())
        .merge(pages::router())
        .merge(pages::ops())
        .merge(pages::docs(document))
        .with_state(app)
        .layer(edge)
}

/// What is left for everybody where the operations have a listener of their own:
/// the API, the storefront, and what the problems mean.
pub fn public_router(app: Arc<App>) -> Router {
    let (api, _) = api().split_for_parts();
    let edge = EdgeLayer::new(&app.config.http);
    api.merge(pages::router()).with_state(app).layer(edge)
}

/// The OpenAPI document as JSON.
#[must_use]
pub fn openapi_json() -> String {
    let (_, document) = api().split_for_parts();
    document.to_pretty_json().unwrap_or_default()
}

impl BodyDeadline for Arc<App> {
    fn body_timeout(&self) -> Duration {
        self.config.http.body_timeout()
    }
}
