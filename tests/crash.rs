//! The real program under load, killed with `kill -9` at random moments: what
//! it acknowledged must be there after each restart.
//!
//! `ONSALE_CRASH_ROUNDS` says how often (default 3), `ONSALE_CRASH_SEED`
//! repeats a run's choices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

mod common;
mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use common::client::{Answer, Client};
use common::process::{ServerProcess, Settings, sign_up};
use common::random::Random;
use common::scene::{Scene, Show};
use common::{eventually, fresh_key};
use history::{
    Finding, HeldSeats, History, Observation, Outcome, Record, Request, SeenOrder, User,
    may_be_lost, missing_tickets,
};

/// Customers, each with tasks of its own.
const USERS: usize = 6;

/// Tasks a customer, so that one wallet is used by several at once.
const TASKS_PER_USER: usize = 3;

/// The load runs at least so long before the kill, and up to twice as long.
const LOAD_MIN: Duration = Duration::from_millis(600);

/// After a restart an order of before is decided within 2 s; with slack.
const DECIDED_LIMIT: Duration = Duration::from_secs(20);

/// Tickets come within 2 s of the order; with slack.
const TICKETS_LIMIT: Duration = Duration::from_secs(20);

/// A call that takes longer is one whose outcome is unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

const PRICE: i64 = 100;

/// So many holds a second are no limit for a test.
const RATE_NOBODY_REACHES: &str = "100000";

/// So many keys of earlier rounds are sent again in each round.
const OLD_KEYS_REPLAYED: usize = 200;

/// What all tasks write to.
#[derive(Default)]
struct Shared {
    history: History,
    held: Vec<HeldSeats>,
}

/// A server, its customers and everything that they did.
struct World {
    settings: Settings,
    server: ServerProcess,
    scene: Scene,
    tokens: Vec<String>,
    shared: Arc<Mutex<Shared>>,
    random: Random,
    _folder: TempDir,
}

impl World {
    async fn start(extra: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut settings = Settings::in_folder(folder.path())
            .env("ONSALE_RATES__HOLDS_PER_SECOND", RATE_NOBODY_REACHES)
            .env("ONSALE_RATES__HOLDS_BURST", RATE_NOBODY_REACHES);
        for (name, value) in extra {
            settings = settings.env(name, value);
        }
        let server = ServerProcess::start(&settings);
        let show = Show::grid(100, 100, PRICE)
            .limit("max_seats_per_user", 100_000)
            .limit("hold_ttl_seconds", 3_600);
        let scene = show.open(&server.admin().await).await;
        let mut tokens = Vec::new();
        for user in 0..USERS {
            let email = format!("buyer-{user}@example.com");
            let buyer = sign_up(&server.client(), &email, "a long enough password").await;
            tokens.push(buyer.token().to_owned());
        }
        let seed = std::env::var("ONSALE_CRASH_SEED")
            .ok()
            .map_or_else(Random::fresh_seed, |seed| seed.parse().unwrap());
        eprintln!("ONSALE_CRASH_SEED={seed}");
        Self {
            settings,
            server,
            scene,
            tokens,
            shared: Arc::default(),
            random: Random::seeded(seed),
            _folder: folder,
        }
    }

    fn client(&self, user: User) -> Client {
        self.server.client().with_token(&self.tokens[user])
    }

    /// One round: load, kill, restart, and every promise that is broken.
    async fn round(&mut self) -> BTreeSet<Finding> {
        let killed_at = self.load_and_kill().await;
        self.server = ServerProcess::start(&self.settings);
        let mut findings = self.check_after_restart().await;
        findings.extend(self.check_holds(killed_at).await);
        self.resolve_unknown().await;
        self.replay_known().await;
        findings.extend(self.check().await);
        findings.extend(self.wait_for_tickets().await);
        findings
    }

    async fn load_and_kill(&mut self) -> Instant {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..USERS * TASKS_PER_USER {
            let user = task % USERS;
            let customer = Customer {
                user,
                client: self.client(user).with_own_connections(),
                timetable: self.scene.timetable.clone(),
                shared: Arc::clone(&self.shared),
                random: Random::seeded(self.random.bits()),
            };
            tasks.spawn(customer.act_until(Arc::clone(&stop)));
        }
        let more = self
            .random
            .below(u64::try_from(LOAD_MIN.as_micros()).unwrap());
        tokio::time::sleep(LOAD_MIN + Duration::from_micros(more)).await;
        let killed_at = Instant::now();
        self.server.kill();
        stop.store(true, Ordering::Relaxed);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        killed_at
    }

    async fn check(&self) -> BTreeSet<Finding> {
        let seen = self.observe().await;
        self.shared.lock().await.history.check(&seen)
    }

    /// The same right after a restart: money that is set aside for an order
    /// which was under way is in no balance until that order has ended, which
    /// the contract gives 2 s. Everything else must be right at once.
    async fn check_after_restart(&self) -> BTreeSet<Finding> {
        let started = Instant::now();
        let transient = |finding: &Finding| matches!(finding, Finding::WrongBalance { .. });
        loop {
            let findings = self.check().await;
            if !findings.iter().any(transient)
                || !findings.iter().all(transient)
                || started.elapsed() > DECIDED_LIMIT
            {
                return findings;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads everything back, while nobody else does anything.
    async fn observe(&self) -> Observation {
        let mut seen = Observation::default();
        for user in 0..USERS {
            let client = self.client(user);
            seen.balances.insert(user, client.balance().await);
            seen.orders.insert(user, seen_orders(&client).await);
        }
        let map = self.client(0).map(&self.scene.timetable).await;
        seen.sold = usize::try_from(map["sold"].as_u64().unwrap()).unwrap();
        seen
    }

    /// Holds that had been written must be there; the others come back by their
    /// token, as an order.
    async fn check_holds(&self, killed_at: Instant) -> BTreeSet<Finding> {
        let held = std::mem::take(&mut self.shared.lock().await.held);
        let mut findings = BTreeSet::new();
        for hold in held {
            let client = self.client(hold.user);
            let path = format!("/holds/{}", hold.hold_id);
            let answer = client.get(&path).send().await;
            if answer.status == 200 {
                assert_eq!(seats_of(&answer.json()), hold.seats);
                client.delete(&path).ok(204).await;
                continue;
            }
            answer.assert_problem(404, "hold-not-found");
            let (user, hold_id) = (hold.user, hold.hold_id.clone());
            if !may_be_lost(&hold, killed_at) {
                findings.insert(Finding::LostHold {
                    user,
                    hold_id: hold_id.clone(),
                });
            }
            client.charge_recorded(&self.shared, user, PRICE * 10).await;
            let request = Request::Order {
                hold_id: hold_id.clone(),
                hold_token: Some(hold.hold_token),
                seats: hold.seats,
            };
            let outcome = send_recorded(&client, &self.shared, user, request).await;
            if !matches!(outcome, Outcome::Ordered { .. }) {
                eprintln!("the hold {hold_id} by its token: {outcome:?}");
                findings.insert(Finding::HoldNotRestored { user, hold_id });
            }
        }
        findings
    }

    /// Sends again what never got an answer, until it has one.
    async fn resolve_unknown(&self) {
        let unknown = self.shared.lock().await.history.unknown();
        for record in unknown {
            let client = self.client(record.user);
            let outcome = eventually("an outcome of a key", DECIDED_LIMIT, async || {
                let answer = send(&client, &record.key, &record.request).await;
                let outcome = outcome_of(&record.request, &answer);
                (outcome != Outcome::Unknown).then_some(outcome)
            })
            .await;
            let record = Record { outcome, ..record };
            self.shared.lock().await.history.push(record);
        }
    }

    /// Sends known keys again; the check compares the outcomes.
    async fn replay_known(&mut self) {
        let known: Vec<Record> = {
            let shared = self.shared.lock().await;
            shared.history.settled().into_values().cloned().collect()
        };
        for _ in 0..OLD_KEYS_REPLAYED.min(known.len()) {
            let record = self.random.pick(&known).clone();
            let client = self.client(record.user);
            let answer = send(&client, &record.key, &record.request).await;
            assert_eq!(
                answer.header("idempotency-replayed"),
                Some("true"),
                "{} {record:?}: {}",
                answer.what,
                answer.text()
            );
            let outcome = outcome_of(&record.request, &answer);
            let record = Record { outcome, ..record };
            self.shared.lock().await.history.push(record);
        }
    }

    async fn wait_for_tickets(&self) -> BTreeSet<Finding> {
        let started = Instant::now();
        loop {
            let missing = missing_tickets(&self.observe().await);
            if missing.is_empty() || started.elapsed() > TICKETS_LIMIT {
                return missing;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// One task of a customer.
struct Customer {
    user: User,
    client: Client,
    timetable: String,
    shared: Arc<Mutex<Shared>>,
    random: Random,
}

impl Customer {
    async fn act_until(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            match self.random.below(10) {
                0..3 => {
                    let amount = 1 + i64::try_from(self.random.below(500)).unwrap();
                    self.client
                        .charge_recorded(&self.shared, self.user, amount)
                        .await;
                }
                3..5 => drop(self.hold(true).await),
                5 => {
                    let tickets = self.client.get("/tickets").timeout(CALL_TIMEOUT);
                    let _ = tickets.try_send().await;
                }
                _ => self.buy().await,
            }
        }
    }

    /// Takes seats; the hold is kept on record only where it is to be left.
    async fn hold(&mut self, leave: bool) -> Option<HeldSeats> {
        let count = 1 + self.random.below(3);
        let wish = if self.random.below(2) == 0 {
            json!({ "best_available": { "count": count, "adjacent": false } })
        } else {
            // Row names of a grid of 100 begin with A to Z.
            let row = char::from(b'A' + u8::try_from(self.random.below(26)).unwrap());
            json!({ "seat_ids": [format!("G-{row}-{}", 1 + self.random.below(100))] })
        };
        let call = self.client.hold(&self.timetable, &wish);
        let answer = call.timeout(CALL_TIMEOUT).try_send().await.ok()?;
        if answer.status != 201 {
            return None;
        }
        let body = answer.json();
        let text = |member: &str| body[member].as_str().unwrap().to_owned();
        let held = HeldSeats {
            user: self.user,
            hold_id: text("hold_id"),
            hold_token: text("hold_token"),
            seats: seats_of(&body),
            acknowledged_at: Instant::now(),
        };
        if leave {
            self.shared.lock().await.held.push(held.clone());
        }
        Some(held)
    }

    async fn buy(&mut self) {
        let Some(held) = self.hold(false).await else {
            return;
        };
        let request = Request::Order {
            hold_id: held.hold_id,
            hold_token: None,
            seats: held.seats,
        };
        send_recorded(&self.client, &self.shared, self.user, request).await;
    }
}

impl Client {
    async fn charge_recorded(&self, shared: &Mutex<Shared>, user: User, amount: i64) {
        send_recorded(self, shared, user, Request::Charge { amount }).await;
    }
}

/// Records the call as unknown before it is sent, and its outcome after.
async fn send_recorded(
    client: &Client,
    shared: &Mutex<Shared>,
    user: User,
    request: Request,
) -> Outcome {
    let key = fresh_key();
    let record = |outcome| Record {
        user,
        key: key.clone(),
        request: request.clone(),
        outcome,
    };
    shared.lock().await.history.push(record(Outcome::Unknown));
    let outcome = match try_send(client, &key, &request).await {
        Ok(answer) => outcome_of(&request, &answer),
        Err(_) => Outcome::Unknown,
    };
    shared.lock().await.history.push(record(outcome.clone()));
    outcome
}

async fn try_send(client: &Client, key: &str, request: &Request) -> Result<Answer, reqwest::Error> {
    let call = match request {
        Request::Charge { amount } => client.post("/wallet/charges", &json!({ "amount": amount })),
        Request::Order {
            hold_id,
            hold_token,
            ..
        } => {
            let mut body = json!({ "hold_id": hold_id, "payment": { "method": "wallet" } });
            if let Some(token) = hold_token {
                body["hold_token"] = json!(token);
            }
            client.order_body(&body)
        }
    };
    call.key(key).timeout(CALL_TIMEOUT).try_send().await
}

async fn send(client: &Client, key: &str, request: &Request) -> Answer {
    try_send(client, key, request)
        .await
        .expect("the server answers")
}

/// What an answer says for good about its key.
fn outcome_of(request: &Request, answer: &Answer) -> Outcome {
    match answer.status {
        201 => match request {
            Request::Charge { .. } => Outcome::Charged,
            Request::Order { .. } => {
                let order = answer.json();
                Outcome::Ordered {
                    order_id: order["order_id"].as_str().unwrap().to_owned(),
                    amount: order["amount"].as_i64().unwrap(),
                }
            }
        },
        402 | 404 | 409 | 422 => {
            let code = answer.json()["code"].as_str().unwrap().to_owned();
            match code.as_str() {
                "idempotency-key-in-use" => Outcome::Unknown,
                _ => Outcome::Refused { code },
            }
        }
        503 | 504 => Outcome::Unknown,
        other => panic!("{}: {other} {}", answer.what, answer.text()),
    }
}

fn seats_of(value: &Value) -> BTreeSet<String> {
    value["seats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seat| seat["seat_id"].as_str().unwrap().to_owned())
        .collect()
}

/// All pages of a list.
async fn all(client: &Client, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client
            .get(&format!("{path}?limit=100{cursor}"))
            .ok(200)
            .await;
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

async fn seen_orders(client: &Client) -> Vec<SeenOrder> {
    let mut ticketed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ticket in all(client, "/tickets").await {
        let text = |member: &str| ticket[member].as_str().unwrap().to_owned();
        ticketed
            .entry(text("order_id"))
            .or_default()
            .insert(text("seat_id"));
    }
    all(client, "/orders")
        .await
        .iter()
        .map(|order| {
            let order_id = order["order_id"].as_str().unwrap().to_owned();
            SeenOrder {
                status: order["status"].as_str().unwrap().to_owned(),
                amount: order["amount"].as_i64().unwrap(),
                seats: seats_of(order),
                ticketed: ticketed.get(&order_id).cloned().unwrap_or_default(),
                order_id,
            }
        })
        .collect()
}

fn rounds() -> usize {
    std::env::var("ONSALE_CRASH_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let mut world = World::start(&[]).await;
    for round in 1..=rounds() {
        let findings = world.round().await;
        let acknowledged = world.shared.lock().await.history.acknowledged();
        eprintln!("round {round}: {acknowledged} charges and orders acknowledged so far");
        assert!(
            findings.is_empty(),
            "round {round}: {findings:#?}\n{}",
            world.server.log().join("\n")
        );
        world.settings.assert_audit_is_clean();
    }
    let acknowledged = world.shared.lock().await.history.acknowledged();
    assert!(
        acknowledged > 10 * rounds(),
        "too little happened: {acknowledged}"
    );
}

/// A server that answers before it commits must be found out, or the test
/// above shows nothing.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_acknowledges_before_it_commits_is_found_out() {
    const ROUNDS_MAX: usize = 10;
    let mut world = World::start(&[("ONSALE_SABOTAGE", "ack-before-commit")]).await;
    for round in 1..=ROUNDS_MAX {
        world.load_and_kill().await;
        world.server = ServerProcess::start(&world.settings);
        let findings = world.check_after_restart().await;
        if !findings.is_empty() {
            eprintln!("found out in round {round}: {findings:?}");
            return;
        }
        world.resolve_unknown().await;
    }
    panic!("nothing was found in {ROUNDS_MAX} rounds: the check can't fail");
}
