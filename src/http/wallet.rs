//! The wallet: what can be spent, and how it came about.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::SignedIn;
use super::error::{Answer, Code, Problem};
use super::extract::{IdempotencyKey, Json, List, Page};
use super::idempotency::{self, Keyed, Stored};
use super::problems::account_refusal;
use crate::app::App;
use crate::domain::account::{Command, Reply};
use crate::domain::money::{Currency, Money};
use crate::domain::time::Timestamp;
use crate::persistence::rows::charge_body;
use crate::persistence::store::orders::EntryRow;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(balance))
        .routes(routes!(charge))
        .routes(routes!(entries))
}

/// What can be spent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Wallet {
    /// Without what is set aside for unfinished orders.
    balance: Money,
    #[schema(value_type = String, example = "KRW")]
    currency: Currency,
}

/// What can be spent.
#[utoipa::path(get, path = "/api/v1/wallet", tag = "wallet", responses((status = 200, body = Wallet)))]
pub async fn balance(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
) -> Answer<Json<Wallet>> {
    match app
        .node
        .accounts
        .ask(caller.user_id.0, Command::Balance)
        .await?
    {
        Ok(Reply::Balance(balance)) => Ok(Json(Wallet {
            balance,
            currency: Currency::KRW,
        })),
        Ok(_) => Err(Problem::internal_text("an account answered something else")),
        Err(refusal) => Err(account_refusal(&refusal)),
    }
}

/// How much to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChargeRequest {
    /// 1 to 10^12.
    amount: i64,
}

/// A charge.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChargeAnswer {
    charge_id: Uuid,
    amount: Money,
    /// What can be spent after it.
    balance: Money,
    #[schema(value_type = String, example = "KRW")]
    currency: Currency,
    created_at: Timestamp,
}

/// Add points to the wallet.
#[utoipa::path(post, path = "/api/v1/wallet/charges", tag = "wallet",
    params(("Idempotency-Key" = String, Header)), request_body = ChargeRequest,
    responses((status = 201, body = ChargeAnswer)))]
pub async fn charge(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    body: Keyed<ChargeRequest>,
) -> Answer<Response> {
    let user = caller.user_id;
    let amount = Money(body.value.amount);
    if amount <= Money::ZERO || amount > Money::MAX_ENTERED {
        return Err(Problem::invalid_field(
            "amount",
            format!("from 1 to {}", Money::MAX_ENTERED),
        ));
    }
    let (_, key, request) = body.of(user);
    let key = IdempotencyKey(key).required()?;
    let claim = idempotency::claim(key, &request);
    let work = {
        let (app, claim) = (Arc::clone(&app), claim.clone());
        async move {
            let key = claim.key.clone();
            let command = Command::Charge {
                id: Uuid::now_v7(),
                amount,
                key: Some(claim),
            };
            match app.node.accounts.ask(user.0, command).await? {
                Ok(Reply::Charged(charge)) => {
                    Ok(Stored::raw(StatusCode::CREATED, charge_body(&charge)))
                }
                // Another request under the key has got ahead of this one.
                Ok(Reply::KeyIsAnswered) => idempotency::stored(&app, user, &key).await,
                Ok(Reply::KeyIsRunning(_)) => Err(Code::IdempotencyKeyInUse.into()),
                Ok(_) => Err(Problem::internal_text("an account answered something else")),
                Err(refusal) => Err(account_refusal(&refusal)),
            }
        }
    };
    idempotency::once_storing(&app, user, claim, work).await
}

/// A movement of money.
#[derive(Debug, Serialize, ToSchema)]
pub struct Entry {
    /// More than zero if it came in, less if it went out.
    amount: Money,
    #[schema(value_type = String, example = "KRW")]
    currency: Currency,
    /// Why: `charge`, `order` or `refund`.
    cause: String,
    /// Which charge, or which order.
    cause_id: Uuid,
    /// Where it came from.
    debit: String,
    /// Where it went.
    credit: String,
    created_at: Timestamp,
}

impl Entry {
    fn new(row: EntryRow) -> Self {
        let came_in = row.credit.starts_with("wallet:");
        Self {
            amount: if came_in {
                row.amount
            } else {
                Money::ZERO.minus(row.amount)
            },
            currency: Currency::KRW,
            cause: row.cause,
            cause_id: row.cause_id,
            debit: row.debit,
            credit: row.credit,
            created_at: row.at,
        }
    }
}

/// The movements of the caller's money, newest first.
#[utoipa::path(get, path = "/api/v1/wallet/entries", tag = "wallet", responses((status = 200, body = List<Entry>)))]
pub async fn entries(
    State(app): State<Arc<App>>,
    SignedIn(caller): SignedIn,
    page: Page,
) -> Answer<Json<List<Entry>>> {
    let before = page.after::<u64>()?;
    let rows = app
        .node
        .store
        .entries_of(caller.user_id, before, page.limit + 1)
        .await?;
    let List { items, next_cursor } = List::page(rows, &page, |row| row.seq);
    Ok(Json(List {
        items: items.into_iter().map(Entry::new).collect(),
        next_cursor,
    }))
}
