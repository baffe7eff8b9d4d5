//! Proofs of work: challenges that are signed, end, and are kept nowhere.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
use crate::config;
use crate::domain::ids::{PerformanceId, SHARDS, UserId, shard_of};
use crate::domain::proof_of_work::{Meter, Scale, is_enough, is_solved};
use crate::domain::time::{Millis, Timestamp};
use crate::http::error::{Answer, Code, Problem};
use crate::http::signed;
use crate::keys::{Keys, Purpose};
use crate::telemetry::ProofMetrics;

/// The longest solution that is looked at, in bytes; ours have about 120.
const TEXT_BYTES_MAX: usize = 512;

/// The longest nonce: enough for any number that can be tried.
const NONCE_BYTES_MAX: usize = 32;

/// What a newcomer has to solve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Challenge {
    performance: PerformanceId,
    user: UserId,
    bits: u8,
    expires_at: Timestamp,
}

/// Why a text is no solution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    /// It came too late; otherwise nothing is wrong with it.
    Expired,
    /// Newcomers have to do more by now.
    Outdated,
    /// What is wrong with it.
    Invalid(&'static str),
}

impl Challenge {
    fn sign(&self, keys: &Keys) -> String {
        signed::sign(keys, Purpose::ProofOfWork, self)
    }

    /// The challenge that `text` solves, which was given to `user` for this
    /// queue: one signature, one hash.
    fn check(
        keys: &Keys,
        now: Timestamp,
        (id, user): (PerformanceId, UserId),
        text: &str,
    ) -> Result<Self, Flaw> {
        let (challenge, nonce) = text
            .rsplit_once('.')
            .filter(|_| text.len() <= TEXT_BYTES_MAX)
            .ok_or(Flaw::Invalid("it is not challenge.nonce"))?;
        if !is_nonce(nonce) {
            return Err(Flaw::Invalid("the nonce is none"));
        }
        let known: Self = signed::verify(keys, Purpose::ProofOfWork, TEXT_BYTES_MAX, challenge)
            .ok_or(Flaw::Invalid("this server gave no such challenge"))?;
        if known.user != user {
            return Err(Flaw::Invalid("the challenge is somebody else's"));
        }
        if known.performance != id {
            return Err(Flaw::Invalid("the challenge is of another queue"));
        }
        if !is_solved(text, known.bits) {
            return Err(Flaw::Invalid("its hash has too few zero bits"));
        }
        if known.expires_at <= now {
            return Err(Flaw::Expired);
        }
        Ok(known)
    }
}

fn is_nonce(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=NONCE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Asks for proofs of work.
#[derive(Debug)]
pub(super) struct Proofs {
    scale: Scale,
    ttl: Millis,
    /// For so long a solution is good, however hard it has become since.
    fresh: Millis,
    /// How many ask to join, by the shard of the queue: constant memory,
    /// whatever queues there are. Two that share one only make it a little
    /// harder for each other.
    meters: Box<[Mutex<Meter>]>,
    metrics: ProofMetrics,
}

impl Proofs {
    pub(super) fn new(config: &config::ProofOfWork) -> Self {
        Self {
            scale: Scale {
                bits_min: config.bits_min,
                bits_max: config.bits_max,
                joins_per_second: config.joins_per_second,
                waiting: config.waiting,
            },
            ttl: Millis::from_secs(config.ttl_seconds),
            fresh: Millis::from_secs(config.fresh_seconds),
            meters: (0..SHARDS).map(|_| Mutex::default()).collect(),
            metrics: ProofMetrics::new(),
        }
    }

    /// Looks at what `user` shows. `None`: it is a solution; else what to answer
    /// if they have no place.
    ///
    /// # Errors
    /// 403 if it is none.
    pub(super) fn examine(
        &self,
        app: &App,
        id: PerformanceId,
        user: UserId,
        shown: Option<&str>,
    ) -> Answer<Option<Problem>> {
        let now = app.clock.now();
        let flaw = match shown {
            None => None,
            Some(text) => match Challenge::check(&app.keys, now, (id, user), text) {
                Ok(known) if self.is_hard_enough(app, now, &known) => {
                    self.metrics.solved.increment(1);
                    return Ok(None);
                }
                Ok(_) => Some(Flaw::Outdated),
                Err(flaw) => Some(flaw),
            },
        };
        match flaw {
            Some(Flaw::Invalid(why)) => {
                self.metrics.invalid.increment(1);
                let problem = Problem::new(Code::ProofOfWorkInvalid).detail(why);
                Err(self.with_challenge(app, id, user, problem))
            }
            Some(Flaw::Outdated) => {
                self.metrics.outdated.increment(1);
                let problem = Problem::new(Code::ProofOfWorkRequired)
                    .detail("It has become harder meanwhile; here is a new challenge.");
                Ok(Some(self.with_challenge(app, id, user, problem)))
            }
            Some(Flaw::Expired) => {
                self.metrics.expired.increment(1);
                let problem = Problem::new(Code::ProofOfWorkRequired)
                    .detail("The challenge has ended; here is a new one.");
                Ok(Some(self.with_challenge(app, id, user, problem)))
            }
            None => {
                self.metrics.required.increment(1);
                let problem = Problem::new(Code::ProofOfWorkRequired);
                Ok(Some(self.with_challenge(app, id, user, problem)))
            }
        }
    }

    fn is_hard_enough(&self, app: &App, now: Timestamp, known: &Challenge) -> bool {
        let left = known.expires_at.since(now);
        let age = Millis(self.ttl.0 - left.0);
        let present = self.bits(app, known.performance, |meter| meter.look(now));
        is_enough(known.bits, age, self.fresh, present)
    }

    /// The zero bits that are asked for now, where the meter of the queue tells
    /// this many newcomers a second.
    fn bits(&self, app: &App, id: PerformanceId, per_second: impl Fn(&mut Meter) -> f64) -> u8 {
        let meter = self.meters.get(usize::from(shard_of(id.0).0));
        let per_second = meter.map_or(0.0, |meter| per_second(&mut meter.lock()));
        let board = app.node.queue_boards.open(id);
        // On a node that knows nothing of the queue the rate alone counts.
        let waiting = board.told().borrow().as_ref().map(|t| t.summary.waiting);
        self.scale.bits(per_second, waiting.unwrap_or(0))
    }

    /// Adds a challenge that is as hard as the queue is busy.
    fn with_challenge(
        &self,
        app: &App,
        id: PerformanceId,
        user: UserId,
        problem: Problem,
    ) -> Problem {
        let now = app.clock.now();
        let bits = self.bits(app, id, |meter| meter.count(now));
        self.metrics.bits.set(f64::from(bits));
        let challenge = Challenge {
            performance: id,
            user,
            bits,
            expires_at: now.plus(self.ttl),
        };
        let member = json!({
            "algorithm": "sha-256",
            "challenge": challenge.sign(&app.keys),
            "difficulty": bits,
            "expires_at": challenge.expires_at,
        });
        problem.with("proof_of_work", member)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::proof_of_work::solve;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn keys(secret: &str) -> Keys {
        // With a secret given, the folder is not looked at.
        Keys::open(secret, &[], Path::new("/nowhere")).unwrap()
    }

    fn challenge(bits: u8) -> Challenge {
        Challenge {
            performance: PerformanceId(Uuid::now_v7()),
            user: UserId(Uuid::now_v7()),
            bits,
            expires_at: NOW.plus(Millis(1)),
        }
    }

    fn of(challenge: &Challenge) -> (PerformanceId, UserId) {
        (challenge.performance, challenge.user)
    }

    fn solution(challenge: &Challenge, keys: &Keys) -> String {
        solve(&challenge.sign(keys), challenge.bits, 1 << 24).unwrap()
    }

    fn is_invalid(outcome: Result<Challenge, Flaw>) -> bool {
        matches!(outcome, Err(Flaw::Invalid(_)))
    }

    #[test]
    fn a_solution_is_good_for_its_user_its_queue_and_its_time_alone() {
        let keys = keys("one");
        let mine = challenge(8);
        let text = solution(&mine, &keys);
        let check = |now, who, text: &str| Challenge::check(&keys, now, who, text);
        assert_eq!(check(NOW, of(&mine), &text), Ok(mine));
        // Again: it is bound to its user, who has one place at most.
        assert_eq!(check(NOW, of(&mine), &text), Ok(mine));
        let late = check(NOW.plus(Millis(1)), of(&mine), &text);
        assert_eq!(late, Err(Flaw::Expired));
        let other = challenge(8);
        let (performance, user) = of(&mine);
        assert!(is_invalid(check(NOW, (performance, other.user), &text)));
        assert!(is_invalid(check(NOW, (other.performance, user), &text)));
        // One that was signed with another secret.
        let foreign = solution(&mine, &super::tests::keys("two"));
        assert!(is_invalid(check(NOW, of(&mine), &foreign)));
    }

    #[test]
    fn what_is_signed_for_something_else_is_no_challenge() {
        let keys = keys("one");
        let mine = challenge(1);
        let ticket = signed::sign(&keys, Purpose::QueueTicket, &mine);
        let text = solve(&ticket, mine.bits, 1 << 20).unwrap();
        assert!(is_invalid(Challenge::check(&keys, NOW, of(&mine), &text)));
    }

    #[test]
    fn too_little_work_and_a_nonce_of_other_signs_are_refused() {
        let keys = keys("one");
        let mine = challenge(16);
        let signed = mine.sign(&keys);
        let check = |text: &str| Challenge::check(&keys, NOW, of(&mine), text);
        // Enough for 15 bits, and not for 16.
        let easy = (0..u64::MAX)
            .map(|nonce| format!("{signed}.{nonce}"))
            .find(|text| is_solved(text, 15) && !is_solved(text, 16));
        assert!(is_invalid(check(&easy.unwrap())));
        for nonce in ["", "a b", "a.b", "ä", &"1".repeat(NONCE_BYTES_MAX + 1)] {
            assert!(is_invalid(check(&format!("{signed}.{nonce}"))), "{nonce}");
        }
        assert!(is_invalid(check(&signed)));
        assert!(is_invalid(check(&"1".repeat(100_000))));
    }

    proptest! {
        #[test]
        fn no_letter_of_a_solution_can_be_changed(at: prop::sample::Index, letter in "[A-Za-z0-9_.-]") {
            let keys = keys("one");
            let mine = challenge(12);
            let text = solution(&mine, &keys);
            let mut forged = text.clone();
            let at = at.index(text.len());
            forged.replace_range(at..=at, &letter);
            // Of changed nonces one in 4,096 solves it, too.
            prop_assume!(forged != text && !is_solved(&forged, 12));
            prop_assert!(is_invalid(Challenge::check(&keys, NOW, of(&mine), &forged)));
        }

        #[test]
        fn any_text_is_looked_at_without_a_panic(text in ".{0,600}") {
            let keys = keys("one");
            let mine = challenge(1);
            prop_assert!(is_invalid(Challenge::check(&keys, NOW, of(&mine), &text)));
        }
    }
}
