//! Tests that must fail on a store that is broken on purpose
//! (`onsale::sabotage`), or they show nothing. Each runs in a process of its own,
//! because that is what is broken.

use std::process::Command;

/// What the tests of these names print, run in a process with this sabotage.
fn run(tests: &[&str], sabotage: &str) -> String {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this)
        .arg("--exact")
        .args(tests)
        .env("ONSALE_SABOTAGE", sabotage)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All of them pass on a whole store, and all of them fail on this one.
fn assert_found_out(switch: &str, tests: &[&str]) {
    let whole = run(tests, "");
    assert!(
        whole.contains(&format!(" {} passed; 0 failed", tests.len())),
        "{whole}"
    );
    let broken = run(tests, switch);
    assert!(
        broken.contains(&format!(" 0 passed; {} failed", tests.len())),
        "{broken}"
    );
}

#[test]
fn a_batch_without_a_fence_is_found_out() {
    assert_found_out(
        "no-fence",
        &[
            "fencing::a_stale_epoch_writes_nothing::postgres",
            "open_batch::what_a_taker_has_loaded_no_open_batch_changes",
            "postgres::a_batch_that_waited_for_the_taker_writes_nothing",
            "postgres::a_taker_waits_for_the_batch_that_is_open",
        ],
    );
}

#[test]
fn a_fence_that_does_not_hold_up_a_taker_is_found_out() {
    assert_found_out(
        "key-share",
        &[
            "open_batch::what_a_taker_has_loaded_no_open_batch_changes",
            "postgres::a_taker_waits_for_the_batch_that_is_open",
        ],
    );
}

#[test]
fn a_look_at_the_version_instead_of_a_conditional_change_is_found_out() {
    assert_found_out(
        "select-not-update",
        &["open_batch::of_two_lives_at_the_same_time_one_is_written"],
    );
}

#[test]
fn rows_that_are_written_whatever_the_version_is_are_found_out() {
    assert_found_out(
        "retry-blindly",
        &[
            "commit::a_contribution_that_does_not_follow_is_fenced::postgres",
            "commit::a_contribution_that_does_not_follow_is_fenced::sqlite_in_memory",
            "commit::a_contribution_that_does_not_follow_is_fenced::sqlite_on_disk",
            "commit::a_repeated_batch_is_applied_once::postgres",
            "commit::a_repeated_batch_is_applied_once::sqlite_in_memory",
            "commit::a_repeated_batch_is_applied_once::sqlite_on_disk",
            "commit::of_two_lives_of_an_entity_one_is_written::postgres",
            "commit::of_two_lives_of_an_entity_one_is_written::sqlite_in_memory",
            "commit::of_two_lives_of_an_entity_one_is_written::sqlite_on_disk",
        ],
    );
}
