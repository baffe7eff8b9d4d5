//! A waiting room full of people who keep a record, on a server that dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::common::random::Random;
use crate::common::scene::{Scene, Show};
use crate::person::{Person, now};
use crate::queue_history::{Finding, History, Kill, Rules};

/// How many come and go.
const PEOPLE: usize = 32;

/// What the room allows: both the cap and the window hold people up.
const RULES: Rules = Rules {
    cap: 8,
    count: 30,
    every: 1_000,
    ttl: 3_000,
};

/// They come and go at least so long before the kill, and up to twice as long.
const LOAD_MIN: Duration = Duration::from_millis(700);

/// Until all who wait have been inside: ten times what it takes.
const END_LIMIT: Duration = Duration::from_secs(60);

const PRICE: i64 = 100;

/// For as many purchases as anybody can make.
const MONEY: i64 = 100_000_000;

/// So many calls a second are no limit for a test.
const RATE_NOBODY_REACHES: &str = "100000";

/// A server, those in its waiting room, and everything that they did.
pub(crate) struct Room {
    pub(crate) settings: Settings,
    pub(crate) server: ServerProcess,
    scene: Scene,
    people: Vec<Person>,
    history: Arc<Mutex<History>>,
    random: Random,
    _folder: TempDir,
}

impl Room {
    pub(crate) async fn open(extra: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut settings = Settings::in_folder(folder.path());
        for rate in [
            "QUEUE_PER_SECOND",
            "QUEUE_BURST",
            "HOLDS_PER_SECOND",
            "HOLDS_BURST",
        ] {
            settings = settings.env(&format!("ONSALE_RATES__{rate}"), RATE_NOBODY_REACHES);
        }
        for (name, value) in extra {
            settings = settings.env(name, value);
        }
        let server = ServerProcess::start(&settings);
        let policy = json!({
            "max_active": RULES.cap,
            "admit": { "count": RULES.count, "every_seconds": RULES.every / 1_000 },
            "active_ttl_seconds": RULES.ttl / 1_000,
            "extend_on_hold_seconds": 0,
        });
        let show = Show::grid(100, 100, PRICE)
            .limit("max_seats_per_user", 100_000)
            .with("queue", policy);
        let scene = show.open(&server.admin().await).await;
        let seed = std::env::var("ONSALE_CRASH_SEED")
            .ok()
            .map_or_else(Random::fresh_seed, |seed| seed.parse().unwrap());
        eprintln!("ONSALE_CRASH_SEED={seed}");
        let mut room = Self {
            settings,
            server,
            scene,
            people: Vec::new(),
            history: Arc::default(),
            random: Random::seeded(seed),
            _folder: folder,
        };
        for user in 0..PEOPLE {
            let person = room.newcomer(user).await;
            room.people.push(person);
        }
        room
    }

    async fn newcomer(&mut self, user: usize) -> Person {
        let email = format!("person-{user}@example.com");
        let client = sign_up(&self.server.client(), &email, "a long enough password").await;
        client.charge(MONEY).await;
        let client = client.with_own_connections();
        let place = (&*self.scene.performance, &*self.scene.timetable);
        Person::new(user, client, place, &self.history, self.random.bits())
    }

    /// Loads and kills the server so often; `meanwhile` happens while it is down.
    /// `forgets`: places that were acknowledged may need their tickets. After each
    /// round nobody's own history has findings, and the audit has none.
    pub(crate) async fn survive(
        &mut self,
        rounds: usize,
        forgets: bool,
        meanwhile: impl AsyncFn(),
    ) {
        for round in 1..=rounds {
            self.load_and_kill(forgets).await;
            meanwhile().await;
            self.settings.assert_audit_is_clean();
            self.restart();
            let findings = self.findings().await;
            let (admitted, lost) = self.figures().await;
            eprintln!(
                "round {round}: {admitted} admitted so far, {lost} came back by their tickets"
            );
            assert!(findings.is_empty(), "round {round}: {findings:#?}");
        }
        let findings = self.close().await;
        assert!(findings.is_empty(), "{findings:#?}");
        self.settings.assert_audit_is_clean();
        let (admitted, _) = self.figures().await;
        assert!(admitted > 5 * rounds, "too little happened: {admitted}");
    }

    /// People come and go, and the server dies; where it `forgets`, it may have
    /// lost what it acknowledged right before.
    pub(crate) async fn load_and_kill(&mut self, forgets: bool) {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for person in self.people.drain(..) {
            tasks.spawn(person.act_until(Arc::clone(&stop)));
        }
        let most = u64::try_from(LOAD_MIN.as_micros()).unwrap();
        let more = Duration::from_micros(self.random.below(most));
        tokio::time::sleep(LOAD_MIN + more).await;
        let at = now();
        self.server.kill();
        stop.store(true, Ordering::Relaxed);
        self.people = tasks.join_all().await;
        let kill = Kill { at, loses: forgets };
        self.history.lock().await.killed(kill);
    }

    /// The same people go on, on the same data.
    pub(crate) fn restart(&mut self) {
        self.server = ServerProcess::start(&self.settings);
        for person in &mut self.people {
            person.return_to(&self.server.client().with_own_connections());
        }
    }

    /// Every promise that was broken so far.
    pub(crate) async fn findings(&self) -> BTreeSet<Finding> {
        self.history.lock().await.check(RULES)
    }

    /// All who wait go in and leave; every promise that was broken.
    pub(crate) async fn close(&mut self) -> BTreeSet<Finding> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for person in self.people.drain(..) {
            tasks.spawn(person.finish_until(Arc::clone(&stop)));
        }
        let all = async {
            let mut people = Vec::new();
            while let Some(person) = tasks.join_next().await {
                people.push(person.unwrap());
            }
            people
        };
        match tokio::time::timeout(END_LIMIT, all).await {
            Ok(people) => self.people = people,
            // The check says who was left behind.
            Err(_) => stop.store(true, Ordering::Relaxed),
        }
        let summary = format!("/performances/{}/queue/summary", self.scene.performance);
        let summary = self.server.client().get(&summary).ok(200).await;
        let total = summary["admitted_total"].as_u64().unwrap();
        self.history.lock().await.check_end(RULES, total)
    }

    /// How many were admitted so far, and how many places came back by tickets.
    pub(crate) async fn figures(&self) -> (usize, usize) {
        let history = self.history.lock().await;
        (history.admitted(RULES), history.lost(RULES))
    }
}
