//! Two at the same time: what a batch that is still open may do to another, on
//! Postgres, where both run.

use std::sync::Arc;
use std::time::Duration;

use onsale::domain::ids::{Activation, EntityId, UserId};
use onsale::persistence::store::commit::Verdict;
use sqlx::PgConnection;

use crate::fixture::{Fixture, Place, connect, user};
use crate::postgres::{LONG, execute};

/// Long enough for a taker that nothing holds up to have taken and loaded.
const A_MOMENT: Duration = Duration::from_millis(500);

/// Returns once so many statements wait for a lock in this database.
pub(crate) async fn until_waiting(beside: &mut PgConnection, count: i64) {
    let waits = async {
        loop {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&mut *beside)
            .await
            .unwrap();
            if waiting >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waits).await.unwrap();
}

async fn take_shard_of(taker: &mut PgConnection, user: UserId) {
    sqlx::query("UPDATE shard SET epoch = epoch + 1 WHERE id = $1")
        .bind(EntityId::from(user).shard().0.cast_signed())
        .execute(taker)
        .await
        .unwrap();
}

async fn lock_row_of(beside: &mut PgConnection, user: UserId) {
    execute(beside, "BEGIN").await;
    sqlx::query("SELECT 1 FROM entity WHERE id = $1 FOR UPDATE")
        .bind(user.0)
        .fetch_one(beside)
        .await
        .unwrap();
}

/// A taker loads as soon as it has the shard: by then a batch of the owner before
/// is committed, or it never will be. Breaks with a fence that locks too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_taker_has_loaded_no_open_batch_changes() {
    let f = Fixture::new(Place::Postgres).await;
    let ann = user();
    f.write(vec![f.charge(ann, 1)]).await;
    let mut beside = connect(&f.settings.url).await;
    let mut taker = connect(&f.settings.url).await;
    // The batch stands still behind this row, its shard locked.
    lock_row_of(&mut beside, ann).await;
    let (store, batch) = (f.store.clone(), Arc::new(vec![f.charge(ann, 2)]));
    let commit = tokio::spawn(async move { store.commit(batch).await });
    until_waiting(&mut taker, 1).await;
    let taking = async {
        take_shard_of(&mut taker, ann).await;
        f.wallet(ann).await
    };
    let letting_go = async {
        tokio::time::sleep(A_MOMENT).await;
        execute(&mut beside, "ROLLBACK").await;
    };
    let (loaded, ()) = tokio::join!(taking, letting_go);
    let verdicts = commit.await.unwrap().unwrap();
    assert_eq!(
        f.wallet(ann).await,
        loaded,
        "{verdicts:?}, after another had taken over"
    );
    assert_eq!(verdicts, [Verdict::Written]);
    f.end().await;
}

/// Two processes believe that the entity is theirs, in the same epoch, and the
/// batch of one is open when that of the other comes. Breaks if the version is
/// looked at before it is changed: both pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_lives_at_the_same_time_one_is_written() {
    let f = Fixture::new(Place::Postgres).await;
    let ann = user();
    f.write(vec![f.charge(ann, 1)]).await;
    let mut beside = connect(&f.settings.url).await;
    let mut watcher = connect(&f.settings.url).await;
    // Both have looked at all there is when they come to change this row.
    lock_row_of(&mut beside, ann).await;
    let life = |number| {
        let mut contribution = f.charge(ann, 2);
        contribution.after.activation = Activation(number);
        f.commit(vec![contribution])
    };
    let letting_go = async {
        until_waiting(&mut watcher, 2).await;
        execute(&mut beside, "ROLLBACK").await;
    };
    let (one, other, ()) = tokio::join!(life(2), life(3), letting_go);
    let mut verdicts = [one.unwrap()[0], other.unwrap()[0]];
    verdicts.sort_by_key(|verdict| *verdict == Verdict::Fenced);
    assert_eq!(verdicts, [Verdict::Written, Verdict::Fenced]);
    assert_eq!(f.wallet(ann).await.1, 2);
    f.end().await;
}
