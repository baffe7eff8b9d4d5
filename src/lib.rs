//! Onsale: the ticketing backend for the minute a sale opens.
//!
//! `ARCHITECTURE.md` is the map of this crate.

pub mod domain;
