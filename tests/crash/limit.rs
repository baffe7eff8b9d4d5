//! Customers who buy for all they are worth, and may not have it all.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::Finding;
use crate::world::World;

/// Seats for each; a task wants up to three at a time.
const LIMIT: usize = 10;

const LOAD: Duration = Duration::from_secs(1);

/// What is wrong after each customer has bought in several tasks at once.
async fn greedy(extra: &[(&str, &str)]) -> BTreeSet<Finding> {
    let mut world = World::start_with_limit(extra, false, LIMIT).await;
    let load = world.load();
    tokio::time::sleep(LOAD).await;
    load.end().await;
    let findings = world.settle().await;
    world.settings.assert_audit_is_clean();
    findings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_past_the_limit_however_much_is_asked_at_once() {
    let findings = greedy(&[]).await;
    assert!(findings.is_empty(), "{findings:#?}");
}

/// A server that doesn't look at the limit must be found out, or the test above
/// shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_checks_no_limit_is_found_out() {
    let findings = greedy(&[("ONSALE_SABOTAGE", "no-limit-check")]).await;
    eprintln!("found out: {} findings", findings.len());
    let is_over = |finding: &Finding| matches!(finding, Finding::OverLimit { .. });
    assert!(findings.iter().any(is_over), "the check can't fail");
    assert!(findings.iter().all(is_over), "and nothing else is wrong");
}
