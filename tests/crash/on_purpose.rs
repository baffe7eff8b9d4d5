//! Faults on purpose under load (`onsale::sabotage`): the server kills itself, at
//! each point on the way of a decision, and its entities panic.
//!
//! `ONSALE_POINT_ROUNDS` says how often at each (default 1).

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use crate::common::process::ServerProcess;
use crate::rounds::BROKEN_ROUNDS_MAX;
use crate::world::{USERS, World};

/// From memory to the answer, in the order in which a decision passes them.
pub(crate) const POINTS: &[&str] = &[
    "applied",
    "submitted",
    "flush",
    "written",
    "committed",
    "answer",
];

/// It dies at one of these passes: after its start has passed some.
const PASSES: std::ops::Range<u64> = 20..150;

/// How long until then.
const DEATH_LIMIT: Duration = Duration::from_secs(60);

/// After these of its decisions each entity panics.
const PANICS: [u64; 2] = [25, 60];

/// How long the load runs while they do.
const PANICS_LOAD: Duration = Duration::from_secs(3);

/// What `kill -9` sends.
pub(crate) const SIGKILL: i32 = 9;

pub(crate) fn rounds() -> usize {
    std::env::var("ONSALE_POINT_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

impl World {
    /// Starts anew, broken like this besides, and returns when the server has
    /// killed itself at `point` under load.
    pub(crate) async fn load_until_it_dies_at(&mut self, point: &str, broken: &str) -> Instant {
        let passes = PASSES.start + self.random.below(PASSES.end - PASSES.start);
        let sabotage = format!("die-at:{point}:{passes},{broken}");
        eprintln!("{sabotage}");
        let status = self.server.terminate();
        assert!(status.success(), "{status:?}");
        let dying = self.settings.clone().env("ONSALE_SABOTAGE", &sabotage);
        self.server = ServerProcess::start(&dying);
        let load = self.load();
        let status = self.server.ended_within(DEATH_LIMIT).await;
        let died_at = Instant::now();
        load.end().await;
        let signal = status.and_then(|status| status.signal());
        assert_eq!(signal, Some(SIGKILL), "{status:?}");
        died_at
    }

    /// Dies at each of these points, and must have kept every promise each time.
    pub(crate) async fn assert_nothing_is_lost_at(&mut self, points: &[&str]) {
        for round in 1..=rounds() {
            for point in points {
                let died_at = self.load_until_it_dies_at(point, "").await;
                let findings = self.findings_after(died_at).await;
                assert!(
                    findings.is_empty(),
                    "round {round}, {point}: {findings:#?}\n{}",
                    self.server.log().join("\n")
                );
                self.settings.assert_audit_is_clean();
            }
        }
        let acknowledged = self.acknowledged().await;
        eprintln!("{acknowledged} charges and orders acknowledged");
        assert!(acknowledged > points.len(), "too little happened");
    }

    /// What the timetable and all accounts are to do for
    /// [`World::assert_panics_lose_nothing`].
    pub(crate) fn panics() -> String {
        PANICS.map(|seq| format!("panic-at:{seq}")).join(",")
    }

    /// The timetable and all accounts panic, in the midst of each other's orders.
    pub(crate) async fn assert_panics_lose_nothing(&mut self) {
        let load = self.load();
        tokio::time::sleep(PANICS_LOAD).await;
        load.end().await;
        let log = self.server.log();
        let panics = log
            .iter()
            .filter(|line| line.contains("a panic on purpose"));
        let panics = panics.count();
        assert!(panics > USERS, "only {panics} panics");
        let mut findings = self.check_after_restart().await;
        // What waits for its lane when an entity panics is not lost with it.
        findings.extend(self.check_holds(None).await);
        findings.extend(self.settle().await);
        assert!(findings.is_empty(), "{findings:#?}");
        self.settings.assert_audit_is_clean();
    }

    /// A server that answers before it commits, and dies before it does, must be
    /// found out.
    pub(crate) async fn assert_found_out_if_it_acknowledges_too_early(&mut self) {
        for round in 1..=BROKEN_ROUNDS_MAX {
            self.load_until_it_dies_at("flush", "ack-before-commit")
                .await;
            if self.is_found_out(round).await {
                return;
            }
        }
        panic!("nothing was found in {BROKEN_ROUNDS_MAX} rounds: the check can't fail");
    }
    /// A server that writes sales before the money that was set aside for them, and
    /// dies in between, must be found out.
    pub(crate) async fn assert_found_out_if_sales_come_before_their_money(&mut self) {
        for round in 1..=BROKEN_ROUNDS_MAX {
            self.load_until_it_dies_at("committed", "untied").await;
            if self.is_found_out(round).await {
                return;
            }
            if self.settings.run(&["verify"]).status.code() == Some(1) {
                eprintln!("found out by the audit in round {round}");
                return;
            }
        }
        panic!("nothing was found in {BROKEN_ROUNDS_MAX} rounds: the check can't fail");
    }
}
