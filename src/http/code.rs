//! Every problem code of the HTTP contract: its status, its title and the text
//! of the page at its `type`.
//!
//! A code is a promise to clients: add, never rename, never change a status.

use std::fmt;
use std::str::FromStr;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($name:ident $code:literal $status:ident $title:literal $explanation:literal;)*) => {
        /// What went wrong, as clients match on it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code {
            $(#[doc = $explanation] $name,)*
        }

        impl Code {
            /// All of them, in the order in which they are documented.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The text in `code` and at the end of `type`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status that always goes with it.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The one-line summary in `title`, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What it means and what a client can do, for the page at `type`.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $explanation,)* }
            }
        }
    };
}

codes! {
    // ---- the shape of a request
    BadRequest "bad-request" BAD_REQUEST "The request can't be understood"
        "The request is not well-formed HTTP for this call: its body broke off, or a header that the call needs has no meaning. Nothing was changed.";
    InvalidJson "invalid-json" BAD_REQUEST "The body is not JSON"
        "This call needs a JSON body, and what came is empty, is not JSON or is not UTF-8. Nothing was changed. `detail` says where parsing stopped.";
    InvalidRequest "invalid-request" UNPROCESSABLE_ENTITY "The request has a wrong value"
        "The request is well-formed, but a field is missing, unknown, of the wrong type or out of its range. `errors` lists each field with what is wrong. Nothing was changed; the same request will be refused again.";
    UnsupportedMediaType "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "The body is of an unsupported media type"
        "The body has a Content-Type that this call doesn't take. Send `application/json` (or leave the header out), and for posters an image.";
    PayloadTooLarge "payload-too-large" PAYLOAD_TOO_LARGE "The body is too large"
        "A body may have 64 KiB; venues 8 MiB, batches of check-ins 4 MiB, posters 5 MiB. Nothing was changed.";
    NotFound "not-found" NOT_FOUND "There is nothing here"
        "No call of this API has this path, or what it names does not exist.";
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "The method is not allowed here"
        "The path exists, but not with this method. The `Allow` header lists those that it takes.";
    UpgradeRequired "upgrade-required" UPGRADE_REQUIRED "This is a WebSocket"
        "This path is a WebSocket: open it with a WebSocket client, or with the headers of an upgrade.";
    RequestTimeout "request-timeout" REQUEST_TIMEOUT "The request took too long to arrive"
        "The body did not arrive within the time that is allowed for it. Nothing was changed.";
    AnswerTimeout "answer-timeout" GATEWAY_TIMEOUT "The answer took too long"
        "The server didn't finish within the time of a request. Whether the change was made is not known: read it back, or send the same request again with the same `Idempotency-Key`, which never does it twice.";

    // ---- who is asking
    Unauthorized "unauthorized" UNAUTHORIZED "Sign in first"
        "The call needs an access token (`Authorization: Bearer …`), and there is none, or it is expired, forged or revoked. Refresh it, or sign in again.";
    BadCredentials "bad-credentials" UNAUTHORIZED "The e-mail or the password is wrong"
        "There is no account with this e-mail and this password. Which of the two is wrong is not told.";
    SessionRevoked "session-revoked" UNAUTHORIZED "This session has ended"
        "The refresh token was used before, or its session was ended by signing out or by a change of roles. A token that is used twice may have been stolen, so the whole session ends. Sign in again.";
    Forbidden "forbidden" FORBIDDEN "Your role may not do this"
        "You are signed in, but this call needs a role that you don't have.";

    // ---- keys, limits, dependencies
    IdempotencyKeyRequired "idempotency-key-required" BAD_REQUEST "An Idempotency-Key is required"
        "This call moves money or seats, so that it must be safe to repeat. Send a fresh `Idempotency-Key` of 1 to 255 visible ASCII characters, and the same one when you repeat it.";
    IdempotencyKeyReused "idempotency-key-reused" UNPROCESSABLE_ENTITY "The Idempotency-Key belongs to another request"
        "You sent this key before with another method, path or body. Use a fresh key for a new request.";
    IdempotencyKeyInUse "idempotency-key-in-use" CONFLICT "The first request with this key is still running"
        "A request with this key has not ended yet. Send it again a little later with the same key: you will get its answer.";
    RateLimited "rate-limited" TOO_MANY_REQUESTS "Too many requests"
        "You have asked more often than is allowed. Wait as long as `Retry-After` says; the `RateLimit` headers describe the limit.";
    TooManySockets "too-many-sockets" TOO_MANY_REQUESTS "Too many sockets"
        "You have as many live sockets open as one user may have. All of them show the same place: close one, e.g. a tab of the browser, or use one of those.";
    Overloaded "overloaded" SERVICE_UNAVAILABLE "The server is busy"
        "More requests are under way than can be served in time, so that this one was refused before any work was done. Send it again after `Retry-After`.";
    StoreUnavailable "store-unavailable" SERVICE_UNAVAILABLE "The store is not available"
        "The database can't be written or read at the moment, so that nothing can be promised. Nothing that was acknowledged is lost. Send the request again after `Retry-After`, with the same `Idempotency-Key`.";
    PaymentGatewayUnavailable "payment-gateway-unavailable" SERVICE_UNAVAILABLE "The payment gateway is not available"
        "The payment gateway doesn't answer. Your hold stays until it expires: try again after `Retry-After`, or pay in another way.";
    Internal "internal" INTERNAL_SERVER_ERROR "Something went wrong on our side"
        "The server failed in a way that it should not. The failure has been logged under the `request_id`; quote it when you report this.";

    // ---- accounts
    EmailTaken "email-taken" CONFLICT "There is an account with this e-mail"
        "An account with this e-mail exists. Sign in, or use another address.";
    UserNotFound "user-not-found" NOT_FOUND "There is no such user"
        "No user has this id, or the account was deleted.";

    // ---- operations
    ActorNotFound "actor-not-found" NOT_FOUND "There is no such actor"
        "No timetable, queue or account with this id is in memory now. What nobody asks for is read again when it is needed.";

    // ---- catalogue
    VenueNotFound "venue-not-found" NOT_FOUND "There is no such venue"
        "No venue has this id, or it is another organizer's.";
    PerformanceNotFound "performance-not-found" NOT_FOUND "There is no such performance"
        "No performance has this id, or it was deleted, is a draft, or is another organizer's.";
    TimetableNotFound "timetable-not-found" NOT_FOUND "There is no such timetable"
        "No timetable has this id, or its performance was deleted or is another organizer's.";
    CategoryNotFound "category-not-found" NOT_FOUND "There is no such category"
        "No performance was ever filed under this category, or it was deleted.";
    CategoryInUse "category-in-use" CONFLICT "Performances are filed under the category"
        "Only an empty category can be deleted; `performances` says how many are filed under it. Rename it to another one to file them there.";
    PerformanceHasOrders "performance-has-orders" CONFLICT "Seats have been sold"
        "After the first sale only the title, description, cast, category, poster, closing time, limits and grade prices can be changed.";

    // ---- waiting room
    QueuePassRequired "queue-pass-required" FORBIDDEN "You need a pass of the waiting room"
        "This performance is sold through a waiting room. Join its queue, wait until you are admitted, and send the pass in `Queue-Pass`.";
    QueuePassInvalid "queue-pass-invalid" FORBIDDEN "The pass is not genuine"
        "The pass was not signed by this server.";
    QueuePassNotForYou "queue-pass-not-for-you" FORBIDDEN "The pass is somebody else's"
        "A pass is for the user who waited for it.";
    QueuePassWrongPerformance "queue-pass-wrong-performance" FORBIDDEN "The pass is for another performance"
        "A pass admits to the performance whose queue it came from.";
    QueuePassExpired "queue-pass-expired" FORBIDDEN "The pass has expired"
        "The time to choose seats is over. Join the queue again.";
    QueuePassRevoked "queue-pass-revoked" FORBIDDEN "The pass has ended"
        "The pass ended when you left the queue or finished your purchase.";
    QueueNotFound "queue-not-found" NOT_FOUND "There is no waiting room"
        "This performance has no queue: take seats directly.";
    QueueFull "queue-full" CONFLICT "The queue is full"
        "So many people wait that more would have no chance of a seat. Try again later: the queue opens when seats return.";
    QueueClosed "queue-closed" CONFLICT "The queue is closed"
        "The sale is over, or no seat is left.";
    ProofOfWorkRequired "proof-of-work-required" PRECONDITION_REQUIRED "Solve a puzzle to join"
        "Who joins this queue anew first has to spend a little computing time, so that nobody joins with thousands of accounts. Look for a `nonce` of up to 32 letters, digits, `-` or `_` such that the SHA-256 of the text `challenge.nonce` begins with at least `difficulty` zero bits, with `challenge` and `difficulty` from `proof_of_work`, and send the same request with the header `Proof-Of-Work: challenge.nonce` before `expires_at`. If many come meanwhile, you may be asked once more. A challenge is yours alone, and of this queue alone.";
    ProofOfWorkInvalid "proof-of-work-invalid" FORBIDDEN "The puzzle is not solved"
        "The header `Proof-Of-Work` has no solution of a challenge that this server gave you for this queue: it was changed, was given to somebody else or for another queue, or its hash has too few zero bits. `proof_of_work` has a new challenge.";
    HumanCheckRequired "human-check-required" PRECONDITION_REQUIRED "Show that you are a person"
        "Who joins this queue anew first has to pass the check of the page that sells the tickets. Send the same request with what the check gave you in the header `Human-Check`.";
    HumanCheckFailed "human-check-failed" FORBIDDEN "The check was not passed"
        "What the header `Human-Check` carries was refused by the service that checks it: it is wrong, too old, or was used before. Pass the check again.";
    HumanCheckUnavailable "human-check-unavailable" SERVICE_UNAVAILABLE "The check is not available"
        "The service that tells people from programs doesn't answer, and nobody new is let into this queue without it. Your place, if you have one, is safe. Try again after `Retry-After`.";
    NotInQueue "not-in-queue" NOT_FOUND "You are not in the queue"
        "You never joined this queue, or left it some time ago. Join it first.";
    NothingToExtend "nothing-to-extend" CONFLICT "There is nothing to extend"
        "You have no active pass that this queue's policy lets you extend now.";

    // ---- holds
    SaleNotOpen "sale-not-open" CONFLICT "The sale has not begun"
        "Seats can be taken from `opens_at` on.";
    SaleClosed "sale-closed" CONFLICT "The sale is over"
        "Seats could be taken until `closes_at`, or this date was cancelled.";
    SeatLimitExceeded "seat-limit-exceeded" UNPROCESSABLE_ENTITY "Too many seats"
        "One user may have only so many seats of this date (or grade) at a time, held and bought together. The limit is in the performance's `limits` and `grades`.";
    UnknownSeat "unknown-seat" UNPROCESSABLE_ENTITY "There is no such seat"
        "The seats in `seat_ids` (or the section) don't exist in this venue, or the section is sold in another way. Nothing was held.";
    SeatUnavailable "seat-unavailable" CONFLICT "A seat is taken"
        "The seats in `seat_ids` are held, sold or blocked. Nothing was held: choose others, or ask for the best available.";
    NoSeatsMatch "no-seats-match" CONFLICT "No seats fit the wish"
        "So many seats, side by side if that was asked for, are not free in this grade or section. `available` says how many are. Nothing was held.";
    HoldNotFound "hold-not-found" NOT_FOUND "There is no such hold"
        "No hold of yours has this id. If you have its `hold_token`, send it along: a hold that the server lost is restored while its seats are free.";
    HoldExpired "hold-expired" CONFLICT "The hold has ended"
        "The hold ran out or was released, and its seats went back to the public.";
    HoldAlreadyOrdered "hold-already-ordered" CONFLICT "The hold has been ordered"
        "There is an order for this hold: `order_id`.";

    // ---- orders, payments, coupons
    OrderNotFound "order-not-found" NOT_FOUND "There is no such order"
        "No order of yours has this id.";
    PaymentNotFound "payment-not-found" NOT_FOUND "There is no such payment"
        "No payment of yours has this id.";
    InsufficientBalance "insufficient-balance" PAYMENT_REQUIRED "The balance is too low"
        "The wallet holds less than the order costs. The hold stays: charge the wallet and order again, with a fresh `Idempotency-Key`.";
    CurrencyMismatch "currency-mismatch" UNPROCESSABLE_ENTITY "The currencies differ"
        "The wallet, the coupon and the performance must be in the same currency.";
    AmountMismatch "amount-mismatch" UNPROCESSABLE_ENTITY "The amounts differ"
        "The amount that was confirmed is not that of the payment. Nothing was captured.";
    NotCancellable "not-cancellable" CONFLICT "The order can't be cancelled"
        "It is too late for it (`limits.cancel_until_hours_before`, then `until` says until when it was possible), a ticket has been checked in, or the order is not confirmed: perhaps it, or the seats in `seat_ids`, were cancelled before. Nothing was changed.";
    CouponNotFound "coupon-not-found" NOT_FOUND "There is no such coupon"
        "No coupon has this id.";
    CouponNotUsable "coupon-not-usable" CONFLICT "The coupon can't be used here"
        "The coupon is not yours, has been used, has expired, or is for another performance.";
    CouponSoldOut "coupon-sold-out" CONFLICT "The coupon is gone"
        "All of its stock has been claimed.";
    CouponAlreadyClaimed "coupon-already-claimed" CONFLICT "You have this coupon"
        "Each user can claim a coupon once.";
    CouponNotOpen "coupon-not-open" CONFLICT "The coupon can't be claimed now"
        "It can be claimed between `starts_at` and `ends_at`.";
    CouponHasClaims "coupon-has-claims" CONFLICT "The coupon has been claimed"
        "Its stock can't be less than what was claimed (`claimed`), and what was promised with the claims stays: the discount, and the performance that it is good for. Name, window and a larger stock can change at any time.";

    // ---- tickets, check-in, waitlist
    TicketNotFound "ticket-not-found" NOT_FOUND "There is no such ticket"
        "No ticket of yours has this id. Tickets are issued within 2 s of the order.";
    AlreadyCheckedIn "already-checked-in" CONFLICT "The ticket has been used"
        "Somebody has entered with this ticket; the answer says when and where.";
    WrongTimetable "wrong-timetable" CONFLICT "The ticket is for another date"
        "The ticket is genuine, but for the timetable that the answer names.";
    TicketVoid "ticket-void" GONE "The ticket is void"
        "The seat was cancelled or refunded.";
    TicketInvalid "ticket-invalid" UNPROCESSABLE_ENTITY "The ticket is not genuine"
        "The code was not signed by this server, or is damaged.";
    SeatsAvailable "seats-available" CONFLICT "Seats are available"
        "There is no need to wait: seats that fit the wish can be held now.";
}

/// The text is no problem code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a problem code")]
pub struct NotACode;

impl FromStr for Code {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .ok_or(NotACode)
    }
}

impl Code {
    /// The first sentence of its explanation: the `detail` of an answer that
    /// has no more to say.
    #[must_use]
    pub fn summary(self) -> &'static str {
        let text = self.explanation();
        text.find(". ")
            .and_then(|end| text.get(..=end))
            .unwrap_or(text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_and_reads_back() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert!(
                code.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-')
            );
        }
    }
}
