//! More than can be served: refused at once, and what was admitted is served.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Show, TestServer, eventually, fresh_key, text};

/// A refusal does no work, so it comes at once; with slack.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn excess_is_refused_at_once_and_what_was_admitted_happens() {
    let server = TestServer::start_with(|config| config.actors.permits_max = 4).await;
    let buyer = server.buyer();
    let mut charged = 0;
    let mut refused = 0;
    // A permit is kept until the answer leaves, so many at once are too many.
    for _ in 0..5 {
        let calls = (0..100).map(|_| async {
            let asked = Instant::now();
            let answer = buyer
                .post("/wallet/charges", &json!({ "amount": 1 }))
                .key(&fresh_key())
                .send()
                .await;
            (answer, asked.elapsed())
        });
        for (answer, took) in join_all(calls).await {
            if answer.status == 201 {
                charged += 1;
                continue;
            }
            answer.assert_problem(503, "overloaded");
            assert!(took < REFUSAL_LIMIT, "{took:?}");
            refused += 1;
        }
    }
    assert!(charged > 0, "nobody was served");
    assert!(refused > 0, "nobody was refused");
    assert_eq!(buyer.balance().await, charged);
    // And it is over when the crowd is gone.
    buyer.charge(1).await;
    server.stop().await;
}

#[tokio::test]
async fn what_was_admitted_goes_on_to_its_end_among_the_refused() {
    let server = TestServer::start_with(|config| config.actors.permits_max = 4).await;
    let scene = server.open(&Show::grid(4, 50, 10)).await;
    let buyers = join_all((0..40).map(|_| server.buyer_with_money(10))).await;
    let timetable = scene.timetable.as_str();
    // Each tries again when refused; an order that got in is never refused
    // half way, so in the end everybody has exactly one.
    let buy = |buyer: crate::harness::Client| async move {
        let wish = json!({ "best_available": { "count": 1 } });
        let hold = eventually("a hold", Duration::from_secs(30), async || {
            let answer = buyer.hold(timetable, &wish).send().await;
            (answer.status == 201).then(|| answer.json())
        })
        .await;
        let key = fresh_key();
        let body = json!({ "hold_id": hold["hold_id"], "payment": { "method": "wallet" } });
        eventually("an order", Duration::from_secs(30), async || {
            let answer = buyer.order_body(&body).key(&key).send().await;
            match answer.status {
                201 => Some(()),
                503 => {
                    answer.assert_problem(503, "overloaded");
                    None
                }
                _ => {
                    answer.assert_problem(409, "idempotency-key-in-use");
                    None
                }
            }
        })
        .await;
        assert_eq!(buyer.balance().await, 0);
    };
    join_all(buyers.into_iter().map(buy)).await;
    let map = server.anyone().map(&scene.timetable).await;
    assert_eq!((&map["sold"], &map["held"]), (&json!(40), &json!(0)));
    server.stop().await;
}

#[tokio::test]
async fn one_user_may_take_only_so_many_holds_a_second() {
    let server = TestServer::start_with(|config| {
        config.rates.holds_per_second = 2;
        config.rates.holds_burst = 5;
    })
    .await;
    let scene = server.small().await;
    let (greedy, modest) = (server.buyer(), server.buyer());
    let wish = json!({ "best_available": { "count": 1 } });
    for _ in 0..5 {
        let answer = greedy.hold(&scene.timetable, &wish).send().await;
        assert_ne!(answer.status, 429);
    }
    let mut limited = None;
    for _ in 0..5 {
        let answer = greedy.hold(&scene.timetable, &wish).send().await;
        if answer.status == 429 {
            limited = Some(answer);
        }
    }
    let limited = limited.expect("the limit");
    let problem = limited.assert_problem(429, "rate-limited");
    assert!(!text(&problem, "title").is_empty());
    assert!(
        limited
            .headers
            .keys()
            .any(|name| name.as_str().starts_with("ratelimit")),
        "{:?}",
        limited.headers
    );
    // The limit is of that user alone, and soon over.
    modest.hold(&scene.timetable, &wish).ok(201).await;
    eventually("no limit", Duration::from_secs(5), async || {
        let answer = greedy.hold(&scene.timetable, &wish).send().await;
        (answer.status != 429).then_some(())
    })
    .await;
    server.stop().await;
}
