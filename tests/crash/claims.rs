//! Claims of a coupon across `kill -9`: exactly the stock, one each.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::client::Client;
use crate::common::process::{ServerProcess, sign_up};
use crate::common::{fresh_key, in_seconds};
use crate::world::World;

const STOCK: usize = 60;

/// Who claims.
const PEOPLE: usize = 90;

/// The kill comes so long after the first claim at the latest.
const KILL_WITHIN_MS: u64 = 400;

/// What one of them was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Claimed(Value),
    SoldOut,
    Nothing,
}

struct Person {
    token: String,
    key: String,
    told: Told,
}

impl World {
    async fn coupon(&self) -> String {
        let body = json!({
            "name": "C", "discount": { "kind": "percent", "value": 10 }, "stock": STOCK,
            "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
        });
        let admin = self.server.admin().await;
        let made = admin.post("/admin/coupons", &body).ok(201).await;
        made["coupon_id"].as_str().unwrap().to_owned()
    }

    async fn people(&self, round: usize) -> Vec<Person> {
        let mut people = Vec::new();
        for number in 0..PEOPLE {
            let email = format!("claimer-{round}-{number}@example.com");
            let person = sign_up(&self.server.client(), &email, "a long enough password").await;
            people.push(Person {
                token: person.token().to_owned(),
                key: fresh_key(),
                told: Told::Nothing,
            });
        }
        people
    }

    async fn remaining(&self, coupon: &str) -> Option<i64> {
        let client = self.server.client();
        let page = client.get("/coupons?limit=100").try_send().await.ok()?;
        let page = page.json();
        let listed = page["items"].as_array()?.iter();
        let shown = listed.into_iter().find(|c| c["coupon_id"] == coupon)?;
        shown["remaining"].as_i64()
    }

    /// All claim at once, each under a key of their own, until the server dies.
    async fn claim_and_kill(&mut self, coupon: &str, people: &mut [Person]) {
        let tasks: Vec<_> = people
            .iter()
            .map(|person| {
                let client = self.server.client().with_token(&person.token);
                let (coupon, key) = (coupon.to_owned(), person.key.clone());
                tokio::spawn(async move { claim(&client, &coupon, &key).await })
            })
            .collect();
        let wait = self.random.below(KILL_WITHIN_MS);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        self.server.kill();
        for (person, task) in people.iter_mut().zip(tasks) {
            person.told = task.await.unwrap();
        }
        self.server = ServerProcess::start(&self.settings);
    }

    /// What is wrong after the restart: a claim that was acknowledged and is lost
    /// or another, or more of them than there are.
    async fn wrong_claims(&self, coupon: &str, people: &[Person]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut last = i64::try_from(STOCK).unwrap();
        let mut winners = BTreeSet::new();
        for (number, person) in people.iter().enumerate() {
            let client = self.server.client().with_token(&person.token);
            let told = claim(&client, coupon, &person.key).await;
            let kept = match &person.told {
                Told::Claimed(_) | Told::SoldOut => told == person.told,
                Told::Nothing => told != Told::Nothing,
            };
            if !kept {
                wrong.push(format!("{number}: {:?}, now {told:?}", person.told));
            }
            if let Told::Claimed(claim) = told {
                winners.insert(claim["coupon_claim_id"].to_string());
            }
            let remaining = self.remaining(coupon).await.unwrap();
            if remaining > last || remaining < 0 {
                wrong.push(format!("{remaining} are left after {last}"));
            }
            last = remaining;
        }
        if winners.len() != STOCK || last != 0 {
            wrong.push(format!("{} have one, {last} are left", winners.len()));
        }
        wrong
    }

    pub(crate) async fn claims_gone_wrong(&mut self, round: usize) -> Vec<String> {
        let coupon = self.coupon().await;
        let mut people = self.people(round).await;
        self.claim_and_kill(&coupon, &mut people).await;
        let told = |what: fn(&Told) -> bool| people.iter().filter(|p| what(&p.told)).count();
        eprintln!(
            "round {round}: {} claims, {} refusals before the kill",
            told(|t| matches!(t, Told::Claimed(_))),
            told(|t| *t == Told::SoldOut)
        );
        self.wrong_claims(&coupon, &people).await
    }
}

async fn claim(client: &Client, coupon: &str, key: &str) -> Told {
    let path = format!("/coupons/{coupon}/claims");
    let call = client.post(&path, &json!({})).key(key);
    let Ok(answer) = call.timeout(Duration::from_secs(10)).try_send().await else {
        return Told::Nothing;
    };
    match answer.status {
        201 => Told::Claimed(answer.json()),
        409 if answer.json()["code"] == "coupon-sold-out" => Told::SoldOut,
        _ => Told::Nothing,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_acknowledged_survives_kill_9_and_there_are_no_more() {
    let mut world = World::start(&[], true).await;
    for round in 1..=crate::rounds::rounds() {
        let wrong = world.claims_gone_wrong(round).await;
        assert!(wrong.is_empty(), "round {round}: {wrong:#?}");
        world.settings.assert_audit_is_clean();
    }
}

/// A server whose claims are acknowledged and not stored must be found out, or the
/// test above shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_store_claims_is_found_out() {
    const ROUNDS_MAX: usize = 10;
    let mut world = World::start(&[("ONSALE_SABOTAGE", "claim-not-stored")], true).await;
    for round in 1..=ROUNDS_MAX {
        let wrong = world.claims_gone_wrong(round).await;
        if !wrong.is_empty() {
            eprintln!("found out in round {round}: {} findings", wrong.len());
            return;
        }
    }
    panic!("nothing was found in {ROUNDS_MAX} rounds: the check can't fail");
}
