//! People who claim a coupon on a server that dies: exactly the stock, one each.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::client::Client;
use crate::common::process::{ServerProcess, sign_up};
use crate::common::{eventually, fresh_key, in_seconds};
use crate::world::World;

pub(crate) const STOCK: usize = 60;

/// Who claims.
const PEOPLE: usize = 90;

/// The kill comes so long after the first claim at the latest.
const KILL_WITHIN_MS: u64 = 400;

/// How long a coupon may be on its way from node to node, on a busy machine.
pub(crate) const MOVING_LIMIT: Duration = Duration::from_secs(10);

/// What one of them was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Claimed(Value),
    SoldOut,
    Nothing,
}

/// Somebody who claims, under the same key however often.
pub(crate) struct Person {
    pub(crate) token: String,
    pub(crate) key: String,
    pub(crate) told: Told,
}

impl World {
    pub(crate) async fn coupon(&self) -> String {
        let body = json!({
            "name": "C", "discount": { "kind": "percent", "value": 10 }, "stock": STOCK,
            "starts_at": in_seconds(-60), "ends_at": in_seconds(3_600),
        });
        let admin = self.server.admin().await;
        let made = eventually("a coupon", MOVING_LIMIT, async || {
            let answer = admin.post("/admin/coupons", &body).send().await;
            // Its shard may be on its way to another node.
            (answer.status != 503).then_some(answer)
        })
        .await;
        made.assert_status(201);
        made.json()["coupon_id"].as_str().unwrap().to_owned()
    }

    /// Those who claim, round after round.
    pub(crate) async fn crowd(&self) -> Vec<Person> {
        let mut people = Vec::new();
        for number in 0..PEOPLE {
            let email = format!("claimer-{number}@example.com");
            let person = sign_up(&self.server.client(), &email, "a long enough password").await;
            people.push(Person {
                token: person.token().to_owned(),
                key: String::new(),
                told: Told::Nothing,
            });
        }
        people
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
            let remaining = remaining(&client, coupon).await.unwrap();
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

    /// They claim a new coupon, the server dies and comes back after `meanwhile`:
    /// what is wrong then.
    pub(crate) async fn claims_gone_wrong(
        &mut self,
        people: &mut [Person],
        meanwhile: impl AsyncFn(),
    ) -> Vec<String> {
        let coupon = self.coupon().await;
        for person in people.iter_mut() {
            person.key = fresh_key();
        }
        self.claim_and_kill(&coupon, people).await;
        let told = |what: fn(&Told) -> bool| people.iter().filter(|p| what(&p.told)).count();
        eprintln!(
            "{} claims, {} refusals before the kill",
            told(|t| matches!(t, Told::Claimed(_))),
            told(|t| *t == Told::SoldOut)
        );
        meanwhile().await;
        self.server = ServerProcess::start(&self.settings);
        self.wrong_claims(&coupon, people).await
    }

    /// Rounds of that: nothing is wrong after any.
    pub(crate) async fn assert_claims_survive(&mut self, rounds: usize, meanwhile: impl AsyncFn()) {
        let mut people = self.crowd().await;
        for round in 1..=rounds {
            let wrong = self.claims_gone_wrong(&mut people, &meanwhile).await;
            assert!(wrong.is_empty(), "round {round}: {wrong:#?}");
            self.settings.assert_audit_is_clean();
        }
    }

    /// A server that is broken must be found out by that.
    #[cfg(feature = "sabotage")]
    pub(crate) async fn assert_lost_claims_are_found_out(&mut self) {
        const ROUNDS_MAX: usize = 10;
        let mut people = self.crowd().await;
        for round in 1..=ROUNDS_MAX {
            let wrong = self.claims_gone_wrong(&mut people, async || ()).await;
            if !wrong.is_empty() {
                eprintln!("found out in round {round}: {} findings", wrong.len());
                return;
            }
        }
        panic!("nothing was found in {ROUNDS_MAX} rounds: the check can't fail");
    }
}

pub(crate) async fn claim(client: &Client, coupon: &str, key: &str) -> Told {
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

/// How many are left, where it can be read.
pub(crate) async fn remaining(client: &Client, coupon: &str) -> Option<i64> {
    let page = client.get("/coupons?limit=100").try_send().await.ok()?;
    let page = page.json();
    let listed = page["items"].as_array()?.iter();
    let shown = listed.into_iter().find(|c| c["coupon_id"] == coupon)?;
    shown["remaining"].as_i64()
}
