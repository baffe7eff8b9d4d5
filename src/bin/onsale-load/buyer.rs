//! One buyer: picks seats, holds them, thinks, pays, fetches the tickets, and
//! perhaps gives all or one of them back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::api::{BASE, Hold, Order, Problem, Seats};
use crate::client::Request;
use crate::pool::{Pool, Reply};
use crate::random::Random;
use crate::seat_map::SeatMap;
use crate::tally::{Outcome, Refused, Step, Tally};

/// How often a buyer tries again when others were faster.
const TAKEN_TRIES_MAX: u32 = 8;
/// How often a buyer comes back when the server has too much to do.
const SHED_TRIES_MAX: u32 = 5;
/// How often a request that may be repeated is repeated when its answer is
/// lost, or while its first sending still runs.
const REPEATS_MAX: u32 = 5;
/// How long a buyer waits for the tickets; the server promises 2 s.
const ISSUE_PATIENCE: Duration = Duration::from_secs(20);
/// The first pause between two looks at an order; each is twice as long as the
/// one before, up to [`LOOK_PAUSE_MAX`].
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a buyer waits for held seats to come back when nothing is free.
const HELD_PAUSE: Duration = Duration::from_millis(250);

/// Who buys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Buyer {
    pub(crate) user_id: String,
    /// The access token.
    pub(crate) token: String,
}

/// How buyers behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How many of them leave the choice of seats to the server, from 0 to 1.
    pub(crate) best_share: f64,
    /// How long they think before they pay, at least and at most.
    pub(crate) think_ms: (u64, u64),
    /// How many of them cancel what they bought, or one seat of it, from 0 to 1.
    pub(crate) cancel_share: f64,
    /// How old the seat map that they look at may be.
    pub(crate) map_age: Duration,
}

/// What all buyers of a run share.
#[derive(Debug)]
pub(crate) struct Sale {
    pub(crate) pool: Pool,
    /// For those who have bought. In one line with the buyers who still wait for
    /// a connection, they would measure that line instead of the issue of tickets.
    pub(crate) pool_of_owners: Pool,
    pub(crate) timetable: String,
    pub(crate) map: Mutex<SeatMap>,
    pub(crate) map_read_at: Mutex<Instant>,
    pub(crate) habits: Habits,
    pub(crate) tally: Tally,
    /// No buyer begins after this.
    pub(crate) ends_at: Instant,
    /// Nothing is free and nothing is held.
    pub(crate) sold_out: AtomicBool,
    /// Distinguishes the idempotency keys of this run.
    pub(crate) run: String,
}

/// Ends the journey of a buyer early.
type Journey<T> = Result<T, Outcome>;

impl Sale {
    /// The whole journey of a buyer.
    pub(crate) async fn serve(&self, number: usize, buyer: &Buyer) {
        let mut random = Random::new(number as u64);
        let outcome = match self.journey(number, buyer, &mut random).await {
            Ok(outcome) | Err(outcome) => outcome,
        };
        self.tally.ended(outcome);
    }

    async fn journey(&self, number: usize, buyer: &Buyer, random: &mut Random) -> Journey<Outcome> {
        let hold = self.hold(buyer, random).await?;
        let (least, most) = self.habits.think_ms;
        if most > 0 {
            let more = random.below((most - least + 1) as usize) as u64;
            sleep(Duration::from_millis(least + more)).await;
        }
        let order = match self.order(number, buyer, &hold).await {
            Ok(order) => order,
            Err(outcome) => {
                self.release(buyer, &hold).await;
                return Err(outcome);
            }
        };
        let order = self.fetch_tickets(buyer, order).await?;
        if !random.chance(self.habits.cancel_share) {
            return Ok(Outcome::Bought);
        }
        let keeps = if random.chance(0.5) {
            0
        } else {
            order.seats.len() - 1
        };
        self.cancel(number, buyer, &order, keeps).await?;
        Ok(Outcome::Cancelled)
    }

    /// Gives back all but the last `keeps` seats. The key makes it safe to ask again.
    async fn cancel(
        &self,
        number: usize,
        buyer: &Buyer,
        order: &Order,
        keeps: usize,
    ) -> Journey<()> {
        let path = format!("{BASE}/orders/{}/cancel", order.order_id);
        let key = format!("{}-{number}-cancel", self.run);
        let given = order.seats.len().saturating_sub(keeps);
        let seats = || order.seats.iter().take(given).map(|seat| &seat.seat_id);
        let body = serde_json::json!({ "seat_ids": seats().collect::<Vec<_>>() }).to_string();
        let request = Request::post(&path, body.as_bytes())
            .by(&buyer.token)
            .keyed(&key);
        // Another may be told to have them before this is told that they are free.
        self.tally.gives_back(seats());
        for _ in 0..=REPEATS_MAX {
            let reply = self.call(Step::Cancel, &request, REPEATS_MAX).await?;
            if reply.status == 200 {
                let order: Order = read("POST /orders/{id}/cancel", &reply)?;
                self.tally.cancelled(given, order.refunded);
                return Ok(());
            }
            if Problem::of(&reply.body).code != "idempotency-key-in-use" {
                return Err(broken_promise("POST /orders/{id}/cancel", &reply));
            }
            sleep(HELD_PAUSE).await;
        }
        let stuck = "POST /orders/{id}/cancel: its key stays in use";
        Err(Outcome::Failed(stuck.to_owned()))
    }

    /// Holds one to four seats, however the buyer chooses them.
    async fn hold(&self, buyer: &Buyer, random: &mut Random) -> Journey<Hold> {
        let mut count = [1, 2, 2, 2, 3, 4]
            .get(random.below(6))
            .copied()
            .unwrap_or(1);
        let section = self.map.lock().standing(random).map(str::to_owned);
        let best = random.chance(self.habits.best_share);
        let mut adjacent = true;
        for _ in 0..TAKEN_TRIES_MAX {
            if self.sold_out.load(Ordering::Relaxed) {
                return Err(Outcome::Refused(Refused::SoldOut));
            }
            if Instant::now() >= self.ends_at {
                return Err(Outcome::OutOfTime);
            }
            let body = if let Some(section) = &section {
                let wish = serde_json::json!({ "section": section, "count": count });
                serde_json::json!({ "general_admission": wish })
            } else if best {
                let wish = serde_json::json!({ "count": count, "adjacent": adjacent });
                serde_json::json!({ "best_available": wish })
            } else {
                self.look_at_the_map().await?;
                let seats = self.map.lock().pick(count, random);
                if seats.is_empty() {
                    self.wait_for_held_seats().await?;
                    continue;
                }
                serde_json::json!({ "seat_ids": seats })
            };
            let reply = self.post_hold(buyer, &body).await?;
            if reply.status == 201 {
                return read("POST /holds", &reply);
            }
            let problem = Problem::of(&reply.body);
            match problem.code.as_str() {
                "seat-unavailable" => {
                    self.tally.lost_race();
                    self.map.lock().taken(&problem.seat_ids);
                }
                "no-seats-match" => match problem.available {
                    Some(0) | None => self.wait_for_held_seats().await?,
                    Some(available) => {
                        adjacent = false;
                        count = count.min(available as usize);
                    }
                },
                "seat-limit-exceeded" => return Err(Outcome::Refused(Refused::Limit)),
                _ => return Err(unexpected("POST /holds", &reply)),
            }
        }
        Err(Outcome::Refused(Refused::Taken))
    }

    async fn post_hold(&self, buyer: &Buyer, body: &serde_json::Value) -> Journey<Reply> {
        let path = format!("{BASE}/timetables/{}/holds", self.timetable);
        let body = body.to_string();
        let request = Request::post(&path, body.as_bytes()).by(&buyer.token);
        // Not repeated when its answer is lost: seats may be held by then.
        self.call(Step::Hold, &request, 0).await
    }

    /// Refreshes the map if it is old. One buyer asks, the others go on with
    /// what there is.
    async fn look_at_the_map(&self) -> Journey<()> {
        {
            let mut read_at = self.map_read_at.lock();
            if read_at.elapsed() < self.habits.map_age {
                return Ok(());
            }
            *read_at = Instant::now();
        }
        self.read_map().await
    }

    /// Brings the map up to date.
    async fn read_map(&self) -> Journey<()> {
        let version = self.map.lock().version();
        let path = format!("{BASE}/timetables/{}/seats?since={version}", self.timetable);
        let request = Request::get(&path);
        let reply = self.call(Step::Map, &request, REPEATS_MAX).await?;
        if reply.status != 200 {
            return Err(unexpected("GET /seats", &reply));
        }
        let seats: Seats = read("GET /seats", &reply)?;
        self.map.lock().update(&seats);
        Ok(())
    }

    /// Nothing is free. If seats are held, some may come back; else this is the
    /// end of the sale.
    async fn wait_for_held_seats(&self) -> Journey<()> {
        let path = format!("{BASE}/timetables/{}/seats", self.timetable);
        let request = Request::get(&path);
        let reply = self.call(Step::Map, &request, REPEATS_MAX).await?;
        let counts: crate::api::Counts = read("GET /seats", &reply)?;
        if counts.available == 0 && counts.held == 0 {
            self.sold_out.store(true, Ordering::Relaxed);
            return Err(Outcome::Refused(Refused::SoldOut));
        }
        self.map.lock().update(&read("GET /seats", &reply)?);
        sleep(HELD_PAUSE).await;
        Ok(())
    }

    /// Pays the hold by wallet. The key makes it safe to ask again.
    async fn order(&self, number: usize, buyer: &Buyer, hold: &Hold) -> Journey<Order> {
        let path = format!("{BASE}/orders");
        let key = format!("{}-{number}", self.run);
        let body = serde_json::json!({
            "hold_id": hold.hold_id,
            "payment": { "method": "wallet" },
        })
        .to_string();
        let request = Request::post(&path, body.as_bytes())
            .by(&buyer.token)
            .keyed(&key);
        for _ in 0..=REPEATS_MAX {
            let reply = self.call(Step::Order, &request, REPEATS_MAX).await?;
            if reply.status == 201 {
                let order: Order = read("POST /orders", &reply)?;
                let seats = order.seats.iter().map(|seat| &seat.seat_id);
                self.tally.sold(&order.order_id, order.amount, seats);
                return Ok(order);
            }
            if Problem::of(&reply.body).code != "idempotency-key-in-use" {
                return Err(unexpected("POST /orders", &reply));
            }
            sleep(HELD_PAUSE).await;
        }
        Err(Outcome::Failed(
            "POST /orders: its key stays in use".to_owned(),
        ))
    }

    /// Gives the seats back that could not be paid. They come back by
    /// themselves if this fails, so its outcome doesn't matter.
    async fn release(&self, buyer: &Buyer, hold: &Hold) {
        let path = format!("{BASE}/holds/{}", hold.hold_id);
        let request = Request::delete(&path).by(&buyer.token);
        let _ = self.call(Step::Release, &request, REPEATS_MAX).await;
    }

    /// Looks at the order until all its tickets are issued, and fetches one.
    async fn fetch_tickets(&self, buyer: &Buyer, mut order: Order) -> Journey<Order> {
        let ordered = Instant::now();
        let path = format!("{BASE}/orders/{}", order.order_id);
        let mut pause = LOOK_PAUSE;
        while order.tickets.len() < order.seats.len() {
            if ordered.elapsed() > ISSUE_PATIENCE {
                let late = format!("no tickets within {} s", ISSUE_PATIENCE.as_secs());
                return Err(Outcome::Failed(late));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_PAUSE_MAX);
            let request = Request::get(&path).by(&buyer.token);
            let reply = self.call(Step::LookUp, &request, REPEATS_MAX).await?;
            if reply.status != 200 {
                return Err(broken_promise("GET /orders/{id}", &reply));
            }
            order = read("GET /orders/{id}", &reply)?;
        }
        self.tally.took(Step::Issued, ordered.elapsed());
        self.tally.issued(order.tickets.len());
        let Some(ticket) = order.tickets.first() else {
            return Ok(order);
        };
        let path = format!("{BASE}/tickets/{ticket}");
        let request = Request::get(&path).by(&buyer.token);
        let reply = self.call(Step::Ticket, &request, REPEATS_MAX).await?;
        if reply.status == 200 {
            Ok(order)
        } else {
            Err(broken_promise("GET /tickets/{id}", &reply))
        }
    }

    /// Sends a request; comes back later when the server has too much to do,
    /// and at once, up to `repeats` times, when the answer is lost.
    async fn call(&self, step: Step, request: &Request<'_>, repeats: u32) -> Journey<Reply> {
        let (mut shed, mut lost) = (0, 0);
        loop {
            let pool = match step {
                Step::LookUp | Step::Ticket => &self.pool_of_owners,
                _ => &self.pool,
            };
            match pool.call(request).await {
                Ok(reply) if matches!(reply.status, 429 | 503) => {
                    self.tally.shed();
                    shed += 1;
                    if shed >= SHED_TRIES_MAX {
                        return Err(Outcome::Shed);
                    }
                    sleep(reply.retry_after.unwrap_or(Duration::from_secs(1))).await;
                }
                Ok(reply) => {
                    self.tally.took(step, reply.took);
                    return Ok(reply);
                }
                Err(_) if lost < repeats => {
                    lost += 1;
                    sleep(HELD_PAUSE).await;
                }
                Err(error) => return Err(Outcome::Failed(format!("{step:?}: {error}"))),
            }
        }
    }
}

/// The body of an answer that says yes.
fn read<T: serde::de::DeserializeOwned>(what: &str, reply: &Reply) -> Journey<T> {
    serde_json::from_slice(&reply.body)
        .map_err(|error| Outcome::Failed(format!("{what}: unreadable answer: {error}")))
}

/// An answer that ends the journey: a refusal by the rules, or a failure.
fn unexpected(what: &str, reply: &Reply) -> Outcome {
    let code = Problem::of(&reply.body).code;
    match reply.status {
        402 | 403 | 404 | 409 | 422 if !code.is_empty() => Outcome::Refused(match code.as_str() {
            "seat-limit-exceeded" => Refused::Limit,
            "seat-unavailable" | "no-seats-match" => Refused::Taken,
            _ => Refused::Other(code),
        }),
        status => Outcome::Failed(format!("{what}: {status} {code}")),
    }
}

/// An answer that may not come once the order is confirmed, whatever it says.
fn broken_promise(what: &str, reply: &Reply) -> Outcome {
    let code = Problem::of(&reply.body).code;
    Outcome::Failed(format!("{what}: {} {code}", reply.status))
}
