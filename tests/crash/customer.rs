//! What a customer does under load, and how it is recorded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::common::client::{Answer, Client};
use crate::common::fresh_key;
use crate::common::random::Random;
use crate::history::{HeldSeats, History, Outcome, Record, Request, User};

/// A call that takes longer is one whose outcome is unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Whoever is told nothing, or to come back later, waits a little: else an
/// outage would fill the history.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

/// What all tasks write to.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) history: History,
    pub(crate) held: Vec<HeldSeats>,
}

/// One task of a customer.
pub(crate) struct Customer {
    pub(crate) user: User,
    pub(crate) client: Client,
    pub(crate) timetable: String,
    pub(crate) shared: Arc<Mutex<Shared>>,
    pub(crate) random: Random,
}

impl Customer {
    pub(crate) async fn act_until(mut self, stop: Arc<AtomicBool>) {
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
                6 => self.cancel().await,
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
        if answer.status == 503 {
            tokio::time::sleep(UNKNOWN_PAUSE).await;
        }
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

    /// All, or one seat, of an order that is perhaps cancelled already.
    async fn cancel(&mut self) {
        let request = {
            let shared = self.shared.lock().await;
            let orders = shared.history.orders_of(self.user);
            if orders.is_empty() {
                return;
            }
            let (order_id, seats) = *self.random.pick(&orders);
            let seats: Vec<&String> = seats.iter().collect();
            let one = BTreeSet::from([(*self.random.pick(&seats)).clone()]);
            Request::Cancel {
                order_id: order_id.to_owned(),
                seats: (self.random.below(2) == 0).then_some(one),
            }
        };
        send_recorded(&self.client, &self.shared, self.user, request).await;
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

/// The seats in an answer that were given back.
pub(crate) fn cancelled_seats_of(value: &Value) -> BTreeSet<String> {
    let seats = value["seats"].as_array().unwrap().iter();
    let gone = seats.filter(|seat| seat["status"] == "cancelled");
    gone.map(|seat| seat["seat_id"].as_str().unwrap().to_owned())
        .collect()
}

impl Client {
    pub(crate) async fn charge_recorded(&self, shared: &Mutex<Shared>, user: User, amount: i64) {
        send_recorded(self, shared, user, Request::Charge { amount }).await;
    }
}

/// Records the call as unknown before it is sent, and its outcome after.
pub(crate) async fn send_recorded(
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
    if outcome == Outcome::Unknown {
        tokio::time::sleep(UNKNOWN_PAUSE).await;
    }
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
        Request::Cancel { order_id, seats } => {
            let path = format!("/orders/{order_id}/cancel");
            let body = match seats {
                Some(seats) => json!({ "seat_ids": seats }),
                None => json!({}),
            };
            client.post(&path, &body)
        }
    };
    call.key(key).timeout(CALL_TIMEOUT).try_send().await
}

pub(crate) async fn send(client: &Client, key: &str, request: &Request) -> Answer {
    try_send(client, key, request)
        .await
        .expect("the server answers")
}

/// What an answer says for good about its key.
pub(crate) fn outcome_of(request: &Request, answer: &Answer) -> Outcome {
    match answer.status {
        200 => {
            let order = answer.json();
            Outcome::Cancelled {
                cancelled: cancelled_seats_of(&order),
                refunded: order["refunded"].as_i64().unwrap(),
            }
        }
        201 => match request {
            Request::Charge { .. } => Outcome::Charged,
            Request::Cancel { .. } => panic!("{}: {}", answer.what, answer.text()),
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

pub(crate) fn seats_of(value: &Value) -> BTreeSet<String> {
    value["seats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seat| seat["seat_id"].as_str().unwrap().to_owned())
        .collect()
}
