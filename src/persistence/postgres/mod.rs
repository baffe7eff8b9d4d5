//! Postgres, the truth of several nodes.
//!
//! * [`lease`]: who lives, and who owns which shard.

pub mod lease;
