//! The rules of a sale, and nothing else.
//!
//! Every type here is pure: time enters as a [`time::Timestamp`], identifiers
//! are made by the caller, and nothing reads a clock, a socket, a database or a
//! random number generator. Production, recovery and the simulations in
//! `tests/` therefore run the same code. `tests/purity.rs` greps the imports.

pub mod account;
pub mod best_available;
pub mod coupon;
pub mod decision;
pub mod ids;
pub mod invariant;
pub mod layout;
pub mod money;
pub mod order;
pub mod placement;
pub mod plan;
pub mod proof_of_work;
pub mod queue;
pub mod roles;
pub mod seat;
pub mod time;
pub mod timetable;
