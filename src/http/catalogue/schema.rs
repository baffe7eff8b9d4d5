//! How the domain's policies and limits look in `/openapi.json`. Here rather
//! than in the domain, which knows nothing of HTTP.
#![allow(dead_code)] // These types only describe.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::domain::plan::Limits;
use crate::domain::queue::policy::{Admit, Opening, PolicyRequest, Preset, QueuePolicy};

macro_rules! described_by {
    ($($described:ty: $document:ty),* $(,)?) => {$(
        impl PartialSchema for $described {
            fn schema() -> RefOr<Schema> {
                <$document>::schema()
            }
        }
        impl ToSchema for $described {
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                <$document>::schemas(schemas);
            }
        }
    )*};
}

described_by! {
    Admit: AdmitDocument, Opening: OpeningDocument, Preset: PresetDocument,
    PolicyRequest: PolicyRequestDocument, QueuePolicy: PolicyDocument, Limits: LimitsDocument,
}

/// Never more than `count` in any `every_seconds`.
#[derive(ToSchema)]
struct AdmitDocument {
    #[schema(minimum = 1)]
    count: u32,
    #[schema(minimum = 1, maximum = 86_400)]
    every_seconds: u32,
}

/// Who gets which number when the sale opens.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
enum OpeningDocument {
    Fifo,
    Lottery,
}

/// A policy with a name.
#[derive(ToSchema)]
enum PresetDocument {
    #[schema(rename = "amusement-park")]
    AmusementPark,
    #[schema(rename = "bank-counter")]
    BankCounter,
    #[schema(rename = "active-200")]
    Active200,
    #[schema(rename = "window-150")]
    Window150,
    #[schema(rename = "active-50")]
    Active50,
}

/// A preset, members that override it, or members alone.
#[derive(ToSchema)]
struct PolicyRequestDocument {
    preset: Option<Preset>,
    /// The first so many numbers enter at once; 0 without a preset.
    free_admission: Option<u32>,
    admit: Option<Admit>,
    #[schema(minimum = 1)]
    max_active: Option<u32>,
    #[schema(minimum = 1, maximum = 86_400)]
    active_ttl_seconds: Option<u32>,
    max_waiting_per_seat: Option<u32>,
    #[schema(maximum = 86_400)]
    extend_on_hold_seconds: Option<u32>,
    leave_on_purchase: Option<bool>,
    #[schema(maximum = 86_400)]
    waiting_ttl_seconds: Option<u32>,
    opening: Option<Opening>,
}

/// The policy of a waiting room.
#[derive(ToSchema)]
struct PolicyDocument {
    free_admission: u32,
    #[schema(required = true)]
    admit: Option<Admit>,
    #[schema(required = true)]
    max_active: Option<u32>,
    active_ttl_seconds: u32,
    #[schema(required = true)]
    max_waiting_per_seat: Option<u32>,
    extend_on_hold_seconds: u32,
    leave_on_purchase: bool,
    #[schema(required = true)]
    waiting_ttl_seconds: Option<u32>,
    opening: Opening,
}

/// The limits of a performance.
#[derive(ToSchema)]
struct LimitsDocument {
    max_seats_per_user: u32,
    hold_ttl_seconds: u32,
    hold_max_seconds: u32,
    payment_ttl_seconds: u32,
    cancel_until_hours_before: u32,
    offer_ttl_seconds: u32,
    release_jitter_seconds: u32,
}
