//! Venues.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts as _, State};
use axum::http::Method;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::{caller, created};
use crate::app::App;
use crate::catalogue::Made;
use crate::catalogue::request::VenueRequest;
use crate::catalogue::rows::VenueRow;
use crate::domain::ids::VenueId;
use crate::http::auth::Organizer;
use crate::http::error::{Answer, Problem};
use crate::http::extract::{
    BodyDeadline, BodyHash, IdempotencyKey, VENUE_BYTES_MAX, hash_of, parse,
};
use crate::http::idempotency::Request;
use crate::http::json::json_bytes;

/// A venue that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VenueAnswer {
    venue_id: VenueId,
    name: String,
    time_zone: String,
    /// How many seats and general-admission units it has.
    capacity: u32,
}

impl From<VenueRow> for VenueAnswer {
    fn from(row: VenueRow) -> Self {
        Self {
            venue_id: row.id,
            name: row.name,
            time_zone: row.time_zone,
            capacity: row.capacity,
        }
    }
}

/// The body of a venue, larger than others, with its idempotency key.
pub(super) struct KeyedVenue {
    venue: VenueRequest,
    key: Option<String>,
    route: (Method, String),
    body: BodyHash,
}

impl<S: BodyDeadline + Send + Sync> FromRequest<S> for KeyedVenue {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Answer<Self> {
        let route = (request.method().clone(), request.uri().path().to_owned());
        let (mut parts, body) = request.into_parts();
        let IdempotencyKey(key) = IdempotencyKey::from_request_parts(&mut parts, state).await?;
        let request = axum::extract::Request::from_parts(parts, body);
        let bytes = json_bytes(request, VENUE_BYTES_MAX, state.body_timeout()).await?;
        Ok(Self {
            venue: parse(&bytes)?,
            key,
            route,
            body: hash_of(&bytes)?,
        })
    }
}

/// Make a venue
#[utoipa::path(post, path = "/api/v1/admin/venues", operation_id = "create_venue", tag = "administration",
    security(("bearer" = [])), request_body = VenueRequest,
    responses((status = 201, body = VenueAnswer), (status = 401, description = "`unauthorized`"),
        (status = 403, description = "`forbidden`"), (status = 422, description = "`invalid-request`")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Organizer(identity): Organizer,
    KeyedVenue {
        venue,
        key,
        route,
        body,
    }: KeyedVenue,
) -> Answer<Response> {
    let request = Request {
        user: identity.user_id,
        route,
        body,
    };
    let (store, caller, row_key) = (Arc::clone(&app), caller(&identity), key.clone());
    created(&app, key, request, async move {
        let now = store.clock.now();
        let made = store
            .catalogue
            .create_venue(caller, &venue, row_key, now)
            .await?;
        Ok(Made {
            value: VenueAnswer::from(made.value),
            replayed: made.replayed,
        })
    })
    .await
}
