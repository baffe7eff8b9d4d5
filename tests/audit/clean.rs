use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use onsale::persistence::sqlite::SqliteStore;
use onsale::persistence::verify;

on_both_stores!(
    a_store_that_nothing_happened_to_is_clean,
    a_store_written_by_the_real_machines_is_clean_and_every_condition_was_held_against_it,
    unfinished_sagas_and_unread_events_are_pending_and_no_findings,
    who_is_next_but_has_no_pass_yet_is_pending_and_no_finding,
    the_exit_status_tells_clean_from_findings_from_no_audit,
    beside_a_live_writer_every_audit_sees_one_clean_moment,
);

fn pending(report: &Report) -> Vec<u64> {
    report.pending.iter().map(|pending| pending.count).collect()
}

async fn a_store_that_nothing_happened_to_is_clean(place: Place) {
    let world = World::new(place).await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{report}");
}

async fn a_store_written_by_the_real_machines_is_clean_and_every_condition_was_held_against_it(
    place: Place,
) {
    let world = World::busy(place).await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(pending(&report), [0, 0, 0, 0, 0, 0]);
    for check in &report.checks {
        assert!(check.checked > 0, "nothing was checked: {}", check.what);
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["checks"][0]["invariant"], "I1");
}

async fn unfinished_sagas_and_unread_events_are_pending_and_no_findings(place: Place) {
    let mut world = World::busy(place).await;
    let hold = world.hold_at(NOW, false, &[18, 19]);
    world.confirm(false, hold, "order-6").await;
    let order = OrderId(id_of(world.show.entity));
    world.prepare(true, order, Money(PRICE), None);
    world.commit().await;
    let hold = world.hold_at(NOW, true, &[17]);
    let cancelled = world.buy(true, hold, "order-7").await;
    world.cancel_only(true, cancelled.id, &[17], 9).await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(pending(&report), [1, 1, 3, 1, 0, 1]);
    // In the wallet, which the timetable hasn't noted yet.
    world.credit(true, cancelled.id, CancelNo(1), Money(PRICE));
    world.commit().await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(pending(&report), [1, 1, 3, 1, 0, 1]);
}

async fn who_is_next_but_has_no_pass_yet_is_pending_and_no_finding(place: Place) {
    let world = World::with_one_who_is_next(place).await;
    let report = world.audit().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(pending(&report), [0, 0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn a_wal_left_by_a_kill_is_read_without_writing_to_it_sqlite() {
    let world = World::busy(Place::Sqlite).await;
    // What a kill leaves: the database and the WAL, with no use for the index.
    let left = tempfile::tempdir().unwrap();
    let file = left.path().join("onsale.db");
    let wal = left.path().join("onsale.db-wal");
    std::fs::copy(world.file(), &file).unwrap();
    std::fs::copy(world.folder.path().join("onsale.db-wal"), &wal).unwrap();
    // A batch that was being written: it counts for nothing.
    let torn = [std::fs::read(&wal).unwrap(), vec![7; 5_000]].concat();
    std::fs::write(&wal, &torn).unwrap();
    let before = std::fs::read(&file).unwrap();
    assert!(
        before.len() < torn.len(),
        "the changes are in the WAL, not in the database"
    );
    let report = audit_of(&url_of(&file)).await;
    assert!(report.is_clean(), "{report}");
    let transfers = report
        .checks
        .iter()
        .find(|check| check.what.starts_with("a payment"));
    assert_eq!(transfers.map(|check| check.checked), Some(5), "{report}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(std::fs::read(&wal).unwrap(), torn);
    // And the next start finds all of it.
    let store = Store::open(&settings(&url_of(&file))).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().events, 0);
    store.close().await;
    assert!(audit_of(&url_of(&file)).await.is_clean());
}

#[tokio::test]
async fn an_audit_can_not_write_sqlite() {
    let world = World::new(Place::Sqlite).await;
    let mut connection = SqliteStore::open_read_only(&url_of(&world.file()))
        .await
        .unwrap();
    let write = sqlx::query("DELETE FROM wallet")
        .execute(&mut connection)
        .await;
    assert!(write.unwrap_err().to_string().contains("readonly"));
}

async fn the_exit_status_tells_clean_from_findings_from_no_audit(place: Place) {
    let world = World::new(place).await;
    let mut config = onsale::config::Config::load_with(None, []).unwrap().0;
    config.store.url.clone_from(&world.url);
    assert_eq!(verify::run(&config).await, 0);
    world.sql("UPDATE wallet SET balance = balance + 1").await;
    assert_eq!(verify::run(&config).await, 1);
    let (place, _) = world.url.rsplit_once('/').unwrap();
    config.store.url = format!("{place}/missing.db");
    assert_eq!(verify::run(&config).await, 2);
}

#[tokio::test]
async fn what_is_no_store_is_left_as_it_is_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.db");
    let mut config = onsale::config::Config::load_with(None, []).unwrap().0;
    config.store.url = url_of(&missing);
    assert_eq!(verify::run(&config).await, 2);
    assert!(!missing.exists());
    let other = folder.path().join("other.db");
    let text = "not a database, but longer than a header of one hundred bytes. ".repeat(4);
    std::fs::write(&other, &text).unwrap();
    config.store.url = url_of(&other);
    assert_eq!(verify::run(&config).await, 2);
    assert_eq!(std::fs::read_to_string(&other).unwrap(), text);
}

async fn beside_a_live_writer_every_audit_sees_one_clean_moment(place: Place) {
    let mut world = World::new(place).await;
    charge(&mut world.ann, 10_000_000, None);
    world.commit().await;
    let url = world.url.clone();
    let is_over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_over);
    let writer = tokio::spawn(async move {
        let mut rounds = 0u32;
        while !stop.load(Ordering::Relaxed) || rounds < u32::min(20, SEATS) {
            if rounds < SEATS {
                let hold = world.hold(true, &[rounds]);
                world.buy(true, hold, &format!("key {rounds}")).await;
            } else {
                charge(&mut world.bob, 1, None);
                world.commit().await;
            }
            rounds += 1;
        }
        world
    });
    for _ in 0..15 {
        let report = audit_of(&url).await;
        assert!(report.is_clean(), "{report}");
    }
    is_over.store(true, Ordering::Relaxed);
    let world = writer.await.unwrap();
    let report = world.audit().await;
    assert!(report.is_clean(), "{report}");
    let sold = report
        .checks
        .iter()
        .find(|check| check.what.starts_with("a sold seat"));
    assert_eq!(sold.map(|check| check.checked), Some(u64::from(SEATS)));
}
