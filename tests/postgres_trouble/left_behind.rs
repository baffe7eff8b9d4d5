//! A node dies in the midst of what it does for its customers, while what takes part
//! in that lives on at the other node: it is ended there, too, and nobody has to ask
//! again.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::Place;
use crate::common::client::Client;
use crate::common::process::{ServerProcess, sign_up};
use crate::common::{eventually, fresh_key, in_seconds};
use crate::on_purpose::SIGKILL;
use crate::world::{PRICE, World};

/// An order may be open for 30 s, and after that it is looked for every 30 s; with
/// slack.
const TAKEN_UP_LIMIT: Duration = Duration::from_secs(180);

const DEATH_LIMIT: Duration = Duration::from_secs(20);

/// So many tries, and one of two nodes has owned what is looked for.
const TRIES_MAX: usize = 32;

const MONEY: i64 = 10 * PRICE;
const OFF: i64 = 30;

/// The node that is going to die.
struct Other {
    server: ServerProcess,
    _folder: TempDir,
}

impl Other {
    /// It dies of this call.
    async fn dies_of(&mut self, call: crate::common::client::Call) {
        let answer = call.timeout(DEATH_LIMIT).try_send().await;
        assert!(answer.is_err(), "{answer:?}");
        let status = self.server.ended_within(DEATH_LIMIT).await;
        let signal = status.and_then(|status| status.signal());
        assert_eq!(signal, Some(SIGKILL), "{status:?}");
    }

    fn at(&self, user: &Client) -> Client {
        self.server.client().with_token(user.token())
    }
}

impl World {
    async fn joined_by(&self, sabotage: &str) -> Other {
        let folder = TempDir::new().unwrap();
        let settings = self.settings.clone().elsewhere(folder.path());
        let other = Other {
            server: ServerProcess::start(&settings.env("ONSALE_SABOTAGE", sabotage)),
            _folder: folder,
        };
        self.shared_by(2).await;
        other
    }

    /// Whether the node that lives on owns this entity.
    async fn owns(&self, id: &Value) -> bool {
        let id: Uuid = id.as_str().unwrap().parse().unwrap();
        let shard = usize::from(onsale::domain::ids::shard_of(id).0);
        let seen = self
            .server
            .admin()
            .await
            .get("/admin/cluster")
            .ok(200)
            .await;
        let owner = seen["shards"]["owners"][shard].as_u64().unwrap();
        seen["nodes"][usize::try_from(owner).unwrap()]["node_id"] == seen["node_id"]
    }

    /// Somebody with money, whose wallet lives on.
    async fn buyer(&self) -> Client {
        for number in 0..TRIES_MAX {
            let email = format!("left-{number}@example.com");
            let user = sign_up(&self.server.client(), &email, "a long enough password").await;
            if self.owns(&user.get("/me").ok(200).await["user_id"]).await {
                user.charge(MONEY).await;
                return user;
            }
        }
        panic!("every wallet is the other node's");
    }

    /// The claim of `user` on a coupon that lives on.
    async fn claim(&self, user: &Client) -> Value {
        let admin = self.server.admin().await;
        for _ in 0..TRIES_MAX {
            let coupon = json!({
                "name": "off", "discount": { "kind": "amount", "value": OFF }, "stock": 1,
                "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
            });
            let coupon = admin.post("/admin/coupons", &coupon).ok(201).await;
            let id = &coupon["coupon_id"];
            if self.owns(id).await {
                let path = format!("/coupons/{}/claims", id.as_str().unwrap());
                let claim = user.post(&path, &json!({})).ok(201).await;
                return claim["coupon_claim_id"].clone();
            }
        }
        panic!("every coupon is the other node's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_and_claim_of_an_order_whose_node_is_gone_are_free_again_where_they_live_on() {
    let place = Place::fresh().await;
    let world = place.world(&[]).await;
    let mut other = world.joined_by("die-at:order-prepared:1").await;
    let user = world.buyer().await;
    let claim = world.claim(&user).await;
    let wish = json!({ "best_available": { "count": 1 } });
    let hold = user.hold(&world.scene.timetable, &wish).ok(201).await;
    let body = json!({
        "hold_id": hold["hold_id"], "coupon_claim_id": claim, "payment": { "method": "wallet" },
    });
    let order = other.at(&user).order_body(&body).key(&fresh_key());
    other.dies_of(order).await;
    assert_eq!(user.balance().await, MONEY - (PRICE - OFF));
    eventually("what was set aside", TAKEN_UP_LIMIT, || async {
        let claims = user.get("/me/coupons").ok(200).await;
        let is_free = claims["items"][0]["status"] == "available";
        (is_free && user.balance().await == MONEY).then_some(())
    })
    .await;
    world.settings.assert_audit_is_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refund_of_a_cancel_whose_node_is_gone_comes_in_where_its_seats_live_on() {
    let place = Place::fresh().await;
    let world = place.world(&[]).await;
    let timetable = Value::from(world.scene.timetable.clone());
    let mut tries = 0;
    let mut other = loop {
        let mut other = world.joined_by("die-at:cancel-true:1").await;
        if world.owns(&timetable).await {
            break other;
        }
        tries += 1;
        assert!(tries < TRIES_MAX, "the date is always the other node's");
        assert!(other.server.terminate().success());
    };
    let user = world.buyer().await;
    let wish = json!({ "best_available": { "count": 1 } });
    let hold = user.hold(&world.scene.timetable, &wish).ok(201).await;
    let order = user.order(hold["hold_id"].as_str().unwrap()).ok(201).await;
    let path = format!("/orders/{}/cancel", order["order_id"].as_str().unwrap());
    let cancel = other.at(&user).post(&path, &json!({})).key(&fresh_key());
    other.dies_of(cancel).await;
    assert_eq!(user.balance().await, MONEY - PRICE);
    eventually("the refund", TAKEN_UP_LIMIT, || async {
        (user.balance().await == MONEY).then_some(())
    })
    .await;
    world.settings.assert_audit_is_clean();
}
