//! Rounds of load, each ended by `kill -9` at a random moment.

use crate::world::World;

/// So many, and a server whose promises are broken was found out.
#[cfg(feature = "sabotage")]
pub(crate) const BROKEN_ROUNDS_MAX: usize = 10;

/// How often a server is killed.
pub(crate) fn rounds() -> usize {
    std::env::var("ONSALE_CRASH_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

impl World {
    /// Killed again and again, it must have kept every promise each time.
    pub(crate) async fn assert_kills_lose_nothing(&mut self) {
        for round in 1..=rounds() {
            let findings = self.round().await;
            let acknowledged = self.acknowledged().await;
            eprintln!("round {round}: {acknowledged} charges and orders acknowledged so far");
            assert!(
                findings.is_empty(),
                "round {round}: {findings:#?}\n{}",
                self.server.log().join("\n")
            );
            self.settings.assert_audit_is_clean();
        }
        let acknowledged = self.acknowledged().await;
        assert!(
            acknowledged > 10 * rounds(),
            "too little happened: {acknowledged}"
        );
    }

    /// One that was started to answer before it commits must be found out.
    #[cfg(feature = "sabotage")]
    pub(crate) async fn assert_kills_find_it_out(&mut self) {
        for round in 1..=BROKEN_ROUNDS_MAX {
            self.load_and_kill().await;
            if self.is_found_out(round).await {
                return;
            }
        }
        panic!("nothing was found in {BROKEN_ROUNDS_MAX} rounds: the check can't fail");
    }

    /// Starts again after a death. Whether a promise is seen to be broken.
    #[cfg(feature = "sabotage")]
    pub(crate) async fn is_found_out(&mut self, round: usize) -> bool {
        self.server = crate::common::process::ServerProcess::start(&self.settings);
        let findings = self.check_after_restart().await;
        if !findings.is_empty() {
            eprintln!("found out in round {round}: {} findings", findings.len());
            return true;
        }
        self.resolve_unknown().await;
        false
    }
}
