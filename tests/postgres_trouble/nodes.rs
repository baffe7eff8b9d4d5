//! More than one node on the same Postgres.

use std::time::Duration;

use crate::common::eventually;
use crate::world::World;

/// A take-over is promised within 3 s; tests allow ten times that.
pub(crate) const TAKE_OVER_LIMIT: Duration = Duration::from_secs(30);

/// Until a new node has its share.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(30);

impl World {
    /// Returns once two nodes own about half of the shards each.
    pub(crate) async fn balanced(&self) {
        let admin = self.server.admin().await;
        eventually("both nodes own their share", SETTLE_LIMIT, || async {
            let seen = admin.get("/admin/cluster").ok(200).await;
            let nodes = seen["nodes"].as_array().unwrap().iter();
            let living = nodes.filter(|node| node["state"] == "up");
            let shares: Vec<u64> = living.map(|n| n["shards"].as_u64().unwrap()).collect();
            let are_fair = shares.iter().all(|share| (400..=624).contains(share));
            (shares.len() == 2 && are_fair && seen["shards"]["unowned"] == 0).then_some(())
        })
        .await;
    }
}
