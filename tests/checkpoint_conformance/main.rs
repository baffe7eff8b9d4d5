//! The promises of `persistence::checkpoint`, sentence by sentence, kept by
//! every implementation: in memory, on one Redis server, on a Redis cluster.
//!
//! The servers are those of `scripts/services`; each test has keys of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

mod queues;

use onsale::domain::ids::{
    Activation, EntityId, EntityKind, Epoch, SHARDS, Seq, ShardId, Stamp, shard_of,
};
use onsale::persistence::checkpoint::{
    Base, Checkpoint, Checkpoints, Delta, MemoryCheckpoints, Outcome, RedisCheckpoints, Row, RowId,
};
use redis::AsyncCommands as _;
use uuid::Uuid;

/// Checkpoints, and the means to harm them.
struct Place {
    checkpoints: Checkpoints,
    servers: Option<Servers>,
}

struct Servers {
    urls: Vec<String>,
    prefix: String,
}

fn servers(variable: &str) -> Place {
    let Ok(urls) = std::env::var(variable) else {
        panic!("{variable} isn't set: run this by `scripts/services run cargo test`");
    };
    let urls: Vec<String> = urls.split([',', ' ']).map(str::to_owned).collect();
    let prefix = format!("test-{}", &Uuid::new_v4().simple().to_string()[..16]);
    let redis = RedisCheckpoints::new(&urls, &prefix).unwrap();
    Place {
        checkpoints: Checkpoints::Redis(Box::new(redis)),
        servers: Some(Servers { urls, prefix }),
    }
}

fn in_memory() -> Place {
    Place {
        checkpoints: Checkpoints::Memory(MemoryCheckpoints::default()),
        servers: None,
    }
}

impl Place {
    /// Everything is lost, as by FLUSHALL; of the servers, what is ours.
    async fn flush(&self) {
        match (&self.checkpoints, &self.servers) {
            (Checkpoints::Memory(memory), _) => memory.clear(),
            (Checkpoints::Redis(_), Some(servers)) => servers.forget_keys().await,
            (Checkpoints::Redis(_), None) => unreachable!("servers have addresses"),
        }
    }
}

impl Servers {
    /// A connection to each server.
    async fn each(&self) -> Vec<redis::aio::MultiplexedConnection> {
        let mut all = Vec::new();
        for url in &self.urls {
            let client = redis::Client::open(url.as_str()).unwrap();
            all.push(client.get_multiplexed_async_connection().await.unwrap());
        }
        all
    }

    async fn forget_keys(&self) {
        for mut server in self.each().await {
            let keys: Vec<String> = server.keys(format!("{}:*", self.prefix)).await.unwrap();
            for key in keys {
                // A replica refuses, and forgets with its master.
                let _: redis::RedisResult<()> = server.del(key).await;
            }
        }
    }

    async fn forget_scripts(&self) {
        for mut server in self.each().await {
            let flush = redis::cmd("SCRIPT").arg("FLUSH").to_owned();
            let _: redis::RedisResult<()> = flush.query_async(&mut server).await;
        }
    }
}

/// While the cluster fails over, the other tests' calls would time out.
static STEADY: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Returns once all masters of the cluster answer: just after its start, or a
/// fail-over, some take longer than a call may.
async fn steady_cluster() {
    let place = servers("ONSALE_TEST_REDIS_CLUSTER");
    let fences: Vec<_> = (0..SHARDS)
        .map(|shard| (ShardId(shard), Epoch(1)))
        .collect();
    let begun = std::time::Instant::now();
    let mut answered = 0;
    while answered < 3 {
        assert!(begun.elapsed().as_secs() < 60, "the cluster isn't steady");
        match place.checkpoints.raise_fences(&fences).await {
            Ok(_) => answered += 1,
            Err(_) => answered = 0,
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// A test of each implementation.
macro_rules! kept_by_all {
    ($($(#[$doc:meta])* $promise:ident;)*) => {$(
        mod $promise {
            #[tokio::test]
            async fn in_memory() {
                super::promises::$promise(super::in_memory()).await;
            }

            #[tokio::test]
            async fn on_redis() {
                super::promises::$promise(super::servers("ONSALE_REDIS__URL")).await;
            }

            #[tokio::test]
            async fn on_a_redis_cluster() {
                let _steady = super::STEADY.read().await;
                super::steady_cluster().await;
                super::promises::$promise(super::servers("ONSALE_TEST_REDIS_CLUSTER")).await;
            }
        }
    )*};
}

kept_by_all! {
    what_was_written_is_read_with_the_version_of_each_row;
    a_lower_epoch_than_the_fence_is_refused_and_writes_nothing;
    a_write_never_makes_a_fence;
    a_contribution_at_or_below_upto_is_skipped;
    a_write_that_misses_its_base_writes_nothing;
    a_whole_write_replaces_what_there_was;
    a_later_life_of_an_entity_ends_the_writes_of_an_earlier_one;
    fences_are_raised_never_lowered_and_told;
    after_everything_was_lost_a_raised_fence_and_a_whole_write_begin_anew;
    only_rows_above_the_watermark_say_more;
    the_entities_of_a_shard_are_known;
    a_large_checkpoint_comes_back_whole;
    many_entities_in_one_write_have_an_outcome_each;
    a_server_that_forgot_the_scripts_learns_them_again;
    a_queue_comes_back_with_all_that_the_database_lacks;
}

/// A replica takes over from its master: writes are refused or lost for a
/// moment, then go on, and the fence and what was written are still there.
#[tokio::test]
async fn a_cluster_that_fails_over_goes_on_with_its_fences_and_rows() {
    let _alone = STEADY.write().await;
    steady_cluster().await;
    let place = servers("ONSALE_TEST_REDIS_CLUSTER");
    let (c, e) = (&place.checkpoints, entity());
    raise(c, e, 5).await;
    let first = stamp(5, 1, 1);
    write(c, delta(e, Base::Whole, first, &["a=1"])).await;
    let mut failed_over = 0;
    for mut server in place.servers.as_ref().unwrap().each().await {
        // Refused by masters.
        let failover = redis::cmd("CLUSTER").arg("FAILOVER").to_owned();
        let done: redis::RedisResult<()> = failover.query_async(&mut server).await;
        failed_over += u32::from(done.is_ok());
    }
    assert!(failed_over > 0, "no server is a replica");
    let begun = std::time::Instant::now();
    for seq in 2..30 {
        let next = delta(
            e,
            Base::After(stamp(5, 1, seq - 1)),
            stamp(5, 1, seq),
            &["b=1"],
        );
        loop {
            match c.write(std::slice::from_ref(&next)).await {
                Ok(outcomes) => break assert_eq!(outcomes, [Outcome::Written]),
                Err(error) if begun.elapsed().as_secs() > 60 => panic!("{error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let late = delta(e, Base::Whole, stamp(4, 9, 99), &["z=1"]);
    let refused = c.write(&[late]).await.unwrap();
    assert_eq!(refused, [Outcome::Fenced]);
    assert_eq!(read(c, e).await.unwrap().rows.len(), 2);
    steady_cluster().await;
}

fn entity() -> EntityId {
    EntityId {
        kind: EntityKind::Timetable,
        id: Uuid::now_v7(),
    }
}

fn stamp(epoch: u32, activation: u32, seq: u64) -> Stamp {
    Stamp {
        epoch: Epoch(epoch),
        activation: Activation(activation),
        seq: Seq(seq),
    }
}

fn row_id(name: &str) -> RowId {
    RowId(name.as_bytes().into())
}

/// A write of rows: `+name=body` puts, `-name` removes.
fn delta(entity: EntityId, base: Base, after: Stamp, rows: &[&str]) -> Delta {
    let mut delta = Delta::new(entity, base, after);
    for row in rows {
        match row.strip_prefix('-') {
            Some(name) => delta.remove(row_id(name)),
            None => {
                let (name, body) = row.split_once('=').unwrap();
                delta.put(row_id(name), body.as_bytes().to_vec());
            }
        }
    }
    delta
}

fn row(name: &str, stamp: Stamp, body: &str) -> Row {
    Row {
        id: row_id(name),
        stamp,
        body: body.as_bytes().to_vec(),
    }
}

async fn raise(checkpoints: &Checkpoints, entity: EntityId, epoch: u32) {
    let shards = [(entity.shard(), Epoch(epoch))];
    checkpoints.raise_fences(&shards).await.unwrap();
}

async fn write(checkpoints: &Checkpoints, delta: Delta) -> Outcome {
    checkpoints.write(&[delta]).await.unwrap()[0]
}

async fn read(checkpoints: &Checkpoints, entity: EntityId) -> Option<Checkpoint> {
    checkpoints.read(entity).await.unwrap()
}

mod promises {
    use super::*;

    pub(super) use crate::queues::a_queue_comes_back_with_all_that_the_database_lacks;

    pub(super) async fn what_was_written_is_read_with_the_version_of_each_row(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        assert_eq!(read(c, e).await, None);
        raise(c, e, 3).await;
        let first = stamp(3, 1, 10);
        let done = write(c, delta(e, Base::Whole, first, &["a=1", "b=2"])).await;
        assert_eq!(done, Outcome::Written);
        let second = stamp(3, 1, 12);
        let done = write(
            c,
            delta(e, Base::After(first), second, &["b=3", "c=", "-a"]),
        )
        .await;
        assert_eq!(done, Outcome::Written);
        let mut found = read(c, e).await.unwrap();
        found.rows.sort_by(|x, y| x.id.cmp(&y.id));
        assert_eq!(found.upto, second);
        assert_eq!(found.rows, [row("b", second, "3"), row("c", second, "")]);
        let third = stamp(3, 1, 13);
        assert_eq!(
            write(c, delta(e, Base::After(second), third, &["d=4"])).await,
            Outcome::Written
        );
        let found = read(c, e).await.unwrap();
        assert_eq!(found.upto, third);
        assert_eq!(
            found.rows.last(),
            Some(&row("d", third, "4")),
            "oldest first"
        );
        assert_eq!(found.rows.len(), 3);
    }

    pub(super) async fn a_lower_epoch_than_the_fence_is_refused_and_writes_nothing(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 4).await;
        let mine = stamp(4, 1, 1);
        assert_eq!(
            write(c, delta(e, Base::Whole, mine, &["a=1"])).await,
            Outcome::Written
        );
        raise(c, e, 5).await;
        let after = stamp(4, 1, 2);
        for base in [Base::After(mine), Base::Whole] {
            let late = delta(e, base, after, &["a=2"]);
            assert_eq!(write(c, late).await, Outcome::Fenced);
        }
        assert_eq!(read(c, e).await.unwrap().rows, [row("a", mine, "1")]);
    }

    pub(super) async fn a_write_never_makes_a_fence(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        let whole = delta(e, Base::Whole, stamp(9, 1, 1), &["a=1"]);
        assert_eq!(write(c, whole).await, Outcome::NoFence);
        assert_eq!(read(c, e).await, None);
        assert_eq!(c.fences(&[e.shard()]).await.unwrap(), [None]);
    }

    pub(super) async fn a_contribution_at_or_below_upto_is_skipped(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 1).await;
        let (first, second) = (stamp(1, 1, 5), stamp(1, 1, 8));
        write(c, delta(e, Base::Whole, first, &["a=1"])).await;
        let next = delta(e, Base::After(first), second, &["a=2"]);
        assert_eq!(write(c, next.clone()).await, Outcome::Written);
        // Its answer was lost, so it is sent again.
        assert_eq!(write(c, next).await, Outcome::Written);
        // One that was overtaken comes late.
        let late = delta(e, Base::Whole, first, &["z=9"]);
        assert_eq!(write(c, late).await, Outcome::Written);
        let found = read(c, e).await.unwrap();
        assert_eq!(found.upto, second);
        assert_eq!(found.rows, [row("a", second, "2")]);
    }

    pub(super) async fn a_write_that_misses_its_base_writes_nothing(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 1).await;
        let lost = delta(e, Base::After(stamp(1, 1, 3)), stamp(1, 1, 4), &["a=1"]);
        assert_eq!(write(c, lost).await, Outcome::NoBase);
        assert_eq!(read(c, e).await, None);
        let first = stamp(1, 1, 5);
        write(c, delta(e, Base::Whole, first, &["a=1"])).await;
        let gap = delta(e, Base::After(stamp(1, 1, 6)), stamp(1, 1, 7), &["b=1"]);
        assert_eq!(write(c, gap).await, Outcome::NoBase);
        assert_eq!(read(c, e).await.unwrap().rows, [row("a", first, "1")]);
    }

    pub(super) async fn a_whole_write_replaces_what_there_was(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 1).await;
        write(c, delta(e, Base::Whole, stamp(1, 1, 5), &["a=1", "b=1"])).await;
        let after = stamp(1, 1, 6);
        write(c, delta(e, Base::Whole, after, &["c=1"])).await;
        assert_eq!(read(c, e).await.unwrap().rows, [row("c", after, "1")]);
    }

    pub(super) async fn a_later_life_of_an_entity_ends_the_writes_of_an_earlier_one(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 1).await;
        let old = stamp(1, 1, 50);
        write(c, delta(e, Base::Whole, old, &["a=1"])).await;
        // Loaded again, it goes on at a lower number, which is newer all the same.
        let new = stamp(1, 2, 20);
        assert_eq!(
            write(c, delta(e, Base::Whole, new, &["a=2"])).await,
            Outcome::Written
        );
        let late = delta(e, Base::After(old), stamp(1, 1, 51), &["a=3"]);
        assert_eq!(write(c, late).await, Outcome::Fenced);
        let found = read(c, e).await.unwrap();
        assert_eq!((found.upto, found.rows), (new, vec![row("a", new, "2")]));
    }

    pub(super) async fn fences_are_raised_never_lowered_and_told(place: Place) {
        let c = &place.checkpoints;
        let shards: Vec<ShardId> = (0..SHARDS).map(ShardId).collect();
        assert_eq!(c.fences(&shards).await.unwrap(), vec![None; shards.len()]);
        let at = |epoch| -> Vec<_> { shards.iter().map(|s| (*s, Epoch(epoch))).collect() };
        let all = |epoch| vec![Epoch(epoch); shards.len()];
        assert_eq!(c.raise_fences(&at(7)).await.unwrap(), all(7));
        assert_eq!(
            c.raise_fences(&at(6)).await.unwrap(),
            all(7),
            "never lowered"
        );
        assert_eq!(c.raise_fences(&at(12)).await.unwrap(), all(12));
        let told = c.fences(&shards).await.unwrap();
        assert!(told.iter().all(|fence| *fence == Some(Epoch(12))));
    }

    pub(super) async fn after_everything_was_lost_a_raised_fence_and_a_whole_write_begin_anew(
        place: Place,
    ) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 2).await;
        let (first, second, third) = (stamp(2, 1, 5), stamp(2, 1, 6), stamp(2, 1, 7));
        write(c, delta(e, Base::Whole, first, &["a=1"])).await;
        place.flush().await;
        let next = || delta(e, Base::After(first), second, &["b=1"]);
        assert_eq!(write(c, next()).await, Outcome::NoFence);
        assert_eq!(read(c, e).await, None);
        raise(c, e, 2).await;
        assert_eq!(
            write(c, next()).await,
            Outcome::NoBase,
            "half would be worse than nothing"
        );
        let whole = delta(e, Base::Whole, third, &["a=1", "b=1"]);
        assert_eq!(write(c, whole).await, Outcome::Written);
        assert_eq!(read(c, e).await.unwrap().rows.len(), 2);
    }

    pub(super) async fn only_rows_above_the_watermark_say_more(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 1).await;
        let versions = [stamp(1, 1, 5), stamp(1, 1, 6), stamp(1, 1, 7)];
        write(c, delta(e, Base::Whole, versions[0], &["a=1"])).await;
        write(c, delta(e, Base::After(versions[0]), versions[1], &["b=1"])).await;
        write(c, delta(e, Base::After(versions[1]), versions[2], &["c=1"])).await;
        let mut above = Vec::new();
        for watermark in [stamp(1, 1, 4), versions[1], versions[2], stamp(2, 1, 1)] {
            above.push(read(c, e).await.unwrap().above(watermark).len());
        }
        assert_eq!(above, [3, 1, 0, 0]);
    }

    pub(super) async fn the_entities_of_a_shard_are_known(place: Place) {
        let c = &place.checkpoints;
        let (one, other) = (entity(), entity());
        for e in [one, other] {
            raise(c, e, 1).await;
            write(c, delta(e, Base::Whole, stamp(1, 1, 1), &["a=1"])).await;
        }
        assert_eq!(shard_of(one.id), one.shard());
        assert!(c.entities(&[one.shard()]).await.unwrap().contains(&one));
        let both = c.entities(&[one.shard(), other.shard()]).await.unwrap();
        assert!(both.contains(&one) && both.contains(&other));
        assert_eq!(c.entities(&[]).await.unwrap(), []);
    }

    pub(super) async fn a_large_checkpoint_comes_back_whole(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 1).await;
        let mut whole = Delta::new(e, Base::Whole, stamp(1, 1, 1));
        // More arguments than Lua can have on its stack.
        for number in 0..20_000u32 {
            whole.put(RowId(number.to_be_bytes()[..].into()), vec![7; 60]);
        }
        assert_eq!(write(c, whole).await, Outcome::Written);
        assert_eq!(read(c, e).await.unwrap().rows.len(), 20_000);
    }

    pub(super) async fn many_entities_in_one_write_have_an_outcome_each(place: Place) {
        let c = &place.checkpoints;
        let entities: Vec<EntityId> = (0..300).map(|_| entity()).collect();
        let shards: Vec<_> = entities.iter().map(|e| (e.shard(), Epoch(1))).collect();
        c.raise_fences(&shards).await.unwrap();
        // A fence above the others' epoch; a shard may have several of them.
        let fenced = entities[7].shard();
        c.raise_fences(&[(fenced, Epoch(2))]).await.unwrap();
        let deltas: Vec<Delta> = entities
            .iter()
            .map(|e| delta(*e, Base::Whole, stamp(1, 1, 1), &["a=1"]))
            .collect();
        let outcomes = c.write(&deltas).await.unwrap();
        for (e, outcome) in entities.iter().zip(outcomes) {
            let expected = match e.shard() == fenced {
                true => Outcome::Fenced,
                false => Outcome::Written,
            };
            assert_eq!(outcome, expected);
        }
    }

    pub(super) async fn a_server_that_forgot_the_scripts_learns_them_again(place: Place) {
        let (c, e) = (&place.checkpoints, entity());
        raise(c, e, 1).await;
        for seq in 1..4 {
            if let Some(servers) = &place.servers {
                servers.forget_scripts().await;
            }
            let whole = delta(e, Base::Whole, stamp(1, 1, seq), &["a=1"]);
            assert_eq!(write(c, whole).await, Outcome::Written);
        }
    }
}
