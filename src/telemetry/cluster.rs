//! What is measured of a node's shards and lease, and of its state as a whole.

use metrics::{counter, gauge};

use super::names::*;
use super::recorder;
use crate::domain::ids::Epoch;
use crate::domain::time::Millis;

/// What a node owns.
#[derive(Clone, Copy, Debug)]
pub struct Owned {
    /// How many shards.
    pub shards: usize,
    /// The highest of their epochs.
    pub epoch: Epoch,
    /// What is left of its lease; `None` where the lock of the data folder is
    /// the lease.
    pub lease_left: Option<Millis>,
}

/// Tells what a node owns.
#[allow(clippy::cast_precision_loss, reason = "metrics")]
pub fn owned(owned: Owned) {
    recorder();
    gauge!(OWNED_SHARDS).set(owned.shards as f64);
    gauge!(SHARD_EPOCH).set(f64::from(owned.epoch.0));
    if let Some(left) = owned.lease_left {
        gauge!(LEASE_REMAINING_SECONDS).set(left.0 as f64 / 1000.0);
    }
}

/// A node with a lease begins: what may go wrong with it has not happened yet.
pub fn lease_began() {
    recorder();
    counter!(LEASE_RENEWAL_FAILURES_TOTAL).increment(0);
}

/// Counts an attempt to renew the lease that failed.
pub fn lease_renewal_failed() {
    counter!(LEASE_RENEWAL_FAILURES_TOTAL).increment(1);
}

/// Counts a shard that this node has begun to own.
pub fn shard_gained() {
    counter!(SHARDS_GAINED_TOTAL).increment(1);
}

/// Counts a shard that this node has ceased to own.
pub fn shard_lost() {
    counter!(SHARDS_LOST_TOTAL).increment(1);
}

/// Counts shards taken from a node that had gone.
pub fn took_over() {
    counter!(TAKE_OVERS_TOTAL).increment(1);
}

/// How far the clock may be off that of the database, in seconds.
pub fn clock_uncertainty(seconds: f64) {
    gauge!(CLOCK_UNCERTAINTY_SECONDS).set(seconds);
}

/// Whether the node can serve, and whether its store takes writes.
pub fn condition(is_ready: bool, is_store_usable: bool) {
    recorder();
    gauge!(READY).set(f64::from(u8::from(is_ready)));
    gauge!(STORE_USABLE).set(f64::from(u8::from(is_store_usable)));
}

/// Which program this is, and the names of what it stands on.
pub fn build_info(store: &'static str, checkpoints: &'static str, bus: &'static str) {
    recorder();
    gauge!(
        BUILD_INFO,
        "version" => env!("CARGO_PKG_VERSION"), "store" => store, "checkpoints" => checkpoints, "bus" => bus,
    )
    .set(1.0);
}
