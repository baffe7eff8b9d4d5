//! A server under the load of customers who keep a record, and what they and
//! the server say of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::common::client::Client;
use crate::common::eventually;
use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::common::random::Random;
use crate::common::scene::{Scene, Show};
use crate::customer::{
    Customer, Shared, cancelled_seats_of, outcome_of, seats_of, send, send_recorded,
};
use crate::history::{
    Finding, Observation, Outcome, Record, Request, SeenOrder, User, may_be_lost, over_limit,
    wrong_tickets,
};

/// Customers, each with tasks of its own.
pub(crate) const USERS: usize = 6;

/// Tasks a customer, so that one wallet is used by several at once.
const TASKS_PER_USER: usize = 3;

/// The load runs at least so long before the kill, and up to twice as long.
const LOAD_MIN: Duration = Duration::from_millis(600);

/// After a restart an order of before is decided within 2 s; with slack.
pub(crate) const DECIDED_LIMIT: Duration = Duration::from_secs(20);

/// Tickets come within 2 s of the order; with slack.
const TICKETS_LIMIT: Duration = Duration::from_secs(20);

pub(crate) const PRICE: i64 = 100;

/// So many seats are no limit for a customer.
const LIMIT_NOBODY_REACHES: usize = 100_000;

/// So many holds a second are no limit for a test.
const RATE_NOBODY_REACHES: &str = "100000";

/// So many keys of earlier rounds are sent again in each round.
const OLD_KEYS_REPLAYED: usize = 200;

/// A server, its customers and everything that they did.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) server: ServerProcess,
    pub(crate) scene: Scene,
    pub(crate) shared: Arc<Mutex<Shared>>,
    tokens: Vec<String>,
    pub(crate) random: Random,
    /// Holds are acknowledged before they are written.
    holds_are_written_behind: bool,
    /// How many seats a customer may have.
    limit: usize,
    _folder: TempDir,
}

impl World {
    /// A server with these settings. Its holds are either written before they
    /// are acknowledged, so that none may be lost, or behind.
    pub(crate) async fn start(extra: &[(&str, &str)], holds_are_written_behind: bool) -> Self {
        Self::start_with_limit(extra, holds_are_written_behind, LIMIT_NOBODY_REACHES).await
    }

    /// The same, where nobody may have more than so many seats.
    pub(crate) async fn start_with_limit(
        extra: &[(&str, &str)],
        holds_are_written_behind: bool,
        limit: usize,
    ) -> Self {
        let folder = TempDir::new().unwrap();
        let mut settings = Settings::in_folder(folder.path())
            .env("ONSALE_RATES__HOLDS_PER_SECOND", RATE_NOBODY_REACHES)
            .env("ONSALE_RATES__HOLDS_BURST", RATE_NOBODY_REACHES);
        for (name, value) in extra {
            settings = settings.env(name, value);
        }
        let server = ServerProcess::start(&settings);
        let show = Show::grid(100, 100, PRICE)
            .limit("max_seats_per_user", i64::try_from(limit).unwrap())
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
            shared: Arc::default(),
            tokens,
            random: Random::seeded(seed),
            holds_are_written_behind,
            limit,
            _folder: folder,
        }
    }

    pub(crate) fn client(&self, user: User) -> Client {
        self.server.client().with_token(&self.tokens[user])
    }

    /// One round: load, kill, restart, and every promise that is broken.
    pub(crate) async fn round(&mut self) -> BTreeSet<Finding> {
        let killed_at = self.load_and_kill().await;
        self.findings_after(killed_at).await
    }

    /// Starts again after an end at `killed_at`, and checks everything.
    pub(crate) async fn findings_after(&mut self, killed_at: Instant) -> BTreeSet<Finding> {
        self.server = ServerProcess::start(&self.settings);
        let mut findings = self.check_after_restart().await;
        let may_be_lost_from = self.holds_are_written_behind.then_some(killed_at);
        findings.extend(self.check_holds(may_be_lost_from).await);
        findings.extend(self.settle().await);
        findings
    }

    /// Asks until every outcome is known, asks for known ones again, and checks
    /// it all; nobody else does anything meanwhile.
    pub(crate) async fn settle(&mut self) -> BTreeSet<Finding> {
        self.resolve_unknown().await;
        self.replay_known().await;
        let mut findings = self.check().await;
        findings.extend(self.wait_for_tickets().await);
        findings
    }

    pub(crate) async fn load_and_kill(&mut self) -> Instant {
        let load = self.load();
        let more = self
            .random
            .below(u64::try_from(LOAD_MIN.as_micros()).unwrap());
        tokio::time::sleep(LOAD_MIN + Duration::from_micros(more)).await;
        let killed_at = Instant::now();
        self.server.kill();
        load.end().await;
        killed_at
    }

    /// Lets the customers loose.
    pub(crate) fn load(&mut self) -> Load {
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
        Load { stop, tasks }
    }

    pub(crate) async fn acknowledged(&self) -> usize {
        self.shared.lock().await.history.acknowledged()
    }

    async fn check(&self) -> BTreeSet<Finding> {
        let seen = self.observe().await;
        let mut findings = self.shared.lock().await.history.check(&seen);
        findings.extend(over_limit(&seen, self.limit));
        findings
    }

    /// The same right after a restart: money that is set aside for an order
    /// which was under way is in no balance until that order has ended, which
    /// the contract gives 2 s. Everything else must be right at once.
    pub(crate) async fn check_after_restart(&self) -> BTreeSet<Finding> {
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

    /// Holds that had been written before the kill (if there was one that may
    /// have cost some) must be there; the others come back by their token, as an
    /// order.
    pub(crate) async fn check_holds(&self, killed_at: Option<Instant>) -> BTreeSet<Finding> {
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
            if !killed_at.is_some_and(|killed_at| may_be_lost(&hold, killed_at)) {
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
    pub(crate) async fn resolve_unknown(&self) {
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
            let missing = wrong_tickets(&self.observe().await);
            if missing.is_empty() || started.elapsed() > TICKETS_LIMIT {
                return missing;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Customers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    /// Returns when each has its last answer, or knows that there is none.
    pub(crate) async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
    }
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
    let tickets = all(client, "/tickets").await;
    for ticket in tickets.iter().filter(|ticket| ticket["status"] == "valid") {
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
                cancelled: cancelled_seats_of(order),
                refunded: order["refunded"].as_i64().unwrap(),
                ticketed: ticketed.get(&order_id).cloned().unwrap_or_default(),
                order_id,
            }
        })
        .collect()
}
