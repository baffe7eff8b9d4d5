//! How the domain's values look in `/openapi.json`. Here rather than in the
//! domain, which knows nothing of HTTP.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use super::code::Code;
use crate::domain::ids::{
    CouponClaimId, CouponId, HoldId, OrderId, PaymentId, PerformanceId, SessionId, TicketId,
    TimetableId, UserId, VenueId,
};
use crate::domain::money::{Currency, Money};
use crate::domain::time::Timestamp;

fn text(format: &str, description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom(format.to_owned())))
        .description(Some(description))
}

macro_rules! ids {
    ($($id:ty: $description:literal),* $(,)?) => {$(
        impl PartialSchema for $id {
            fn schema() -> RefOr<Schema> {
                text("uuid", $description).build().into()
            }
        }
        impl ToSchema for $id {}
    )*};
}

ids! {
    UserId: "Identifies a user",
    VenueId: "Identifies a venue",
    PerformanceId: "Identifies a performance",
    TimetableId: "Identifies one date of a performance",
    HoldId: "Identifies a hold",
    OrderId: "Identifies an order",
    PaymentId: "Identifies a payment",
    TicketId: "Identifies a ticket",
    SessionId: "Identifies a session",
    CouponId: "Identifies a coupon",
    CouponClaimId: "Identifies a claim of a coupon",
}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        text("date-time", "RFC 3339; answered in UTC with milliseconds")
            .build()
            .into()
    }
}
impl ToSchema for Timestamp {}

impl PartialSchema for Money {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .description(Some("Minor units of the currency that stands next to it"))
            .build()
            .into()
    }
}
impl ToSchema for Money {}

impl PartialSchema for Currency {
    fn schema() -> RefOr<Schema> {
        text("iso-4217", "Three capital letters")
            .pattern(Some("^[A-Z]{3}$"))
            .build()
            .into()
    }
}
impl ToSchema for Currency {}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .build()
            .into()
    }
}
impl ToSchema for Code {}

/// How every refusal looks: `application/problem+json` (RFC 9457). Some codes
/// add members of their own.
#[derive(ToSchema)]
#[allow(dead_code)] // It only describes what `Problem::render` writes.
pub struct ProblemDocument {
    /// `/problems/<code>`, a page that explains it.
    #[schema(example = "/problems/seat-unavailable")]
    r#type: String,
    /// The same for every occurrence.
    #[schema(example = "A seat is taken")]
    title: String,
    /// The HTTP status.
    #[schema(example = 409)]
    status: u16,
    /// What happened this time.
    detail: Option<String>,
    /// What clients match on.
    code: Code,
    /// Quote it when you report this.
    request_id: String,
    /// With `invalid-request`: the fields that are wrong.
    errors: Option<Vec<FieldError>>,
}

/// A field that is wrong.
#[derive(ToSchema)]
#[allow(dead_code)] // It only describes what `Problem::invalid_fields` writes.
pub struct FieldError {
    /// Its path in the body, or the name of the header or parameter.
    #[schema(example = "seat_ids[0]")]
    field: String,
    /// What is wrong with it.
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_value_is_described_as_what_it_is_in_json() {
        let json = |schema: RefOr<Schema>| serde_json::to_value(schema).unwrap();
        assert_eq!(json(HoldId::schema())["format"], "uuid");
        assert_eq!(json(Timestamp::schema())["format"], "date-time");
        assert_eq!(json(Money::schema())["type"], "integer");
        assert_eq!(
            json(Code::schema())["enum"].as_array().unwrap().len(),
            Code::ALL.len()
        );
        assert_eq!(HoldId::name(), "HoldId");
    }
}
