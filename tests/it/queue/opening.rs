//! Before the sale opens, and the opening by lot.

use std::time::Duration;

use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{SOON, join, queue, state, until};
use crate::harness::{Show, TestServer, eventually, in_millis, list, number, text};

#[tokio::test]
async fn before_the_opening_everybody_waits_with_their_number() {
    let server = TestServer::shared().await;
    let show = Show::small()
        .with("opens_at", in_millis(2_500).into())
        .with("queue", json!({ "max_active": 1 }));
    let scene = server.open(&show).await;
    let (first, second) = (server.buyer(), server.buyer());
    let early = join(&first, &scene).await;
    assert_eq!(
        (&early["state"], &early["number"]),
        (&json!("pre_queue"), &json!(1))
    );
    assert_eq!(
        (&early["position"], &early["pass"]),
        (&json!(1), &Value::Null)
    );
    join(&second, &scene).await;
    until(&first, &scene, "admitted").await;
    let waits = state(&second, &scene).await;
    assert_eq!(
        (&waits["state"], &waits["position"]),
        (&json!("waiting"), &json!(1))
    );
}

#[tokio::test]
async fn anyone_can_check_an_opening_by_lot() {
    let server = TestServer::shared().await;
    let show = Show::small()
        .with("opens_at", in_millis(4_000).into())
        .with("queue", json!({ "max_active": 3, "opening": "lottery" }));
    let scene = server.open(&show).await;
    let shown = scene.read(&server.anyone()).await;
    let commitment = text(&shown["queue"], "commitment").to_owned();
    let mut buyers = Vec::new();
    for _ in 0..8 {
        let buyer = server.buyer();
        let place = join(&buyer, &scene).await;
        assert_eq!(place["state"], "pre_queue");
        assert_eq!(
            (&place["number"], &place["position"]),
            (&Value::Null, &Value::Null)
        );
        buyers.push(buyer);
    }
    let at = format!("{}/draw", queue(&scene));
    let before = server.anyone().get(&at).ok(200).await;
    assert_eq!(text(&before, "commitment"), commitment);
    assert_eq!(
        (&before["seed"], &before["entrants"]),
        (&Value::Null, &json!([]))
    );
    let drawn = eventually("the draw", SOON, || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let draw = server.anyone().get(&at).ok(200).await;
        (!draw["seed"].is_null()).then_some(draw)
    })
    .await;
    let unhex = |text: &str| -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let seed = unhex(text(&drawn, "seed"));
    assert_eq!(Sha256::digest(&seed).to_vec(), unhex(&commitment));
    let entrants = list(&drawn, "entrants");
    assert_eq!(entrants.len(), buyers.len());
    let mut ranks = Vec::new();
    for (expected, entrant) in (1..).zip(entrants) {
        assert_eq!(number(entrant, "number"), expected);
        let id: uuid::Uuid = text(entrant, "ticket_id").parse().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&seed).unwrap();
        mac.update(id.as_bytes());
        ranks.push(mac.finalize().into_bytes().to_vec());
    }
    assert!(ranks.is_sorted(), "not in the order of the ranks");
    let mut numbers = Vec::new();
    for buyer in &buyers {
        numbers.push(number(&state(buyer, &scene).await, "number"));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<i64>>());
    let late = join(&server.buyer(), &scene).await;
    assert!(
        number(&late, "number") > 8,
        "behind everybody who was drawn"
    );
}
