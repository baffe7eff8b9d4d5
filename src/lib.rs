//! Onsale: the ticketing backend for the minute a sale opens.
//!
//! `ARCHITECTURE.md` is the map of this crate.

pub mod actors;
pub mod app;
pub mod catalogue;
pub mod clock;
pub mod config;
pub mod demo;
pub mod domain;
pub mod http;
pub mod keys;
pub mod persistence;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod telemetry;
pub mod trace;
pub mod verify_draw;
