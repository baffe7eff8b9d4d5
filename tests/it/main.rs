//! Black-box tests over HTTP, one file a route family.
//!
//! They are written from the HTTP contract and know nothing of the product but
//! how to open it in this process, so that whatever they find, a client would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

#[path = "../common/mod.rs"]
mod common;
mod harness;

mod accounts;
mod actors;
mod admin;
mod cancelled_requests;
mod cancels;
mod catalogue;
mod coupon_orders;
mod coupons;
mod dead_letters;
mod events;
mod holds;
mod idempotency;
mod malformed;
mod ops;
mod orders;
mod overload;
mod program;
mod queue;
mod queue_door;
mod queue_human;
mod queue_live;
mod queue_live_trouble;
mod queue_pass;
mod seats;
mod seats_live;
#[path = "../common/socket.rs"]
mod socket;
mod storm;
mod tickets;
mod upkeep;
mod wallet;
mod wishes;
