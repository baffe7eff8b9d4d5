//! One of the crowd: joins, polls, buys when admitted.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{Challenge, State, Summary};
use super::checks::Checks;
use crate::api::{BASE, Hold, Order, Problem};
use crate::buyer::Buyer;
use crate::client::Request;
use crate::pool::{Pool, Reply};
use crate::random::Random;
use crate::tally::{Outcome, Refused, Step, Tally};

/// How often a request is sent again whose answer is lost, and how often one
/// comes back whom the server has too much to do for.
const TRIES_MAX: u32 = 8;
const LOST_PAUSE: Duration = Duration::from_millis(250);

/// How often a proof of work is given at most: it may have become harder.
const PROOFS_MAX: u32 = 4;

/// One of so many joins twice, to see that it keeps its place.
const TWICE: usize = 20;

/// A place is over so long after the purchase at most; the server promises a
/// second.
const LEFT_PATIENCE: Duration = Duration::from_secs(15);

/// What the crowd shares.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) pool: Pool,
    /// For those inside, so that they don't stand in line with pollers.
    pub(super) pool_inside: Pool,
    pub(super) performance: String,
    pub(super) timetable: String,
    pub(super) checks: Checks,
    pub(super) tally: Tally,
    /// Everybody joins now.
    pub(super) starts_at: Instant,
    /// Nobody polls or begins to buy after this.
    pub(super) ends_at: Instant,
    /// The longest pause between two polls.
    pub(super) poll: Duration,
    /// How many of those inside leave without buying, from 0 to 1.
    pub(super) leave_share: f64,
    /// How many of those inside let their pass run out, from 0 to 1.
    pub(super) idle_share: f64,
    /// How long those inside think before they buy, at most.
    pub(super) think: Duration,
    /// Solve the proof of work that the server asks for.
    pub(super) solve: bool,
    pub(super) run: String,
    pub(super) ends: Mutex<Ends>,
}

/// How those who were inside ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) bought: u64,
    pub(super) left: u64,
    pub(super) expired: u64,
}

impl Ends {
    /// How many places they made for others.
    pub(super) fn freed(self) -> u64 {
        self.bought + self.left + self.expired
    }
}

/// Where one stands at the end.
#[derive(Clone, Debug)]
pub(super) enum Stand {
    /// Nothing is known.
    Nowhere,
    /// Waits with this number.
    Waits(u32),
    /// Was inside.
    WasInside,
}

type Journey<T> = Result<T, Outcome>;

impl Crowd {
    /// Waits until the start, then goes all the way.
    pub(super) async fn serve(self: Arc<Self>, who: usize, buyer: Arc<Buyer>) -> Stand {
        sleep_until(self.starts_at).await;
        let mut stand = Stand::Nowhere;
        let mut random = Random::new(who as u64);
        let outcome = match self.journey(who, &buyer, &mut random, &mut stand).await {
            Ok(outcome) | Err(outcome) => outcome,
        };
        self.tally.ended(outcome);
        stand
    }

    fn path(&self) -> String {
        format!("{BASE}/performances/{}/queue", self.performance)
    }

    async fn journey(
        &self,
        who: usize,
        buyer: &Buyer,
        random: &mut Random,
        stand: &mut Stand,
    ) -> Journey<Outcome> {
        let mut state = self.join(who, buyer).await?;
        let number = state.number;
        if let Some(number) = number {
            self.checks.has(who, number);
            *stand = Stand::Waits(number);
        }
        let mut pause = self.poll;
        loop {
            self.check_same(who, number, &state);
            match state.state.as_str() {
                "admitted" => break,
                "pre_queue" | "waiting" | "closed" => {}
                _ => return Err(Outcome::Failed(format!("waiting, then {}", state.state))),
            }
            if Instant::now() + pause > self.ends_at {
                return Ok(Outcome::OutOfTime);
            }
            // Not all in the same instant.
            let part = random.below(250) as u32;
            sleep(pause * (750 + 2 * part) / 1000).await;
            let (next, retry_after) = self.poll(buyer, Some(&state)).await?;
            pause = retry_after.unwrap_or(self.poll).min(self.poll);
            state = next;
        }
        *stand = Stand::WasInside;
        if let Some(number) = number {
            self.checks.entered(number);
        }
        let Some(pass) = state.pass else {
            return Err(Outcome::Failed("admitted without a pass".to_owned()));
        };
        self.inside(who, buyer, &pass, random).await
    }

    /// A place never changes, and never moves back.
    fn check_same(&self, who: usize, number: Option<u32>, state: &State) {
        if state.number != number {
            let now = state.number;
            self.checks.found(format!(
                "buyer {who} had number {number:?}, and has {now:?}"
            ));
        }
    }

    async fn join(&self, who: usize, buyer: &Buyer) -> Journey<State> {
        let path = self.path();
        let request = Request {
            method: "POST",
            ..Request::get(&path)
        };
        let request = request.by(&buyer.token);
        let mut reply = self.call(&self.pool, Step::Join, &request).await?;
        for _ in 0..PROOFS_MAX {
            let Some(challenge) = Challenge::of(&reply.body).filter(|_| self.solve) else {
                break;
            };
            let solved = challenge.solved().await.map_err(Outcome::Failed)?;
            let request = request.with_proof(&solved);
            reply = self.call(&self.pool, Step::Join, &request).await?;
        }
        if !matches!(reply.status, 200 | 201) {
            return Err(refused("POST queue", &reply));
        }
        let state: State = read("POST queue", &reply)?;
        if who.is_multiple_of(TWICE) {
            let reply = self.call(&self.pool, Step::Join, &request).await?;
            let again: State = read("POST queue", &reply)?;
            if reply.status != 200 || again.number != state.number {
                let (was, is) = (state.number, again.number);
                self.checks.found(format!(
                    "buyer {who} joined twice: {}, {was:?} then {is:?}",
                    reply.status
                ));
            }
        }
        Ok(state)
    }

    async fn poll(
        &self,
        buyer: &Buyer,
        before: Option<&State>,
    ) -> Journey<(State, Option<Duration>)> {
        let path = self.path();
        let inside = self.checks.admitted_max();
        let request = Request::get(&path).by(&buyer.token);
        let reply = self.call(&self.pool, Step::Poll, &request).await?;
        if reply.status != 200 {
            return Err(broken("GET queue", &reply));
        }
        let state: State = read("GET queue", &reply)?;
        if state.state == "waiting"
            && let Some(number) = state.number
        {
            self.checks.waits(number, inside);
        }
        let moved_back = before.and_then(|b| b.position).zip(state.position);
        if let Some((was, is)) = moved_back.filter(|(was, is)| is > was) {
            self.checks.found(format!(
                "number {:?} moved back from position {was} to {is}",
                state.number
            ));
        }
        if state.ticket.is_empty() {
            self.checks.found("an answer without a ticket".to_owned());
        }
        Ok((state, reply.retry_after))
    }

    /// Buys, or leaves.
    async fn inside(
        &self,
        who: usize,
        buyer: &Buyer,
        pass: &str,
        random: &mut Random,
    ) -> Journey<Outcome> {
        if random.chance(self.idle_share) {
            return self.expire(buyer).await;
        }
        let think = self.think.as_millis() as usize;
        sleep(Duration::from_millis(random.below(think + 1) as u64)).await;
        if Instant::now() > self.ends_at {
            return Ok(Outcome::OutOfTime);
        }
        if random.chance(self.leave_share) {
            return self.leave(buyer).await;
        }
        let path = format!("{BASE}/timetables/{}/holds", self.timetable);
        let body = br#"{"best_available":{"count":1,"adjacent":false}}"#;
        let request = Request::post(&path, body).by(&buyer.token).with_pass(pass);
        let reply = self.call(&self.pool_inside, Step::Hold, &request).await?;
        if reply.status != 201 {
            let problem = Problem::of(&reply.body);
            if problem.code == "no-seats-match" {
                self.leave(buyer).await?;
                return Err(Outcome::Refused(Refused::SoldOut));
            }
            if problem.code == "queue-pass-expired" {
                self.ends.lock().expired += 1;
                return Err(Outcome::Refused(Refused::Other(
                    "thought for too long".to_owned(),
                )));
            }
            return Err(broken("POST holds", &reply));
        }
        let hold: Hold = read("POST holds", &reply)?;
        self.order(who, buyer, &hold).await?;
        self.wait_until_left(buyer).await?;
        self.ends.lock().bought += 1;
        Ok(Outcome::Bought)
    }

    async fn order(&self, who: usize, buyer: &Buyer, hold: &Hold) -> Journey<()> {
        let path = format!("{BASE}/orders");
        let key = format!("{}-{who}", self.run);
        let body = serde_json::json!({
            "hold_id": hold.hold_id,
            "payment": { "method": "wallet" },
        })
        .to_string();
        let request = Request::post(&path, body.as_bytes())
            .by(&buyer.token)
            .keyed(&key);
        let reply = self.call(&self.pool_inside, Step::Order, &request).await?;
        if reply.status != 201 {
            return Err(broken("POST orders", &reply));
        }
        let order: Order = read("POST orders", &reply)?;
        let seats = order.seats.iter().map(|seat| &seat.seat_id);
        self.tally.sold(&order.order_id, order.amount, seats);
        Ok(())
    }

    async fn wait_until_left(&self, buyer: &Buyer) -> Journey<()> {
        let begun = Instant::now();
        loop {
            let (state, _) = self.poll(buyer, None).await?;
            match state.state.as_str() {
                "left" => return Ok(()),
                "expired" => {
                    self.ends.lock().expired += 1;
                    return Err(Outcome::Failed(
                        "a pass expired after the purchase".to_owned(),
                    ));
                }
                _ if begun.elapsed() > LEFT_PATIENCE => {
                    return Err(Outcome::Failed(format!(
                        "still {} long after the purchase",
                        state.state
                    )));
                }
                _ => sleep(LOST_PAUSE).await,
            }
        }
    }

    /// Does nothing until the pass has run out.
    async fn expire(&self, buyer: &Buyer) -> Journey<Outcome> {
        loop {
            if Instant::now() + self.poll > self.ends_at {
                return Ok(Outcome::OutOfTime);
            }
            sleep(self.poll).await;
            let (state, _) = self.poll(buyer, None).await?;
            match state.state.as_str() {
                "admitted" => {}
                "expired" => break,
                other => return Err(Outcome::Failed(format!("inside, then {other}"))),
            }
        }
        self.ends.lock().expired += 1;
        Ok(Outcome::Refused(Refused::Other(
            "let the pass run out".to_owned(),
        )))
    }

    async fn leave(&self, buyer: &Buyer) -> Journey<Outcome> {
        let path = self.path();
        let request = Request::delete(&path).by(&buyer.token);
        let reply = self.call(&self.pool_inside, Step::Leave, &request).await?;
        if reply.status != 204 {
            return Err(broken("DELETE queue", &reply));
        }
        self.ends.lock().left += 1;
        Ok(Outcome::Refused(Refused::Other(
            "left by choice".to_owned(),
        )))
    }

    /// How the queue says that one stands, after the end.
    pub(super) async fn stands(&self, buyer: &Buyer) -> Result<State, String> {
        let polled = self.poll(buyer, None).await;
        polled
            .map(|(state, _)| state)
            .map_err(|outcome| format!("{outcome:?}"))
    }

    /// The figures, checked.
    ///
    /// # Errors
    /// A line for a person.
    pub(super) async fn look(&self) -> Result<Summary, String> {
        let path = format!("{}/summary", self.path());
        let asked = Instant::now();
        let summary = self.pool_inside.expect(200, &Request::get(&path)).await?;
        self.checks.look(&summary, asked, Instant::now());
        Ok(summary)
    }

    /// Sends a request until it has an answer that isn't 429 or 503. All of
    /// them may be sent twice: a second hold would be refused by the limit.
    async fn call(&self, pool: &Pool, step: Step, request: &Request<'_>) -> Journey<Reply> {
        let mut lost = String::new();
        for _ in 0..TRIES_MAX {
            match pool.call(request).await {
                Ok(reply) if matches!(reply.status, 429 | 503) => {
                    self.tally.shed();
                    sleep(reply.retry_after.unwrap_or(Duration::from_secs(1))).await;
                }
                Ok(reply) => {
                    self.tally.took(step, reply.took);
                    return Ok(reply);
                }
                Err(error) => {
                    lost = error;
                    sleep(LOST_PAUSE).await;
                }
            }
        }
        if lost.is_empty() {
            Err(Outcome::Shed)
        } else {
            Err(Outcome::Failed(format!("{step:?}: {lost}")))
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(what: &str, reply: &Reply) -> Journey<T> {
    serde_json::from_slice(&reply.body)
        .map_err(|error| Outcome::Failed(format!("{what}: unreadable answer: {error}")))
}

/// A refusal by the rules, or a failure.
fn refused(what: &str, reply: &Reply) -> Outcome {
    let code = Problem::of(&reply.body).code;
    match code.as_str() {
        "queue-full" | "queue-closed" => Outcome::Refused(Refused::Other(code)),
        _ => broken(what, reply),
    }
}

fn broken(what: &str, reply: &Reply) -> Outcome {
    let code = Problem::of(&reply.body).code;
    Outcome::Failed(format!("{what}: {} {code}", reply.status))
}
