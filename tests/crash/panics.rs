//! Panics on purpose, each right after a decision was handed to its write lane:
//! they are their entity's alone, and what was on its way counts once.
//!
//! `panic-at:N` has every entity panic once, after its decision `N`.

use std::cell::Cell;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::client::Client;
use crate::common::process::{ServerProcess, Settings, sign_up};
use crate::common::scene::{Scene, Show};
use crate::common::{eventually, fresh_key};
use crate::world::{DECIDED_LIMIT, PRICE, World};

const PASSWORD: &str = "a long enough password";

/// A server whose entities panic, and a show on sale.
struct Troubled {
    settings: Settings,
    server: ServerProcess,
    scene: Scene,
    _folder: TempDir,
}

impl Troubled {
    async fn start(sabotage: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = Settings::in_folder(folder.path()).env("ONSALE_SABOTAGE", sabotage);
        let server = ServerProcess::start(&settings);
        let scene = Show::grid(2, 10, PRICE)
            .dates(2)
            .open(&server.admin().await)
            .await;
        Self {
            settings,
            server,
            scene,
            _folder: folder,
        }
    }

    async fn buyer(&self, name: &str) -> Client {
        let email = format!("{name}@example.com");
        sign_up(&self.server.client(), &email, PASSWORD).await
    }

    /// A metric by its name and labels; 0 if nothing was counted yet.
    async fn metric(&self, name: &str) -> u64 {
        let metrics = self.server.client().root("/metrics").send().await.text();
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// An orderly end, and an audit of what is left.
    fn end(mut self) {
        assert!(self.server.terminate().success());
        self.settings.assert_audit_is_clean();
    }
}

/// Sends the same charge under the same key until it has an outcome; gives how
/// often that was unknown.
async fn charge_at_last(client: &Client, amount: i64) -> usize {
    let (key, body) = (fresh_key(), json!({ "amount": amount }));
    let mut unknown = 0;
    while unknown < 100 {
        let answer = client.post("/wallet/charges", &body).key(&key).send().await;
        if answer.status == 503 {
            answer.assert_problem(503, "store-unavailable");
            unknown += 1;
            continue;
        }
        answer.assert_status(201);
        assert_eq!(answer.json()["amount"], amount);
        return unknown;
    }
    panic!("no outcome of a charge of {amount}");
}

/// The amounts of all entries, oldest first.
async fn entries(client: &Client) -> Vec<i64> {
    let page = client.get("/wallet/entries?limit=100").ok(200).await;
    let items = page["items"].as_array().unwrap().iter().rev();
    items.map(|item| item["amount"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_purpose_is_one_accounts_alone_and_its_charge_counts_once() {
    const CHARGES: i64 = 10;
    let troubled = Troubled::start("panic-at:4").await;
    let (ann, bob) = (troubled.buyer("ann").await, troubled.buyer("bob").await);
    for amount in 1..=CHARGES {
        let unknown = charge_at_last(&ann, amount).await;
        assert_eq!(unknown, usize::from(amount == 4), "charge {amount}");
        if unknown > 0 {
            // Nobody else notices.
            assert_eq!(charge_at_last(&bob, 7).await, 0);
            bob.root("/healthz").send().await.assert_status(200);
            bob.root("/readyz").ok(200).await;
        }
    }
    assert_eq!(ann.balance().await, (1..=CHARGES).sum::<i64>());
    let expected: Vec<i64> = (1..=CHARGES).collect();
    assert_eq!(entries(&ann).await, expected, "none lost, none twice");
    assert_eq!((bob.balance().await, entries(&bob).await), (7, vec![7]));
    for (metric, count) in [
        ("onsale_actor_restarts_total{kind=\"account\"}", 1),
        ("onsale_actor_restarts_total{kind=\"host\"}", 0),
        ("onsale_invariant_violations_total{id=\"I9\"}", 1),
    ] {
        assert_eq!(troubled.metric(metric).await, count, "{metric}");
    }
    troubled.end();
}

/// The hold of this seat that the buyer has, whether or not they were told.
async fn hold_at_last(client: &Client, timetable: &str, seat: &str) -> (Value, bool) {
    let answer = client
        .hold(timetable, &json!({ "seat_ids": [seat] }))
        .send()
        .await;
    if answer.status == 201 {
        return (answer.json(), true);
    }
    answer.assert_problem(503, "store-unavailable");
    let hold = eventually("the hold, which was on its way", DECIDED_LIMIT, || async {
        let mine = client.get("/me/holds").ok(200).await;
        let holds = mine["items"].as_array().unwrap();
        assert!(holds.len() <= 1, "it counts once: {mine}");
        holds.first().cloned()
    })
    .await;
    assert_eq!(hold["seats"][0]["seat_id"], seat);
    (hold, false)
}

/// Decision 3 of the timetable is the second hold, 6 the third sale; 3 of an
/// account is when it spends what was set aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_purpose_is_one_timetables_alone_and_sells_each_seat_once() {
    const BUYERS: i64 = 5;
    let troubled = Troubled::start("panic-at:3,panic-at:6").await;
    let timetable = &troubled.scene.timetable;
    let (mut buyers, mut told) = (Vec::new(), Vec::new());
    for number in 1..=BUYERS {
        let buyer = troubled.buyer(&format!("buyer-{number}")).await;
        buyer.charge(PRICE * 2).await;
        let seat = format!("G-A-{number}");
        let (hold, was_told) = hold_at_last(&buyer, timetable, &seat).await;
        told.push(was_told);
        // An unknown outcome is asked again: the buyer hears of none.
        let key = fresh_key();
        let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
        let order = buyer.order_body(&body).key(&key).ok(201).await;
        assert_eq!(order["seats"][0]["seat_id"], seat.as_str());
        let again = buyer.order_body(&body).key(&key).ok(201).await;
        assert_eq!(again["order_id"], order["order_id"]);
        buyers.push(buyer);
    }
    assert_eq!(told, [true, false, true, true, true]);
    // The other date is sold as if nothing were.
    let other = troubled.scene.timetable_at(1);
    let hold = buyers[0].hold_seats(&other, &["G-A-1"]).await;
    let hold_id = hold["hold_id"].as_str().unwrap();
    buyers[0].order(hold_id).ok(201).await;

    for (number, buyer) in buyers.iter().enumerate() {
        let orders = if number == 0 { 2 } else { 1 };
        assert_eq!(buyer.balance().await, PRICE * (2 - orders));
        let listed = buyer.get("/orders").ok(200).await;
        let count = listed["items"].as_array().unwrap().len();
        assert_eq!(i64::try_from(count).unwrap(), orders);
    }
    let map = buyers[0].map(timetable).await;
    assert_eq!((&map["sold"], &map["held"]), (&json!(BUYERS), &json!(0)));
    let restarts = "onsale_actor_restarts_total{kind=\"timetable\"}";
    assert_eq!(troubled.metric(restarts).await, 2);
    let admin = troubled.server.admin().await;
    let seen = admin.get(&format!("/admin/actors/timetable/{timetable}"));
    let seen = seen.ok(200).await;
    assert_eq!(seen["actor"]["restarts"], 2);
    assert_eq!(seen["life"]["observed"]["sold"], BUYERS);
    troubled.end();
}

/// Three panics are enough: it stays away until the next start, and has lost
/// nothing then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_on_purpose_again_and_again_quarantine_their_account_alone() {
    let mut troubled = Troubled::start("panic-at:2,panic-at:3,panic-at:4").await;
    let (ann, bob) = (troubled.buyer("ann").await, troubled.buyer("bob").await);
    for amount in 1..=3 {
        charge_at_last(&ann, amount).await;
    }
    let (key, last) = (fresh_key(), json!({ "amount": 4 }));
    for _ in 0..3 {
        let charge = ann.post("/wallet/charges", &last).key(&key);
        charge.problem(503, "store-unavailable").await;
    }
    ann.get("/wallet").problem(503, "store-unavailable").await;
    assert_eq!(charge_at_last(&bob, 7).await, 0);
    bob.hold_seats(&troubled.scene.timetable, &["G-A-1"]).await;
    let quarantined = "onsale_quarantined_entities{kind=\"account\"}";
    assert_eq!(troubled.metric(quarantined).await, 1);
    let actors = troubled.server.admin().await.get("/admin/actors?limit=100");
    let actors = actors.ok(200).await;
    let mut rows = actors["items"].as_array().unwrap().iter();
    let away = rows.find(|row| row["state"] == "quarantined").unwrap();
    assert_eq!(
        (&away["kind"], &away["restarts"]),
        (&json!("account"), &json!(3))
    );

    assert!(troubled.server.terminate().success());
    let whole = troubled.settings.clone().env("ONSALE_SABOTAGE", "");
    troubled.server = ServerProcess::start(&whole);
    let ann = troubled.server.client().with_token(ann.token());
    let charge = ann.post("/wallet/charges", &last).key(&key).send().await;
    charge.assert_status(201);
    assert_eq!(charge.header("idempotency-replayed"), Some("true"));
    assert_eq!(entries(&ann).await, [1, 2, 3, 4]);
    assert_eq!(ann.balance().await, 10);
    troubled.end();
}

/// Who is told nothing joins again, and has the place that was on its way. A
/// version of the line is told every 250 ms: each life tells some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_on_purpose_of_a_queue_costs_no_place_and_its_versions_rise() {
    const PEOPLE: usize = 8;
    let troubled = Troubled::start("panic-at:5,panic-at:9").await;
    let show = Show::grid(1, 10, PRICE).with("queue", json!({ "max_active": 1 }));
    let scene = show.open(&troubled.server.admin().await).await;
    let queue = format!("/performances/{}/queue", scene.performance);
    let (mut last_seq, mut numbers, unknown) = (0, Vec::new(), Cell::new(0));
    for number in 1..=PEOPLE {
        let person = troubled.buyer(&format!("person-{number}")).await;
        let place = eventually("a place", DECIDED_LIMIT, async || {
            let answer = person.post(&queue, &json!({})).send().await;
            if answer.status == 503 {
                unknown.set(unknown.get() + 1);
                return None;
            }
            assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
            Some(answer.json())
        })
        .await;
        let seq = place["seq"].as_u64().unwrap();
        assert!(seq >= last_seq, "{seq} after {last_seq}");
        last_seq = seq;
        numbers.push(place["number"].as_u64().unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let restarts = "onsale_actor_restarts_total{kind=\"queue\"}";
    assert_eq!(troubled.metric(restarts).await, 2);
    assert!(unknown.get() > 0, "nobody was in its way");
    troubled.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_on_purpose_under_load_lose_and_double_nothing() {
    let mut world = World::start(&[("ONSALE_SABOTAGE", &World::panics())], false).await;
    world.assert_panics_lose_nothing().await;
}
