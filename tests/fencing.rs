//! Why the fence is what it is: each statement that was considered, on a real
//! Postgres (`ONSALE_STORE__URL`, as `scripts/services run` sets it).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test may panic, that is how it fails; it measures real time, and tells it"
)]

#[path = "common/database.rs"]
mod database;

use std::time::{Duration, Instant};

use database::Database;
use onsale::domain::ids::{Epoch, Incarnation, NodeId, ShardId};
use onsale::persistence::StoreError;
use onsale::persistence::lease::{Claim, Ground, NodeState, application_name};
use onsale::persistence::postgres::lease::{Claims, Heart, register};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

/// The fence of every batch: only its own shards, in the order of their
/// numbers, and only those that are still in the batch's epoch.
const FENCE: &str = "SELECT shard.id::int FROM shard \
    JOIN unnest($1::int[], $2::int[]) AS mine (id, epoch) USING (id, epoch) \
    ORDER BY 1 FOR SHARE OF shard";

/// Long enough that a statement that isn't blocked would have ended.
const A_MOMENT: Duration = Duration::from_millis(120);

/// Ten times what it should take.
const LIMIT: Duration = Duration::from_secs(20);

async fn fence(connection: &mut PgConnection, shards: &[(i32, i32)]) -> Vec<i32> {
    let (ids, epochs): (Vec<i32>, Vec<i32>) = shards.iter().copied().unzip();
    let rows = sqlx::query(FENCE).bind(ids).bind(epochs);
    let rows = rows.fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn sell(connection: &mut PgConnection) {
    sqlx::query("INSERT INTO sale VALUES (1)")
        .execute(connection)
        .await
        .unwrap();
}

async fn sales(connection: &mut PgConnection) -> i64 {
    let row = sqlx::query("SELECT count(*) FROM sale")
        .fetch_one(connection)
        .await
        .unwrap();
    row.get(0)
}

/// Three shards in epoch 1, and a table for what a batch writes.
async fn world() -> Database {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    for statement in [
        "CREATE TABLE sale (seat int)",
        "INSERT INTO shard (id, owner, incarnation, epoch) \
         SELECT id, 'a', 1, 1 FROM generate_series(1, 3) AS id",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    database
}

async fn bump(mut connection: PgConnection) -> PgConnection {
    sqlx::query("UPDATE shard SET owner = 'b', epoch = epoch + 1 WHERE id = 2")
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

#[tokio::test]
async fn for_share_blocks_the_taker_until_the_batch_commits() {
    let database = world().await;
    let mut owner = database.connect().await;
    let taker = database.connect().await;
    let mut batch = owner.begin().await.unwrap();
    assert_eq!(fence(&mut batch, &[(1, 1), (2, 1)]).await, [1, 2]);
    let taking = tokio::spawn(bump(taker));
    tokio::time::sleep(A_MOMENT).await;
    assert!(!taking.is_finished(), "the epoch rose under an open batch");
    sell(&mut batch).await;
    batch.commit().await.unwrap();
    let mut taker = taking.await.unwrap();
    // What the taker loads next has it.
    assert_eq!(sales(&mut taker).await, 1);
}

#[tokio::test]
async fn a_zombie_that_waited_for_the_taker_sees_no_shard() {
    let database = world().await;
    let mut zombie = database.connect().await;
    let mut taker = database.connect().await;
    let mut taking = taker.begin().await.unwrap();
    sqlx::query("UPDATE shard SET owner = 'b', epoch = 2 WHERE id = 2")
        .execute(&mut *taking)
        .await
        .unwrap();
    let fencing = tokio::spawn(async move {
        let mut batch = zombie.begin().await.unwrap();
        fence(&mut batch, &[(1, 1), (2, 1), (3, 1)]).await
    });
    tokio::time::sleep(A_MOMENT).await;
    assert!(!fencing.is_finished(), "it must wait for the taker");
    taking.commit().await.unwrap();
    // It evaluates the row again, and leaves out what was lost, only that.
    assert_eq!(fencing.await.unwrap(), [1, 3]);
}

#[tokio::test]
async fn for_key_share_would_not_block_the_taker() {
    let database = world().await;
    let mut owner = database.connect().await;
    let taker = database.connect().await;
    let mut batch = owner.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shard WHERE id = 2 AND epoch = 1 FOR KEY SHARE")
        .fetch_one(&mut *batch)
        .await
        .unwrap();
    let taken = tokio::time::timeout(LIMIT, bump(taker)).await;
    let mut taker = taken.expect("nothing holds it up");
    assert_eq!(sales(&mut taker).await, 0, "the taker has loaded");
    sell(&mut batch).await;
    batch.commit().await.unwrap();
    assert_eq!(sales(&mut taker).await, 1, "a stale sale came after it");
}

#[tokio::test]
async fn insert_where_exists_would_not_fence() {
    let database = world().await;
    let mut owner = database.connect().await;
    let taker = database.connect().await;
    let mut batch = owner.begin().await.unwrap();
    let inserted = sqlx::query(
        "INSERT INTO sale SELECT 1 WHERE EXISTS \
         (SELECT 1 FROM shard WHERE id = 2 AND epoch = 1)",
    )
    .execute(&mut *batch)
    .await
    .unwrap();
    assert_eq!(inserted.rows_affected(), 1);
    let taken = tokio::time::timeout(LIMIT, bump(taker)).await;
    let mut taker = taken.expect("nothing holds it up");
    assert_eq!(sales(&mut taker).await, 0, "the taker has loaded");
    batch.commit().await.unwrap();
    assert_eq!(sales(&mut taker).await, 1, "a stale sale came after it");
}

struct Member {
    life: (NodeId, Incarnation),
    heart: Heart,
    claims: Claims,
}

async fn join(database: &Database, name: &str) -> Member {
    let node = NodeId::new(name);
    let (me, heart, claims) = register(&database.options(), &node, "127.0.0.1:1")
        .await
        .unwrap();
    let mut member = Member {
        life: (me.node, me.incarnation),
        heart,
        claims,
    };
    member.heart.beat(NodeState::Up).await.unwrap();
    member
}

impl Member {
    /// The shards that the database says are its own, with their epochs.
    async fn owned(&mut self) -> Vec<(u16, u32)> {
        let view = self.heart.beat(NodeState::Up).await.unwrap().view;
        let mine = view
            .assigned()
            .filter(|(_, assigned)| assigned.to.as_ref() == Some(&self.life));
        mine.map(|(shard, assigned)| (shard.0, assigned.epoch.0))
            .collect()
    }

    async fn take(
        &mut self,
        from: Option<&(NodeId, Incarnation)>,
        ground: Ground,
        shards: &[(u16, u32)],
    ) -> Vec<(u16, u32)> {
        let claim = Claim {
            from: from.cloned(),
            ground,
            shards: shards
                .iter()
                .map(|(shard, epoch)| (ShardId(*shard), Epoch(*epoch), Epoch(0)))
                .collect(),
        };
        let taken = self.claims.claim(&claim).await.unwrap();
        let mut taken: Vec<(u16, u32)> = taken.iter().map(|(s, e)| (s.0, e.0)).collect();
        taken.sort_unstable();
        taken
    }
}

async fn expire(database: &Database, member: &Member) {
    sqlx::query("UPDATE node SET lease_until = clock_timestamp() - interval '1 s' WHERE id = $1")
        .bind(member.life.0.as_str())
        .execute(&mut database.connect().await)
        .await
        .unwrap();
}

#[tokio::test]
async fn shards_are_taken_once_and_only_from_a_node_whose_lease_has_run_out() {
    let database = Database::create().await;
    let mut a = join(&database, "a").await;
    let mut b = join(&database, "b").await;
    let mut c = join(&database, "c").await;
    let some = [(3, 0), (7, 0), (1023, 0)];
    let taken = a.take(None, Ground::Gone, &some).await;
    assert_eq!(taken, [(3, 1), (7, 1), (1023, 1)]);
    assert_eq!(
        b.take(None, Ground::Gone, &some).await,
        [],
        "they have an owner"
    );
    let a_life = a.life.clone();
    let held = [(3, 1), (7, 1), (1023, 1)];
    assert_eq!(b.take(Some(&a_life), Ground::Expired, &held).await, []);
    expire(&database, &a).await;
    // Nobody has taken anything: the lease is still its own to renew.
    assert_eq!(a.owned().await, held);
    assert_eq!(b.take(Some(&a_life), Ground::Expired, &held).await, []);
    expire(&database, &a).await;
    let taken = b.take(Some(&a_life), Ground::Expired, &held[..2]).await;
    assert_eq!(taken, [(3, 2), (7, 2)]);
    assert_eq!(c.take(Some(&a_life), Ground::Expired, &held[..2]).await, []);
    assert_eq!(a.owned().await, [(1023, 1)], "and is told so");
}

#[tokio::test]
async fn a_restarted_node_takes_its_own_shards_at_once_and_its_past_ends() {
    let database = Database::create().await;
    let mut first = join(&database, "a").await;
    first.take(None, Ground::Gone, &[(5, 0)]).await;
    let mut second = join(&database, "a").await;
    assert_eq!(second.life.1, Incarnation(2));
    let ended = first.heart.beat(NodeState::Up).await;
    assert!(matches!(ended, Err(StoreError::Unreadable(_))), "{ended:?}");
    let taken = second
        .take(Some(&first.life), Ground::Gone, &[(5, 1)])
        .await;
    assert_eq!(taken, [(5, 2)]);
}

#[tokio::test]
async fn shards_are_handed_over_to_a_living_node_alone() {
    let database = Database::create().await;
    let mut a = join(&database, "a").await;
    let mut b = join(&database, "b").await;
    a.take(None, Ground::Gone, &[(5, 0), (6, 0)]).await;
    let both = [(ShardId(5), Epoch(1)), (ShardId(6), Epoch(1))];
    expire(&database, &b).await;
    assert_eq!(a.claims.hand_over(&b.life, &both).await.unwrap(), []);
    b.heart.beat(NodeState::Draining).await.unwrap();
    assert_eq!(a.claims.hand_over(&b.life, &both).await.unwrap(), []);
    b.heart.beat(NodeState::Up).await.unwrap();
    let stale = [(ShardId(5), Epoch(1)), (ShardId(6), Epoch(9))];
    assert_eq!(
        a.claims.hand_over(&b.life, &stale).await.unwrap(),
        [ShardId(5)]
    );
    assert_eq!(b.owned().await, [(5, 2)]);
    assert_eq!(a.owned().await, [(6, 1)]);
}

#[tokio::test]
async fn a_frozen_owner_with_an_open_batch_delays_its_taker_by_two_seconds_at_most() {
    let database = Database::create().await;
    let mut a = join(&database, "a").await;
    let mut b = join(&database, "b").await;
    let all = [(5, 0), (6, 0), (7, 0)];
    a.take(None, Ground::Gone, &all).await;
    // A write lane of `a`, which has fenced a batch and is not heard of again.
    let name = application_name(&a.life.0, a.life.1);
    let options = database.options().application_name(&name);
    let mut lane = PgConnection::connect_with(&options).await.unwrap();
    let mut batch = lane.begin().await.unwrap();
    assert_eq!(fence(&mut batch, &[(6, 1)]).await, [6]);
    expire(&database, &a).await;
    let begun = Instant::now();
    let a_life = a.life.clone();
    let taken = b
        .take(Some(&a_life), Ground::Expired, &[(5, 1), (6, 1), (7, 1)])
        .await;
    assert_eq!(taken, [(5, 2), (7, 2)], "only what is locked is left out");
    assert_eq!(b.claims.terminate(&a_life).await.unwrap(), 1);
    let rest = b.take(Some(&a_life), Ground::Expired, &[(6, 1)]).await;
    assert_eq!(rest, [(6, 2)]);
    assert!(begun.elapsed() < LIMIT, "took {:?}", begun.elapsed());
    println!("the take-over took {:?}", begun.elapsed());
    sqlx::query("SELECT 1")
        .execute(&mut *batch)
        .await
        .expect_err("its connection is gone");
}

#[tokio::test]
async fn durability_is_on_in_the_server_that_is_tested() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let row = sqlx::query("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.get::<&str, _>(0), "on", "{setting}");
    }
}
