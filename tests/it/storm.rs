//! Many at once: exactly as many succeed as there is room for.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, PLENTY, Show, TestServer, assert_map_adds_up, list, number, seat_ids, text,
};

/// More at once than this may be refused as overload, by the contract.
const PERMITS_MAX: usize = 4_096;

/// Sends one call for each client, all at once.
async fn all_at_once<F>(clients: &[Client], call: impl Fn(Client) -> F) -> Vec<Answer>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let tasks: Vec<_> = clients
        .iter()
        .map(|c| tokio::spawn(call(c.clone())))
        .collect();
    join_all(tasks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

/// So many customers without money.
fn buyers(server: &TestServer, count: usize) -> Vec<Client> {
    (0..count).map(|_| server.buyer()).collect()
}

fn with_status(answers: &[Answer], status: u16) -> Vec<&Answer> {
    answers
        .iter()
        .filter(|answer| answer.status == status)
        .collect()
}

/// `callers` at once on one seat: one hold.
async fn one_seat(callers: usize) {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(1, 2, 1_000)).await;
    let timetable = scene.timetable.clone();
    let answers = all_at_once(&buyers(server, callers), |buyer| {
        let timetable = timetable.clone();
        async move {
            let wish = json!({ "seat_ids": ["G-A-1"] });
            buyer.hold(&timetable, &wish).send().await
        }
    })
    .await;
    assert_eq!(with_status(&answers, 201).len(), 1);
    for refused in answers.iter().filter(|a| a.status != 201) {
        if callers > PERMITS_MAX && refused.status == 503 {
            refused.assert_problem(503, "overloaded");
            continue;
        }
        let problem = refused.assert_problem(409, "seat-unavailable");
        assert_eq!(problem["seat_ids"], json!(["G-A-1"]));
    }
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!((number(&map, "held"), number(&map, "available")), (1, 1));
}

#[tokio::test]
async fn a_thousand_at_once_on_one_seat_are_one_hold() {
    one_seat(1_000).await;
}

#[tokio::test]
async fn five_thousand_at_once_on_one_seat_are_one_hold() {
    one_seat(5_000).await;
}

#[tokio::test]
async fn a_thousand_charges_and_spends_of_one_wallet_add_up() {
    const CHARGES: usize = 500;
    const SPENDS: usize = 500;
    const PRICE: i64 = 30;
    const CHARGE: i64 = 10;
    let server = TestServer::start_without_rates().await;
    let show = Show::grid(10, 50, PRICE).limit("max_seats_per_user", 1_000);
    let scene = server.open(&show).await;
    let buyer = server.buyer();
    let mut holds = Vec::new();
    for row in ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"] {
        for seat in 1..=SPENDS / 10 {
            let id = format!("G-{row}-{seat}");
            let hold = buyer.hold_seats(&scene.timetable, &[&id]).await;
            holds.push(text(&hold, "hold_id").to_owned());
        }
    }
    let clients: Vec<Client> = vec![buyer.clone(); CHARGES];
    let charges = all_at_once(&clients, |buyer| async move {
        buyer
            .post("/wallet/charges", &json!({ "amount": CHARGE }))
            .key(&crate::harness::fresh_key())
            .send()
            .await
    });
    let spends = join_all(holds.into_iter().map(|hold| {
        let buyer = buyer.clone();
        tokio::spawn(async move { buyer.order(&hold).send().await })
    }));
    let watch = async {
        for _ in 0..20 {
            assert!(buyer.balance().await >= 0);
        }
    };
    let (charges, spends, ()) = tokio::join!(charges, spends, watch);
    let spends: Vec<Answer> = spends.into_iter().map(Result::unwrap).collect();
    assert_eq!(with_status(&charges, 201).len(), CHARGES);
    let bought = with_status(&spends, 201).len();
    for refused in spends.iter().filter(|a| a.status != 201) {
        refused.assert_problem(402, "insufficient-balance");
    }
    let left = CHARGES as i64 * CHARGE - bought as i64 * PRICE;
    assert!(left >= 0);
    assert_eq!(buyer.balance().await, left);
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!(number(&map, "sold"), bought as i64);
}

#[tokio::test]
async fn of_a_hundred_customers_for_ten_units_ten_buy_and_ninety_do_not() {
    let server = TestServer::shared().await;
    let scene = server
        .open(&Show::general_admission(10, 1_000).limit("max_seats_per_user", 1))
        .await;
    let customers = buyers(server, 100);
    join_all(customers.iter().map(|c| c.charge(1_000))).await;
    let timetable = scene.timetable.clone();
    let answers = all_at_once(&customers, |customer| {
        let timetable = timetable.clone();
        async move {
            let wish = json!({ "general_admission": { "section": "PIT", "count": 1 } });
            let held = customer.hold(&timetable, &wish).send().await;
            if held.status != 201 {
                return held;
            }
            customer.order(text(&held.json(), "hold_id")).send().await
        }
    })
    .await;
    let orders = with_status(&answers, 201);
    assert_eq!(orders.len(), 10);
    for refused in answers.iter().filter(|a| a.status != 201) {
        assert_eq!(refused.status, 409, "{}", refused.text());
        let problem = refused.assert_any_problem();
        let code = text(&problem, "code").to_owned();
        assert!(
            code == "no-seats-match" || code == "seat-unavailable",
            "{code}"
        );
    }
    let units: BTreeSet<String> = orders
        .iter()
        .map(|order| text(&list(&order.json(), "seats")[0], "seat_id").to_owned())
        .collect();
    assert_eq!(units.len(), 10, "each unit once");
    let map = server.anyone().map(&scene.timetable).await;
    assert_eq!((number(&map, "sold"), number(&map, "available")), (10, 0));
    assert_eq!(scene.read(&server.anyone()).await["status"], "sold_out");
}

#[tokio::test]
async fn fifty_seats_are_fifty_sold_and_the_counters_say_so() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(5, 10, 1_000)).await;
    let customers = buyers(server, 80);
    join_all(customers.iter().map(|c| c.charge(1_000))).await;
    let timetable = scene.timetable.clone();
    let answers = all_at_once(&customers, |customer| {
        let timetable = timetable.clone();
        async move {
            let wish = json!({ "best_available": { "count": 1 } });
            let held = customer.hold(&timetable, &wish).send().await;
            if held.status != 201 {
                return held;
            }
            customer.order(text(&held.json(), "hold_id")).send().await
        }
    })
    .await;
    let orders = with_status(&answers, 201);
    assert_eq!(orders.len(), 50);
    let seats: BTreeSet<String> = orders.iter().flat_map(|o| seat_ids(&o.json())).collect();
    assert_eq!(seats.len(), 50, "no seat twice");
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!(text(&map, "statuses"), "S".repeat(50));
    let detail = scene.read(&server.anyone()).await;
    assert_eq!(detail["timetables"][0]["available"], 0);
    assert_eq!(detail["status"], "sold_out");
}

#[tokio::test]
async fn while_seats_are_left_no_best_available_buyer_is_refused() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(80, 100, 1_000)).await;
    let timetable = scene.timetable.clone();
    let answers = all_at_once(&buyers(server, 160), |buyer| {
        let timetable = timetable.clone();
        async move {
            let wish = json!({ "best_available": { "count": 4 } });
            buyer.hold(&timetable, &wish).send().await
        }
    })
    .await;
    assert_eq!(with_status(&answers, 201).len(), 160);
    let seats: BTreeSet<String> = answers.iter().flat_map(|a| seat_ids(&a.json())).collect();
    assert_eq!(seats.len(), 640, "no seat twice");
}

#[tokio::test]
async fn overlapping_groups_never_share_a_seat() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(1, 40, 1_000)).await;
    let timetable = scene.timetable.clone();
    let customers = buyers(server, 200);
    let tasks: Vec<_> = customers
        .iter()
        .enumerate()
        .map(|(index, customer)| {
            let (customer, timetable) = (customer.clone(), timetable.clone());
            let first = 1 + index % 37;
            let ids: Vec<String> = (first..first + 4).map(|n| format!("G-A-{n}")).collect();
            let wish: Value = json!({ "seat_ids": ids });
            tokio::spawn(async move { customer.hold(&timetable, &wish).send().await })
        })
        .collect();
    let answers: Vec<Answer> = join_all(tasks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let held: Vec<String> = with_status(&answers, 201)
        .iter()
        .flat_map(|a| seat_ids(&a.json()))
        .collect();
    let distinct: BTreeSet<&String> = held.iter().collect();
    assert_eq!(held.len(), distinct.len(), "a seat was held twice");
    let map = server.anyone().map(&scene.timetable).await;
    assert_map_adds_up(&map);
    assert_eq!(number(&map, "held"), held.len() as i64);
}

#[tokio::test]
async fn many_orders_at_once_of_many_buyers_are_all_right() {
    let server = TestServer::shared().await;
    let scene = server.open(&Show::grid(10, 50, 1_000)).await;
    let customers = buyers(server, 200);
    join_all(customers.iter().map(|c| c.charge(PLENTY))).await;
    let timetable = scene.timetable.clone();
    let answers = all_at_once(&customers, |customer| {
        let timetable = timetable.clone();
        async move {
            let wish = json!({ "best_available": { "count": 2 } });
            let hold = customer.hold(&timetable, &wish).ok(201).await;
            customer.order(text(&hold, "hold_id")).send().await
        }
    })
    .await;
    assert_eq!(with_status(&answers, 201).len(), 200);
    for customer in &customers {
        assert_eq!(customer.balance().await, PLENTY - 2_000);
    }
    let map = server.anyone().map(&scene.timetable).await;
    assert_eq!((number(&map, "sold"), number(&map, "held")), (400, 0));
}
