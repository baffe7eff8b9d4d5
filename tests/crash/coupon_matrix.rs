//! The server kills itself at each step of an order with a coupon, and of its cancel
//! (`onsale::sabotage`): all of it is true then, or nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::client::{Answer, Client};
use crate::common::process::ServerProcess;
use crate::common::{eventually, fresh_key, in_seconds};
use crate::on_purpose::SIGKILL;
use crate::world::{DECIDED_LIMIT, PRICE, World};

/// An order with a coupon has five decisions: the claim and the money are set aside,
/// the seats are sold, the claim is used and the money spent. (The pin of the hold is
/// none.) Its hold is one before them.
const DECISIONS: std::ops::RangeInclusive<u64> = 1..=5;

/// The steps of the sagas themselves.
const ORDER_STEPS: &[&str] = &[
    "order-opened",
    "order-discounted",
    "order-prepared",
    "order-true",
    "order-claimed",
];
/// Those between the commit of the money and that of the sale, where they are not one.
/// (The coupon's is before them.)
const STEPS_OF_TWO_COMMITS: &[&str] = &[
    "order-prepared:1",
    "committed:2",
    "submitted:3",
    "flush:3",
    "written:3",
    "committed:3",
];
const CANCEL_STEPS: &[&str] = &[
    "cancel-asked",
    "cancel-true",
    "cancel-coupon-back",
    "cancel-credited",
];

const PASSED_LIMIT: Duration = Duration::from_secs(3);

/// Off two seats.
const OFF: i64 = 50;
const PAID: i64 = 2 * PRICE - OFF;

/// A buyer with a claim and a hold.
struct Buying {
    buyer: Client,
    body: Value,
    before: i64,
    /// The order before this one, if there is one.
    last: Value,
}

impl Buying {
    async fn order(&self, key: &str) -> Option<Answer> {
        let order = self.buyer.order_body(&self.body).key(key);
        order.timeout(DECIDED_LIMIT).try_send().await.ok()
    }

    async fn claim(&self) -> Value {
        let page = self.buyer.get("/me/coupons").ok(200).await;
        let claims = page["items"].as_array().unwrap().iter();
        let id = &self.body["coupon_claim_id"];
        claims
            .into_iter()
            .find(|c| c["coupon_claim_id"] == *id)
            .unwrap()
            .clone()
    }

    /// The order, once all of it is decided: with all that belongs to it, or with
    /// nothing.
    async fn decided(&self) -> Option<Value> {
        eventually(
            "the whole of an order, or nothing",
            DECIDED_LIMIT,
            async || {
                let page = self.buyer.get("/orders?limit=1").ok(200).await;
                let newest = page["items"][0].clone();
                let claim = self.claim().await;
                let is_it = newest["order_id"] != self.last && newest["status"] == "confirmed";
                let order = Some(newest).filter(|_| is_it);
                let balance = self.buyer.balance().await;
                let (spent, status) = match &order {
                    Some(order) => {
                        assert_eq!(order["amount"], PAID, "{order}");
                        (PAID, "used")
                    }
                    None => (0, "available"),
                };
                let is_whole = balance == self.before - spent && claim["status"] == status;
                is_whole.then_some(order)
            },
        )
        .await
    }
}

impl World {
    fn restart_broken(&mut self, sabotage: &str) {
        let status = self.server.terminate();
        assert!(status.success(), "{status:?}");
        let settings = self.settings.clone().env("ONSALE_SABOTAGE", sabotage);
        self.server = ServerProcess::start(&settings);
    }

    async fn dies_or_is_killed(&mut self) {
        match self.server.ended_within(PASSED_LIMIT).await {
            Some(status) => assert_eq!(status.signal(), Some(SIGKILL), "{status:?}"),
            // The point is not passed as often as that.
            None => self.server.kill(),
        }
        self.server = ServerProcess::start(&self.settings);
    }

    async fn about_to_buy(&self) -> Buying {
        let buyer = self.client(0);
        buyer.charge(10 * PRICE).await;
        let body = json!({
            "name": "C", "discount": { "kind": "amount", "value": OFF }, "stock": 1,
            "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
        });
        let admin = self.server.admin().await;
        let coupon = admin.post("/admin/coupons", &body).ok(201).await;
        let path = format!("/coupons/{}/claims", coupon["coupon_id"].as_str().unwrap());
        let claim = buyer.post(&path, &json!({})).ok(201).await;
        let wish = json!({ "best_available": { "count": 2 } });
        let hold = buyer.hold(&self.scene.timetable, &wish).ok(201).await;
        let before = buyer.balance().await;
        let orders = buyer.get("/orders?limit=1").ok(200).await;
        Buying {
            buyer,
            last: orders["items"][0]["order_id"].clone(),
            body: json!({
                "hold_id": hold["hold_id"], "hold_token": hold["hold_token"],
                "coupon_claim_id": claim["coupon_claim_id"], "payment": { "method": "wallet" },
            }),
            before,
        }
    }

    async fn die_in_an_order_at(&mut self, step: &str) {
        let mut buying = self.about_to_buy().await;
        self.restart_broken(&format!("die-at:{step}"));
        buying.buyer = self.client(0);
        let key = fresh_key();
        let answer = buying.order(&key).await;
        self.dies_or_is_killed().await;
        buying.buyer = self.client(0);
        let order = buying.decided().await;
        eprintln!(
            "{step}: confirmed {}, answered {}",
            order.is_some(),
            answer.as_ref().map_or(0, |answer| answer.status)
        );
        if let Some(answer) = &answer {
            answer.assert_status(201);
            assert!(order.is_some(), "{step}: an acknowledged order is lost");
        }
        match step {
            "order-opened:1"
            | "order-discounted:1"
            | "order-prepared:1"
            | "order-prepared:1,two-commits" => {
                assert!(order.is_none(), "{step}: nothing was sold");
            }
            "order-true:1" | "order-claimed:1" => assert!(order.is_some(), "{step}: it was sold"),
            _ => {}
        }
        self.settings.assert_audit_is_clean();
        // The same request again, twice: it is done once.
        for _ in 0..2 {
            let again = buying.order(&key).await.expect("an answer");
            again.assert_status(201);
            if let Some(order) = &order {
                assert_eq!(again.json()["order_id"], order["order_id"]);
            }
        }
        assert!(buying.decided().await.is_some());
        self.settings.assert_audit_is_clean();
    }

    async fn die_in_a_cancel_with_a_coupon_at(&mut self, step: &str) {
        let mut buying = self.about_to_buy().await;
        let order = buying.order(&fresh_key()).await.expect("an answer");
        order.assert_status(201);
        let order = order.json();
        buying.decided().await;
        self.restart_broken(&format!("die-at:{step}"));
        buying.buyer = self.client(0);
        let (path, key) = (
            format!("/orders/{}/cancel", order["order_id"].as_str().unwrap()),
            fresh_key(),
        );
        let cancel = async |buyer: &Client| {
            let cancel = buyer.post(&path, &json!({})).key(&key);
            cancel.timeout(DECIDED_LIMIT).try_send().await.ok()
        };
        let _ = cancel(&buying.buyer).await;
        self.dies_or_is_killed().await;
        buying.buyer = self.client(0);
        // Again until it is whole: the coupon is usable with the answer.
        let answer = cancel(&buying.buyer).await.expect("an answer");
        answer.assert_status(200);
        assert_eq!(answer.json()["refunded"], PAID);
        assert_eq!(buying.claim().await["status"], "available", "{step}");
        assert_eq!(buying.buyer.balance().await, buying.before);
        self.settings.assert_audit_is_clean();
    }

    /// Dies at each step of an order with a coupon, and at each of these points.
    pub(crate) async fn assert_an_order_with_a_coupon_is_whole_or_nothing(
        &mut self,
        points: &[&str],
    ) {
        for step in ORDER_STEPS {
            self.die_in_an_order_at(&format!("{step}:1")).await;
        }
        for step in STEPS_OF_TWO_COMMITS {
            self.die_in_an_order_at(&format!("{step},two-commits"))
                .await;
        }
        for point in points {
            for nth in DECISIONS {
                self.die_in_an_order_at(&format!("{point}:{nth}")).await;
            }
        }
    }

    /// The same of its cancel.
    pub(crate) async fn assert_a_cancel_gives_the_coupon_back_once(&mut self, points: &[&str]) {
        for step in CANCEL_STEPS {
            self.die_in_a_cancel_with_a_coupon_at(&format!("{step}:1"))
                .await;
        }
        for point in points {
            self.die_in_a_cancel_with_a_coupon_at(&format!("{point}:2"))
                .await;
        }
    }

    /// This server leaves the return of the coupon out: it must be found out.
    pub(crate) async fn assert_a_kept_coupon_of_a_cancel_is_found_out(&mut self) {
        let buying = self.about_to_buy().await;
        let order = buying.order(&fresh_key()).await.expect("an answer").json();
        buying.decided().await;
        let path = format!("/orders/{}/cancel", order["order_id"].as_str().unwrap());
        buying
            .buyer
            .post(&path, &json!({}))
            .key(&fresh_key())
            .ok(200)
            .await;
        assert_eq!(buying.claim().await["status"], "used");
        tokio::time::sleep(PASSED_LIMIT).await;
        assert!(self.server.terminate().success());
        let audit = self.settings.run(&["verify"]);
        assert_eq!(audit.status.code(), Some(1), "the audit finds nothing");
    }

    /// This one forgets to free the claim of an order without money.
    pub(crate) async fn assert_a_kept_coupon_of_a_failed_order_is_found_out(&mut self) {
        let buying = self.about_to_buy().await;
        let seats = json!({ "best_available": { "count": 90, "adjacent": false } });
        let hold = buying.buyer.hold(&self.scene.timetable, &seats);
        let mut body = buying.body.clone();
        body["hold_id"] = hold.ok(201).await["hold_id"].clone();
        body["hold_token"] = Value::Null;
        buying
            .buyer
            .order_body(&body)
            .key(&fresh_key())
            .problem(402, "insufficient-balance")
            .await;
        assert_eq!(buying.claim().await["status"], "reserved");
        self.server.kill();
    }
}
