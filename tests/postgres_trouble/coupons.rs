//! Coupons on Postgres and Redis: the process dies at each step of an order with
//! one, under those who claim one, and as the owner of one, which the other node
//! takes over; with what Redis knew of it, and without.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::Place;
use crate::claims::{MOVING_LIMIT, Person, STOCK, Told, claim, remaining};
use crate::common::client::Client;
use crate::common::process::ServerProcess;
use crate::common::{eventually, fresh_key};
use crate::nodes::TAKE_OVER_LIMIT;
#[cfg(feature = "sabotage")]
use crate::on_purpose::POINTS;
use crate::rounds::rounds;
use crate::world::World;

/// So many claim at a time, so that a kill finds claims of every kind: told,
/// under way, not begun.
const CLAIMING: usize = 16;

/// The kill comes after so many claims that were acknowledged.
const CLAIMS_BEFORE_KILL: Range<u64> = 5..25;

/// Of so many coupons one is the other node's.
const COUPONS_MAX: usize = 64;

/// Whoever waits for an outcome asks again so soon.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What all of them know while they claim.
#[derive(Debug)]
struct Progress {
    /// So many may still begin: until the kill, not as many as there are coupons.
    may_begin: Semaphore,
    /// So many have begun: no more can be claimed.
    begun: AtomicUsize,
    /// So many know that they have one: no fewer are claimed.
    acknowledged: AtomicUsize,
    is_over: AtomicBool,
}

impl Progress {
    /// None has claimed yet; the kill comes after so many that were acknowledged.
    fn new(kill_after: usize) -> Self {
        Self {
            may_begin: Semaphore::new(kill_after + CLAIMING),
            begun: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Looks often: claims take milliseconds, and some are to be under way.
    async fn wait_for(&self, acknowledged: usize) {
        let reached = async {
            while self.acknowledged.load(Ordering::SeqCst) < acknowledged {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(TAKE_OVER_LIMIT, reached).await;
        reached.expect("some claims");
    }
}

/// Reads again and again how many are left; gives what was wrong with it, and how
/// often it was read.
async fn watch(client: Client, coupon: String, progress: Arc<Progress>) -> (Vec<String>, usize) {
    let (mut wrong, mut reads) = (Vec::new(), 0);
    let count = |of: &AtomicUsize| i64::try_from(of.load(Ordering::SeqCst)).unwrap();
    let stock = i64::try_from(STOCK).unwrap();
    let mut last = stock;
    while !progress.is_over.load(Ordering::SeqCst) {
        let least = count(&progress.acknowledged);
        let Some(left) = remaining(&client, &coupon).await else {
            // By a node that is dead, or of one that is.
            tokio::time::sleep(ASK_AGAIN).await;
            continue;
        };
        let most = count(&progress.begun);
        reads += 1;
        if left > last || left < 0 {
            wrong.push(format!("{left} are left after {last}"));
        }
        last = left;
        let claimed = stock - left;
        if claimed < least || claimed > most {
            wrong.push(format!(
                "{claimed} are claimed, of {least} that were acknowledged and {most} asked for"
            ));
        }
    }
    (wrong, reads)
}

/// Asks until the outcome is known.
async fn claim_at_last(client: &Client, coupon: &str, key: &str) -> Told {
    eventually("an outcome of a claim", TAKE_OVER_LIMIT, async || {
        let told = claim(client, coupon, key).await;
        if told == Told::Nothing {
            tokio::time::sleep(ASK_AGAIN).await;
            return None;
        }
        Some(told)
    })
    .await
}

/// What the actor of a coupon says, wherever it is.
async fn observed(admin: &Client, coupon: &str) -> Value {
    let path = format!("/admin/actors/coupon/{coupon}");
    let seen = eventually("a coupon that can be asked", MOVING_LIMIT, async || {
        let answer = admin.get(&path).send().await;
        (answer.status != 503).then_some(answer)
    });
    let seen = seen.await;
    seen.assert_status(200);
    seen.json()
}

/// Of its shard, when it was loaded.
fn epoch(observed: &Value) -> u64 {
    observed["life"]["epoch"].as_u64().unwrap()
}

impl World {
    /// Another node beside the one that the people talk to.
    async fn another_node(&self, folder: &TempDir, broken: &str) -> ServerProcess {
        let settings = self.settings.clone().elsewhere(folder.path());
        let other = ServerProcess::start(&settings.env("ONSALE_SABOTAGE", broken));
        self.balanced().await;
        other
    }

    /// A coupon that is the other node's, and the epoch in which it is.
    async fn coupon_elsewhere(&self, admin: &Client) -> (String, u64) {
        let here = admin.get("/admin/ops").ok(200).await["node"].clone();
        for _ in 0..COUPONS_MAX {
            let coupon = self.coupon().await;
            let seen = observed(admin, &coupon).await;
            if seen["actor"]["node"] != here {
                return (coupon, epoch(&seen));
            }
        }
        panic!("{COUPONS_MAX} coupons, and none is the other node's");
    }

    /// All claim, some at a time, each until they know.
    fn claims_of(
        &self,
        people: &[Person],
        coupon: &str,
        progress: &Arc<Progress>,
    ) -> Vec<JoinHandle<Told>> {
        let room = Arc::new(Semaphore::new(CLAIMING));
        let claims = people.iter().map(|person| {
            let client = self.server.client().with_token(&person.token);
            let (coupon, key) = (coupon.to_owned(), person.key.clone());
            let (progress, room) = (Arc::clone(progress), Arc::clone(&room));
            tokio::spawn(async move {
                let _place = room.acquire().await.unwrap();
                progress.may_begin.acquire().await.unwrap().forget();
                progress.begun.fetch_add(1, Ordering::SeqCst);
                let told = claim_at_last(&client, &coupon, &key).await;
                if matches!(told, Told::Claimed(_)) {
                    progress.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                told
            })
        });
        claims.collect()
    }

    /// They claim a coupon of `other`, which is killed in the midst of it; this node
    /// takes over after `meanwhile`: what is wrong then.
    async fn claims_gone_wrong_in_a_take_over(
        &mut self,
        people: &mut [Person],
        mut other: ServerProcess,
        meanwhile: impl AsyncFn(),
    ) -> Vec<String> {
        let admin = self.server.admin().await;
        let (coupon, before) = self.coupon_elsewhere(&admin).await;
        for person in people.iter_mut() {
            person.key = fresh_key();
        }
        let Range { start, end } = CLAIMS_BEFORE_KILL;
        let kill_after = start + self.random.below(end - start);
        let kill_after = usize::try_from(kill_after).unwrap();
        let progress = Arc::new(Progress::new(kill_after));
        let watchers = [self.server.client(), other.client()].map(|client| {
            let watching = watch(client, coupon.clone(), Arc::clone(&progress));
            tokio::spawn(watching)
        });
        let claims = self.claims_of(people, &coupon, &progress);
        let acknowledged = || progress.acknowledged.load(Ordering::SeqCst);
        progress.wait_for(kill_after).await;
        other.kill();
        eprintln!("killed after {} claims", acknowledged());
        progress.may_begin.add_permits(people.len());
        assert!(acknowledged() < STOCK, "nothing was left to be claimed");
        meanwhile().await;
        for (person, claim) in people.iter_mut().zip(claims) {
            person.told = claim.await.unwrap();
        }
        let mut wrong = self.wrong_after_a_take_over(&coupon, people).await;
        progress.is_over.store(true, Ordering::SeqCst);
        for watcher in watchers {
            let (seen, reads) = watcher.await.unwrap();
            eprintln!("{reads} reads");
            wrong.extend(seen);
        }
        let after = epoch(&observed(&admin, &coupon).await);
        assert!(after > before, "it was not taken over");
        wrong
    }

    /// More or fewer than the stock, somebody with two or without what they were
    /// told, some left.
    async fn wrong_after_a_take_over(&self, coupon: &str, people: &[Person]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut winners = BTreeSet::new();
        for (number, person) in people.iter().enumerate() {
            let client = self.server.client().with_token(&person.token);
            let mine = client.get("/me/coupons?limit=100").ok(200).await;
            let mine = mine["items"].as_array().unwrap().iter();
            let mine = mine.filter(|own| own["coupon_id"] == coupon);
            let has: Vec<&Value> = mine.map(|own| &own["coupon_claim_id"]).collect();
            let told: Vec<&Value> = match &person.told {
                Told::Claimed(claim) => vec![&claim["coupon_claim_id"]],
                Told::SoldOut | Told::Nothing => Vec::new(),
            };
            if has != told {
                wrong.push(format!("{number} was told {told:?} and has {has:?}"));
            }
            winners.extend(has.into_iter().map(Value::to_string));
        }
        let left = remaining(&self.server.client(), coupon).await;
        if winners.len() != STOCK || left != Some(0) {
            wrong.push(format!("{} have one, {left:?} are left", winners.len()));
        }
        wrong
    }

    async fn assert_claims_are_taken_over(&mut self, meanwhile: impl AsyncFn()) {
        let mut people = self.crowd().await;
        for round in 1..=rounds() {
            let folder = TempDir::new().unwrap();
            let other = self.another_node(&folder, "").await;
            let wrong = self
                .claims_gone_wrong_in_a_take_over(&mut people, other, &meanwhile)
                .await;
            assert!(
                wrong.is_empty(),
                "round {round}: {wrong:#?}\n{}",
                self.server.log().join("\n")
            );
            self.settings.assert_audit_is_clean();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_were_acknowledged_survive_kill_9_of_their_node_at_the_other() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    world.assert_claims_are_taken_over(async || ()).await;
}

/// What Redis knows of a coupon only warms what the database decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_survive_kill_9_of_their_node_and_the_loss_of_redis() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    world
        .assert_claims_are_taken_over(async || place.flush_redis().await)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_were_acknowledged_on_postgres_survive_kill_9_and_the_loss_of_redis() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    world
        .assert_claims_survive(rounds(), async || place.flush_redis().await)
        .await;
}

/// A node whose claims are acknowledged and not stored must be found out by the one
/// that takes over, or the tests above show nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_store_claims_is_found_out_at_the_other() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    let mut people = world.crowd().await;
    let folder = TempDir::new().unwrap();
    let other = world.another_node(&folder, "claim-not-stored").await;
    let wrong = world
        .claims_gone_wrong_in_a_take_over(&mut people, other, async || ())
        .await;
    eprintln!("found out: {} findings", wrong.len());
    assert!(!wrong.is_empty(), "the check can't fail");
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_store_claims_in_postgres_is_found_out() {
    let place = Place::fresh().await;
    let broken = [("ONSALE_SABOTAGE", "claim-not-stored")];
    let mut world = place.world(&broken).await;
    world.assert_lost_claims_are_found_out().await;
}

/// Also between Redis and its answer.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_with_a_coupon_on_postgres_is_whole_or_nothing_whenever_the_process_dies() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    let points = [POINTS, &["checkpointed"]].concat();
    world
        .assert_an_order_with_a_coupon_is_whole_or_nothing(&points)
        .await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_on_postgres_gives_the_coupon_back_once_whenever_the_process_dies() {
    let place = Place::fresh().await;
    let mut world = place.world(&[]).await;
    let points = [POINTS, &["checkpointed"]].concat();
    world
        .assert_a_cancel_gives_the_coupon_back_once(&points)
        .await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_the_coupon_of_a_cancel_on_postgres_is_found_out() {
    let place = Place::fresh().await;
    let broken = [("ONSALE_SABOTAGE", "no-coupon-return")];
    let mut world = place.world(&broken).await;
    world.assert_a_kept_coupon_of_a_cancel_is_found_out().await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keeps_the_coupon_of_a_failed_order_on_postgres_is_found_out() {
    let place = Place::fresh().await;
    let broken = [("ONSALE_SABOTAGE", "no-claim-void")];
    let mut world = place.world(&broken).await;
    world
        .assert_a_kept_coupon_of_a_failed_order_is_found_out()
        .await;
}
