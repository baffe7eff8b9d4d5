//! The server kills itself at each step of a cancel (`onsale::sabotage`): nothing is
//! changed then, or the seats are free and the money is back, once.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::client::{Answer, Client};
use crate::common::process::ServerProcess;
use crate::common::{eventually, fresh_key};
use crate::customer::{cancelled_seats_of, seats_of};
use crate::on_purpose::{POINTS, SIGKILL};
use crate::world::{DECIDED_LIMIT, PRICE, World};

/// A cancel has three decisions: that of the timetable, that of the wallet, and the
/// timetable's note of it.
const DECISIONS: std::ops::RangeInclusive<u64> = 1..=3;

/// The steps of the saga itself.
const STEPS: &[&str] = &["cancel-asked", "cancel-true", "cancel-credited"];

/// A point that is passed is passed by then.
const PASSED_LIMIT: Duration = Duration::from_secs(3);

/// What the buyer has after the charge.
const CHARGED: i64 = 10 * PRICE;

/// A buyer with an order of two seats, whose money is spent.
struct Bought {
    buyer: Client,
    order: Value,
    before: i64,
}

impl Bought {
    fn path(&self) -> String {
        format!("/orders/{}", self.order["order_id"].as_str().unwrap())
    }

    /// The same buyer, at a server that was started since.
    fn at(&mut self, world: &World) {
        self.buyer = world.client(0);
    }

    async fn cancel(&self, key: &str) -> Option<Answer> {
        let path = format!("{}/cancel", self.path());
        let cancel = self.buyer.post(&path, &json!({})).key(key);
        cancel.timeout(DECIDED_LIMIT).try_send().await.ok()
    }

    /// Whether it is cancelled, once all of it is decided: with all that belongs to
    /// it, or with nothing.
    async fn is_cancelled(&self) -> bool {
        eventually(
            "the whole of a cancel, or nothing",
            DECIDED_LIMIT,
            async || {
                let order = self.buyer.get(&self.path()).ok(200).await;
                let (gone, refunded) = (cancelled_seats_of(&order), order["refunded"].as_i64());
                let is_over = order["status"] == "cancelled";
                let paid = 2 * PRICE;
                let back = if is_over { paid } else { 0 };
                assert_eq!(refunded, Some(back), "{order}");
                assert_eq!(gone.len(), if is_over { 2 } else { 0 }, "{order}");
                let balance = self.buyer.balance().await;
                assert!(balance <= self.before - paid + back, "money from nowhere");
                let valid = self.tickets("valid").await;
                assert!(
                    !is_over || valid == 0,
                    "{valid} valid tickets of a cancelled order"
                );
                // The refund of a saga that has died is on its way at most.
                let is_settled = balance == self.before - paid + back;
                let is_ticketed = is_over || valid == 2;
                (is_settled && is_ticketed).then_some(is_over)
            },
        )
        .await
    }

    /// How many tickets of the order are `status`.
    async fn tickets(&self, status: &str) -> usize {
        let page = self.buyer.get("/tickets?limit=100").ok(200).await;
        let tickets = page["items"].as_array().unwrap().iter();
        let of_it = tickets.filter(|ticket| {
            ticket["order_id"] == self.order["order_id"] && ticket["status"] == status
        });
        of_it.count()
    }
}

impl World {
    /// Starts again, broken like this.
    fn restart_with(&mut self, sabotage: &str) {
        let status = self.server.terminate();
        assert!(status.success(), "{status:?}");
        let settings = self.settings.clone().env("ONSALE_SABOTAGE", sabotage);
        self.server = ServerProcess::start(&settings);
    }

    async fn bought(&self) -> Bought {
        let buyer = self.client(0);
        buyer.charge(CHARGED).await;
        let before = buyer.balance().await;
        let wish = json!({ "best_available": { "count": 2 } });
        let hold = buyer.hold(&self.scene.timetable, &wish).ok(201).await;
        let order = buyer.order(hold["hold_id"].as_str().unwrap()).ok(201).await;
        let bought = Bought {
            buyer,
            order,
            before,
        };
        assert!(!bought.is_cancelled().await);
        // Else it would be spent after the next start, and pass points, too.
        eventually("the money is spent", DECIDED_LIMIT, async || {
            let entries = bought.buyer.get("/wallet/entries?limit=1").ok(200).await;
            let last = &entries["items"][0];
            (last["cause_id"] == bought.order["order_id"]).then_some(())
        })
        .await;
        bought
    }

    /// The server has died in a cancel at `step`, or has done all of it.
    async fn die_in_a_cancel_at(&mut self, step: &str) {
        let mut bought = self.bought().await;
        self.restart_with(&format!("die-at:{step}"));
        bought.at(self);
        let key = fresh_key();
        let answer = bought.cancel(&key).await;
        match self.server.ended_within(PASSED_LIMIT).await {
            Some(status) => assert_eq!(status.signal(), Some(SIGKILL), "{status:?}"),
            // It is not passed as often as that.
            None => self.server.kill(),
        }
        self.server = ServerProcess::start(&self.settings);
        bought.at(self);
        let is_cancelled = bought.is_cancelled().await;
        eprintln!(
            "{step}: cancelled {is_cancelled}, answered {}",
            answer.is_some()
        );
        if let Some(answer) = &answer {
            answer.assert_status(200);
            assert!(is_cancelled, "{step}: an acknowledged cancel is lost");
        }
        if let Some(expected) = is_true_at(step) {
            assert_eq!(is_cancelled, expected, "{step}");
        }
        self.settings.assert_audit_is_clean();
        // The same request again, twice: it is done once.
        for _ in 0..2 {
            let again = bought.cancel(&key).await.expect("an answer");
            again.assert_status(200);
            assert_eq!(again.json()["status"], "cancelled");
            assert_eq!(seats_of(&again.json()).len(), 2);
            if let Some(answer) = &answer {
                assert_eq!(again.json(), answer.json());
            }
            assert!(bought.is_cancelled().await);
        }
        assert_eq!(bought.tickets("void").await, 2);
        self.settings.assert_audit_is_clean();
    }

    /// Dies at each step of a cancel.
    pub(crate) async fn assert_a_cancel_is_whole_or_nothing_at_each_step(&mut self) {
        for point in POINTS {
            for nth in DECISIONS {
                self.die_in_a_cancel_at(&format!("{point}:{nth}")).await;
            }
        }
        for step in STEPS {
            self.die_in_a_cancel_at(&format!("{step}:1")).await;
        }
        let map = self.client(0).map(&self.scene.timetable).await;
        assert_eq!((&map["sold"], &map["held"]), (&json!(0), &json!(0)));
    }

    /// What a cancel on a server that is broken like this leaves, after a restart of
    /// one that isn't: the balance that is missing, and whether the audit finds it.
    pub(crate) async fn lost_by_a_cancel_with(&mut self, sabotage: &str) -> (i64, bool) {
        let mut bought = self.bought().await;
        self.restart_with(sabotage);
        bought.at(self);
        let _ = bought.cancel(&fresh_key()).await;
        if self.server.ended_within(PASSED_LIMIT).await.is_none() {
            self.server.kill();
        }
        self.server = ServerProcess::start(&self.settings);
        bought.at(self);
        tokio::time::sleep(PASSED_LIMIT).await;
        let order = bought.buyer.get(&bought.path()).ok(200).await;
        assert_eq!(order["status"], "cancelled");
        let missing = bought.before - bought.buyer.balance().await;
        let audit = self.settings.run(&["verify"]);
        (missing, audit.status.code() == Some(1))
    }
}

/// Whether the cancel must be true after a death there; `None` where other things
/// pass that point as well.
fn is_true_at(step: &str) -> Option<bool> {
    match step {
        "applied:1" | "submitted:1" | "flush:1" | "written:1" | "cancel-asked:1" => Some(false),
        _ if step.starts_with("answer:") => None,
        _ => Some(true),
    }
}
