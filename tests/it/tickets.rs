//! Tickets: issued after the order, checkable without a network.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use serde_json::Value;

use crate::harness::{Client, Scene, TICKET_LIMIT, TestServer, eventually, list, seat_ids, text};

/// Buys two seats and waits for their tickets.
async fn two_tickets(server: &TestServer) -> (Client, Scene, Value, Vec<Value>) {
    let scene = server.small().await;
    let buyer = server.buyer_with_money(1_000_000).await;
    let hold = buyer
        .hold_seats(&scene.timetable, &["F1-A-1", "F1-A-2"])
        .await;
    let order = buyer.order(text(&hold, "hold_id")).ok(201).await;
    let tickets = eventually("two tickets", TICKET_LIMIT, async || {
        let page = buyer.get("/tickets").ok(200).await;
        let tickets = list(&page, "items").to_vec();
        (tickets.len() == 2).then_some(tickets)
    })
    .await;
    (buyer, scene, order, tickets)
}

#[tokio::test]
async fn an_order_has_one_ticket_a_seat_in_time() {
    let server = TestServer::shared().await;
    let (buyer, scene, order, tickets) = two_tickets(server).await;
    let mut seats: Vec<&str> = tickets.iter().map(|t| text(t, "seat_id")).collect();
    seats.sort_unstable();
    assert_eq!(seats, seat_ids(&order));
    for ticket in &tickets {
        let id = text(ticket, "ticket_id");
        let read = buyer.get(&format!("/tickets/{id}")).ok(200).await;
        assert_eq!(&read, ticket);
        assert_eq!(read["order_id"], order["order_id"]);
        assert_eq!(read["timetable_id"], scene.timetable);
        for member in ["performance", "starts_at", "holder", "code", "status"] {
            assert!(read.get(member).is_some(), "{member} in {read}");
        }
        server
            .buyer()
            .get(&format!("/tickets/{id}"))
            .problem(404, "ticket-not-found")
            .await;
    }
    assert_eq!(
        list(&server.buyer().get("/tickets").ok(200).await, "items").len(),
        0
    );
}

#[tokio::test]
async fn a_ticket_is_a_picture_too() {
    let server = TestServer::shared().await;
    let (buyer, _, _, tickets) = two_tickets(server).await;
    let path = format!("/tickets/{}/qr.svg", text(&tickets[0], "ticket_id"));
    let answer = buyer.get(&path).send().await;
    answer.assert_status(200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("image/svg+xml")
    );
    assert!(answer.text().contains("<svg"));
    assert_eq!(server.buyer().get(&path).send().await.status, 404);
    assert_eq!(server.anyone().get(&path).send().await.status, 401);
}

#[tokio::test]
async fn a_door_can_check_a_code_with_the_public_keys_alone() {
    let server = TestServer::shared().await;
    let (_, _, _, tickets) = two_tickets(server).await;
    let keys = server.anyone().get("/tickets/keys").ok(200).await;
    for key in list(&keys, "keys") {
        assert_eq!(key["kty"], "OKP");
        assert_eq!(key["crv"], "Ed25519");
        assert!(key.get("d").is_none(), "never the private key");
        assert!(key["kid"].is_string());
    }
    for ticket in &tickets {
        let code = text(ticket, "code");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(code.chars().all(allowed), "{code}");
        assert!(is_signed(code, &keys), "{code} by {keys}");
        let mut tampered = code.to_owned().into_bytes();
        let middle = code.find('.').unwrap() + 3;
        tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
        assert!(!is_signed(std::str::from_utf8(&tampered).unwrap(), &keys));
    }
    assert_ne!(tickets[0]["code"], tickets[1]["code"]);
}

/// Whether the last part of `code` signs what is before it, as text (as in a
/// JWS) or as bytes.
fn is_signed(code: &str, keys: &Value) -> bool {
    let Some((signed, signature)) = code.rsplit_once('.') else {
        return false;
    };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
        return false;
    };
    let Ok(signature) = Signature::from_slice(&signature) else {
        return false;
    };
    let payload = signed.rsplit('.').next().unwrap_or(signed);
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    list(keys, "keys").iter().any(|key| {
        let public = URL_SAFE_NO_PAD.decode(text(key, "x")).unwrap();
        let public = VerifyingKey::from_bytes(&public.try_into().unwrap()).unwrap();
        public.verify(signed.as_bytes(), &signature).is_ok()
            || public.verify(&payload, &signature).is_ok()
    })
}

#[tokio::test]
async fn tickets_and_their_key_survive_a_restart() {
    let server = TestServer::start().await;
    let (buyer, _, order, before) = two_tickets(&server).await;
    let token = buyer.token().to_owned();
    let server = server.restart().await;
    let buyer = server.anyone().with_token(&token);
    let page = buyer.get("/tickets").ok(200).await;
    assert_eq!(list(&page, "items"), before);
    let keys = server.anyone().get("/tickets/keys").ok(200).await;
    assert!(is_signed(text(&before[0], "code"), &keys));
    let read = buyer
        .get(&format!("/orders/{}", text(&order, "order_id")))
        .ok(200)
        .await;
    assert_eq!(list(&read, "tickets").len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_ticket_is_404() {
    let buyer = TestServer::shared().await.buyer();
    let id = uuid::Uuid::now_v7();
    buyer
        .get(&format!("/tickets/{id}"))
        .problem(404, "ticket-not-found")
        .await;
}
