//! What operators see, held to what a real server under load exports: the
//! documentation of the metrics, the rules, the dashboards, the traces.
//!
//! Needs `ONSALE_STORE__URL`, `ONSALE_REDIS__URL` and `ONSALE_KAFKA__BROKERS`, as
//! `scripts/services run` sets them; `cargo test --test ops embedded` does without.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

mod busy;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/database.rs"]
mod database;
mod exported;
mod exposition;
mod listener;
mod named;
#[path = "../common/socket.rs"]
mod socket;
mod traces;
