//! Somebody in a waiting room, who keeps a record of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::common::client::{Answer, Call as Request, Client};
use crate::common::fresh_key;
use crate::common::random::Random;
use crate::queue_history::{Call, History, Millis, Record, Shown, State, Told, User};

/// A call that takes longer is one whose outcome is unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Whoever is told nothing waits a little.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

/// The longest pauses between two calls, and before somebody looks again after
/// a restart.
const PAUSE_MILLIS: u64 = 30;
const RETURN_MILLIS: u64 = 300;

/// One in so many keeps the pass until it ends by itself.
const SLEEPY: usize = 16;

/// Where somebody believes to be.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stand {
    Out,
    Waiting,
    Inside {
        pass: String,
    },
    /// Has bought, and is shown out.
    Bought,
}

pub(crate) struct Person {
    pub(crate) user: User,
    pub(crate) client: Client,
    queue: String,
    timetable: String,
    history: Arc<Mutex<History>>,
    random: Random,
    stand: Stand,
    number: u32,
    ticket: String,
    /// The server has been away, and may not know us.
    returns: bool,
}

/// Now, as the server tells times.
pub(crate) fn now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}

impl Person {
    pub(crate) fn new(
        user: User,
        client: Client,
        (performance, timetable): (&str, &str),
        history: &Arc<Mutex<History>>,
        seed: u64,
    ) -> Self {
        Self {
            user,
            client,
            queue: format!("/performances/{performance}/queue"),
            timetable: timetable.to_owned(),
            history: Arc::clone(history),
            random: Random::seeded(seed),
            stand: Stand::Out,
            number: 0,
            ticket: String::new(),
            returns: false,
        }
    }

    /// The server is there again, at another address.
    pub(crate) fn return_to(&mut self, client: &Client) {
        self.client = client.with_token(self.client.token());
        self.returns = true;
    }

    pub(crate) async fn act_until(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            self.act().await;
        }
        self
    }

    /// Waits to the end, goes in and leaves.
    pub(crate) async fn finish_until(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) && (self.returns || self.stand != Stand::Out) {
            if self.returns {
                self.come_back().await;
            } else if self.stand == Stand::Waiting {
                self.look().await;
            } else {
                self.leave().await;
            }
            self.pause(PAUSE_MILLIS).await;
        }
        self
    }

    async fn act(&mut self) {
        if self.returns {
            self.come_back().await;
            return;
        }
        match (self.stand.clone(), self.random.below(20)) {
            (Stand::Out, _) | (Stand::Waiting, 1) => self.join().await,
            (Stand::Waiting, 0) => self.leave().await,
            (Stand::Inside { .. }, 0..8) if !self.user.is_multiple_of(SLEEPY) => {
                self.leave().await;
            }
            (Stand::Inside { pass }, 8..12) if !self.user.is_multiple_of(SLEEPY) => {
                self.buy(&pass).await;
            }
            (Stand::Inside { pass }, 12..14) => drop(self.hold(&pass).await),
            (Stand::Waiting | Stand::Inside { .. } | Stand::Bought, _) => drop(self.look().await),
        }
        self.pause(PAUSE_MILLIS).await;
    }

    async fn pause(&mut self, most: u64) {
        let millis = self.random.below(most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Who has no place may be a newcomer before others are back; who has one
    /// shows the ticket only where it isn't known.
    async fn come_back(&mut self) {
        if self.stand == Stand::Out && self.random.below(2) == 0 {
            self.returns = false;
            return;
        }
        self.pause(RETURN_MILLIS).await;
        let (stand, number, ticket) = (self.stand.clone(), self.number, self.ticket.clone());
        let mut told = self.look().await;
        let is_known = matches!(told, Told::Place(shown) if shown.number == number);
        if stand != Stand::Out && told != Told::Nothing && !is_known {
            let look = self.client.get(&self.queue).header("queue-ticket", &ticket);
            told = self.send(Call::Restore, look).await;
        }
        if told == Told::Nothing {
            (self.stand, self.number, self.ticket) = (stand, number, ticket);
        } else {
            self.returns = false;
        }
    }

    async fn join(&mut self) {
        let join = self.client.post(&self.queue, &json!({}));
        self.send(Call::Join, join).await;
    }

    async fn look(&mut self) -> Told {
        let look = self.client.get(&self.queue);
        self.send(Call::Look, look).await
    }

    async fn leave(&mut self) {
        let leave = self.client.delete(&self.queue);
        if self.send(Call::Leave, leave).await == Told::Done {
            self.stand = Stand::Out;
        }
    }

    /// Seats, if the pass is good; the hold's id.
    async fn hold(&mut self, pass: &str) -> Option<String> {
        let wish = json!({ "best_available": { "count": 1 } });
        let hold = self.client.hold(&self.timetable, &wish);
        let (told, answer) = self.ask(Call::Hold, hold.header("queue-pass", pass)).await;
        if told == Told::PassRefused {
            // It may have ended meanwhile.
            self.look().await;
        }
        let hold = answer.filter(|_| told == Told::Done)?.json();
        Some(hold["hold_id"].as_str().unwrap().to_owned())
    }

    async fn buy(&mut self, pass: &str) {
        let Some(hold) = self.hold(pass).await else {
            return;
        };
        let body = json!({ "hold_id": hold, "payment": { "method": "wallet" } });
        let order = self.client.order_body(&body).key(&fresh_key());
        self.ask(Call::Buy, order).await;
        self.stand = Stand::Bought;
    }

    /// Sends, and believes what is told.
    async fn send(&mut self, call: Call, request: Request) -> Told {
        let (told, answer) = self.ask(call, request).await;
        match told {
            Told::Place(shown) => self.believe(shown, &answer.unwrap().json()),
            Told::NoPlace => self.stand = Stand::Out,
            Told::PassRefused | Told::Done | Told::Nothing => {}
        }
        told
    }

    fn believe(&mut self, shown: Shown, body: &Value) {
        self.number = shown.number;
        body["ticket"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.ticket);
        self.stand = match shown.state {
            State::Waiting { .. } => Stand::Waiting,
            State::Admitted { .. } if self.stand == Stand::Bought => Stand::Bought,
            State::Admitted { .. } => Stand::Inside {
                pass: body["pass"].as_str().unwrap().to_owned(),
            },
            State::Expired | State::Left => Stand::Out,
        };
    }

    /// Sends, and records what is told.
    async fn ask(&mut self, call: Call, request: Request) -> (Told, Option<Answer>) {
        let sent_at = now();
        let answer = request.timeout(CALL_TIMEOUT).try_send().await.ok();
        let told = answer.as_ref().map_or(Told::Nothing, told_by);
        let told_at = now();
        self.history.lock().await.push(Record {
            user: self.user,
            call,
            sent_at,
            told,
            told_at,
        });
        if told == Told::Nothing {
            tokio::time::sleep(UNKNOWN_PAUSE).await;
        }
        (told, answer)
    }
}

fn told_by(answer: &Answer) -> Told {
    if answer.status >= 400 {
        let problem = answer.assert_any_problem();
        return match (answer.status, problem["code"].as_str().unwrap()) {
            (404, "not-in-queue") => Told::NoPlace,
            (403, _) => Told::PassRefused,
            (503 | 504, _) => Told::Nothing,
            (status, _) => panic!("{}: {status} {problem}", answer.what),
        };
    }
    if answer.status == 204 {
        return Told::Done;
    }
    let body = answer.json();
    if body["type"] != "state" {
        return Told::Done;
    }
    let state = match body["state"].as_str().unwrap() {
        "waiting" => State::Waiting {
            position: u32::try_from(body["position"].as_u64().unwrap()).unwrap(),
        },
        "admitted" => State::Admitted {
            expires_at: millis(&body["pass_expires_at"]),
        },
        "expired" => State::Expired,
        "left" => State::Left,
        other => panic!("{}: {other}", answer.what),
    };
    Told::Place(Shown {
        number: u32::try_from(body["number"].as_u64().unwrap()).unwrap(),
        is_new: answer.status == 201,
        state,
    })
}

fn millis(time: &Value) -> Millis {
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_millisecond()
}
