//! One of two nodes kills itself at each of the points at which least is known of
//! its last batch; the other, which the customers talk to, takes over. Their own
//! history is checked while the dead node stays dead.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use tempfile::TempDir;

use crate::Place;
use crate::common::eventually;
use crate::common::process::ServerProcess;
use crate::nodes::{SETTLE_LIMIT, TAKE_OVER_LIMIT};
use crate::on_purpose::{SIGKILL, rounds};
use crate::world::{USERS, World};

/// Every entity passes these, whichever the second node owns.
const POINTS: &[&str] = &["written", "committed", "answer"];

/// At which pass: a node that has joined passes few without customers.
const PASSES: std::ops::Range<u64> = 20..80;

/// A node that hasn't died by then owns nothing that is used. Not longer: each
/// customer has 4,096 idempotency keys a day.
const DEATH_LIMIT: Duration = Duration::from_secs(3);

/// How long customers go on after the death.
const AFTERMATH: Duration = Duration::from_millis(500);

impl World {
    /// Returns once so many nodes live, and own all there is.
    pub(crate) async fn shared_by(&self, count: usize) {
        let admin = self.server.admin().await;
        eventually("every node owns its share", SETTLE_LIMIT, || async {
            let seen = admin.get("/admin/cluster").ok(200).await;
            let nodes = seen["nodes"].as_array().unwrap().iter();
            let owning = nodes.filter(|node| node["state"] == "up" && node["shards"] != 0);
            let is_settled = owning.count() == count && seen["shards"]["unowned"] == 0;
            is_settled.then_some(())
        })
        .await;
    }

    /// A second node joins, and dies at `point` under load. `false` if it turned
    /// out to own nothing that the customers use: that is up to its id.
    async fn another_dies_at(&mut self, point: &str) -> bool {
        let passes = PASSES.start + self.random.below(PASSES.end - PASSES.start);
        let sabotage = format!("die-at:{point}:{passes}");
        eprintln!("{sabotage}");
        let folder = TempDir::new().unwrap();
        let settings = self.settings.clone().elsewhere(folder.path());
        let mut other = ServerProcess::start(&settings.env("ONSALE_SABOTAGE", &sabotage));
        self.shared_by(2).await;
        let load = self.load();
        let status = other.ended_within(DEATH_LIMIT).await;
        tokio::time::sleep(AFTERMATH).await;
        load.end().await;
        let Some(status) = status else {
            assert!(other.terminate().success());
            return false;
        };
        assert_eq!(status.signal(), Some(SIGKILL), "{status:?}");
        true
    }

    /// Returns once everything is served again.
    async fn taken_over(&self) {
        for user in 0..USERS {
            let client = self.client(user);
            let paths = [
                "/wallet".to_owned(),
                "/me/holds".to_owned(),
                format!("/timetables/{}/seats", self.scene.timetable),
            ];
            for path in &paths {
                eventually("it is served again", TAKE_OVER_LIMIT, || async {
                    let answer = client.get(path).send().await;
                    (answer.status == 200).then_some(())
                })
                .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_acknowledged_survives_its_death_on_purpose_at_the_other_node() {
    for round in 1..=rounds() {
        let place = Place::fresh().await;
        let mut world = place.world(&[]).await;
        for point in POINTS {
            while !world.another_dies_at(point).await {}
            world.taken_over().await;
            let mut findings = world.check_after_restart().await;
            // All were in Redis before they were acknowledged.
            findings.extend(world.check_holds(None).await);
            findings.extend(world.settle().await);
            assert!(
                findings.is_empty(),
                "round {round}, {point}: {findings:#?}\n{}",
                world.server.log().join("\n")
            );
            world.settings.assert_audit_is_clean();
        }
        eprintln!("{} acknowledged", world.acknowledged().await);
    }
}
