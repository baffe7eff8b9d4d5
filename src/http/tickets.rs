//! Tickets: the right to a seat, as a text that a door can check by itself.
//!
//! A ticket's code is a JWS (RFC 7515) signed with Ed25519: self-contained, and
//! checked with the public keys at `/tickets/keys`, without a network.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::SignedIn;
use super::error::{Answer, Code, Problem};
use super::extract::{Json, List, Page, Path};
use crate::app::App;
use crate::domain::ids::{OrderId, PerformanceId, TicketId, TimetableId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::store::orders::TicketRow;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(keys))
        .routes(routes!(find))
        .routes(routes!(qr_svg))
}

/// Signs tickets.
pub struct TicketSigner {
    kid: String,
    signing: EncodingKey,
    public: [u8; 32],
}

impl std::fmt::Debug for TicketSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketSigner")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// What a door reads in a code.
#[derive(Debug, Serialize)]
struct Claims {
    /// The ticket.
    sub: TicketId,
    /// The timetable.
    aud: TimetableId,
    /// The seat.
    seat: String,
    /// When it was issued, in seconds since 1970.
    iat: i64,
}

impl TicketSigner {
    /// Makes a private key: its name and its PKCS #8 form.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<(String, Vec<u8>), StoreError> {
        let unreadable = |error: &dyn std::fmt::Display| StoreError::Unreadable(error.to_string());
        let mut seed = [0u8; 32];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| unreadable(&error))?;
        let key = SigningKey::from_bytes(&seed);
        let der = key.to_pkcs8_der().map_err(|error| unreadable(&error))?;
        let kid = URL_SAFE_NO_PAD.encode(&key.verifying_key().as_bytes()[..8]);
        Ok((kid, der.as_bytes().to_vec()))
    }

    /// The signer with a stored private key.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn new(kid: String, der: &[u8]) -> Result<Self, StoreError> {
        let key = SigningKey::from_pkcs8_der(der)
            .map_err(|error| StoreError::Unreadable(format!("the ticket signing key: {error}")))?;
        Ok(Self {
            kid,
            signing: EncodingKey::from_ed_der(der),
            public: key.verifying_key().to_bytes(),
        })
    }

    /// The name of the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    fn sign(&self, ticket: &TicketRow, seat: String) -> Answer<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let claims = Claims {
            sub: ticket.id,
            aud: ticket.timetable,
            seat,
            iat: ticket.issued_at.0 / 1000,
        };
        jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|error| Problem::internal(&error))
    }
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub struct TicketAnswer {
    ticket_id: TicketId,
    order_id: OrderId,
    seat_id: String,
    performance: PerformanceName,
    timetable_id: TimetableId,
    starts_at: Timestamp,
    /// The name of its owner.
    holder: String,
    /// What a door checks.
    code: String,
    #[schema(example = "valid")]
    status: String,
}

/// The performance of a ticket.
#[derive(Debug, Serialize, ToSchema)]
pub struct PerformanceName {
    performance_id: PerformanceId,
    title: String,
}

fn answer(app: &App, row: TicketRow) -> Answer<TicketAnswer> {
    let (performance, timetable) = app.past_sale(row.timetable)?;
    let plan = &timetable.plan;
    let seat_id = plan.layout.name_of(row.seat).to_string();
    Ok(TicketAnswer {
        code: app.tickets.sign(&row, seat_id.clone())?,
        ticket_id: row.id,
        order_id: row.order,
        seat_id,
        performance: PerformanceName {
            performance_id: plan.performance_id,
            title: performance.row.title.clone(),
        },
        timetable_id: row.timetable,
        starts_at: timetable.row.starts_at,
        holder: row.holder,
        status: row.status,
    })
}

/// The caller's tickets, newest first.
#[utoipa::path(get, path = "/api/v1/tickets", tag = "tickets", responses((status = 200, body = List<TicketAnswer>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    page: Page,
) -> Answer<Json<List<TicketAnswer>>> {
    let after = page.after::<TicketId>()?;
    let rows = app
        .node
        .store
        .tickets_of(caller.user_id, after, page.limit + 1)
        .await?;
    let List { items, next_cursor } = List::page(rows, &page, |row| row.id);
    let items = items
        .into_iter()
        .map(|row| answer(&app, row))
        .collect::<Answer<_>>()?;
    Ok(Json(List { items, next_cursor }))
}

/// A ticket of the caller.
#[utoipa::path(get, path = "/api/v1/tickets/{ticket_id}", tag = "tickets", params(("ticket_id" = TicketId, Path)),
    responses((status = 200, body = TicketAnswer)))]
pub async fn find(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<TicketId>,
) -> Answer<Json<TicketAnswer>> {
    let row = app.node.store.ticket_of(caller.user_id, id).await?;
    let row = row.ok_or_else(|| Problem::new(Code::TicketNotFound))?;
    answer(&app, row).map(Json)
}

/// The code of a ticket as a picture that a door scans.
#[utoipa::path(get, path = "/api/v1/tickets/{ticket_id}/qr.svg", tag = "tickets", params(("ticket_id" = TicketId, Path)),
    responses((status = 200, description = "an SVG picture", content_type = "image/svg+xml")))]
pub async fn qr_svg(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    Path(id): Path<TicketId>,
) -> Answer<Response> {
    let Json(ticket) = find(State(app), SignedIn(caller), Path(id)).await?;
    // Level L: the text is long, and a screen is clean.
    let code = qrcode::QrCode::with_error_correction_level(&ticket.code, qrcode::EcLevel::L)
        .map_err(|error| Problem::internal(&error))?;
    let picture = code
        .render::<qrcode::render::svg::Color<'_>>()
        .min_dimensions(240, 240)
        .build();
    let svg = HeaderValue::from_static("image/svg+xml");
    Ok(([(header::CONTENT_TYPE, svg)], picture).into_response())
}

/// The public keys of ticket codes (RFC 7517, RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

/// A public key.
#[derive(Debug, Serialize, ToSchema)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
    x: String,
}

/// The public keys of ticket codes.
#[utoipa::path(get, path = "/api/v1/tickets/keys", tag = "tickets", responses((status = 200, body = JwkSet)))]
pub async fn keys(State(app): State<Arc<App>>) -> Response {
    let key = Jwk {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        usage: "sig",
        kid: app.tickets.kid.clone(),
        x: URL_SAFE_NO_PAD.encode(app.tickets.public),
    };
    let fresh = HeaderValue::from_static("public, max-age=300");
    (
        [(header::CACHE_CONTROL, fresh)],
        Json(JwkSet { keys: vec![key] }),
    )
        .into_response()
}
