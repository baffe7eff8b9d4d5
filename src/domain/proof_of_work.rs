//! Proof of work: what makes it dear to join a waiting room with thousands of
//! accounts at once, and costs one person nothing to speak of.
//!
//! The server signs a *challenge*; the client looks for a *nonce* such that the
//! SHA-256 of `challenge.nonce` begins with as many zero bits as were asked
//! for, which takes 2^bits tries on average. To check it takes one hash.

use sha2::{Digest as _, Sha256};

use super::time::{Millis, Timestamp};

/// The hardest that can be asked for: about an hour of one processor.
pub const BITS_MAX: u8 = 32;

/// By how many bits a challenge may be easier than one that is given now, once it
/// is no longer fresh.
pub const EASIER_MAX: u8 = 2;

/// The time over which joins are counted.
const SECOND: Millis = Millis::from_secs(1);

/// Whether the SHA-256 of `text` begins with at least so many zero bits.
#[must_use]
pub fn is_solved(text: &str, bits: u8) -> bool {
    zero_bits(&Sha256::digest(text.as_bytes()).into()) >= u32::from(bits)
}

/// Whether a solution of `bits` zero bits to a challenge that was given `age` ago is
/// still enough, where a new one would ask for `present`. Whoever comes while it
/// gets harder may solve what they were given (for `fresh`); but nobody lays up
/// easy ones for the rush.
#[must_use]
pub fn is_enough(bits: u8, age: Millis, fresh: Millis, present: u8) -> bool {
    age <= fresh || bits.saturating_add(EASIER_MAX) >= present
}

/// With how many zero bits a hash begins.
fn zero_bits(hash: &[u8; 32]) -> u32 {
    let zeros = hash.iter().take_while(|byte| **byte == 0).count();
    let next = hash.get(zeros).map_or(0, |byte| byte.leading_zeros());
    // At most 32 bytes.
    zeros as u32 * 8 + next
}

/// The client's part: `challenge.nonce`, the solution. `None` if none was found
/// in so many tries.
#[must_use]
pub fn solve(challenge: &str, bits: u8, tries_max: u64) -> Option<String> {
    let known = Sha256::new().chain_update(challenge).chain_update(".");
    let nonce = (0..tries_max)
        .map(|nonce| nonce.to_string())
        .find(|nonce| {
            let hash = known.clone().chain_update(nonce).finalize();
            zero_bits(&hash.into()) >= u32::from(bits)
        })?;
    Some(format!("{challenge}.{nonce}"))
}

/// How hard it is, by how busy the queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// The zero bits that are asked for while the queue is quiet.
    pub bits_min: u8,
    /// The most that is ever asked for.
    pub bits_max: u8,
    /// A queue that so many newcomers a second ask to join is busy: each
    /// doubling beyond it adds a bit.
    pub joins_per_second: u32,
    /// The same of people who wait.
    pub waiting: u32,
}

impl Scale {
    /// The zero bits to ask for, where so many newcomers a second ask and so
    /// many wait: whichever is the harder.
    #[must_use]
    pub fn bits(&self, per_second: f64, waiting: u32) -> u8 {
        let doublings = |load: f64, quiet: u32| (load / f64::from(quiet.max(1))).log2().ceil();
        let by_rate = doublings(per_second, self.joins_per_second);
        let by_crowd = doublings(f64::from(waiting), self.waiting);
        // Below the quiet load it is negative, and without any minus infinity.
        let more = by_rate.max(by_crowd).clamp(0.0, f64::from(BITS_MAX));
        let bits = f64::from(self.bits_min) + more;
        bits.min(f64::from(self.bits_max)) as u8
    }
}

/// Counts how often something happens a second, in constant memory: exactly
/// within the second that has begun, evenly spread within the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    began: Timestamp,
    count: u32,
    before: u32,
}

impl Meter {
    /// It has happened once more; how often it did in the second up to `now`.
    pub fn count(&mut self, now: Timestamp) -> f64 {
        self.turn(now);
        self.count = self.count.saturating_add(1);
        self.rate(now)
    }

    /// How often it has happened in the second up to `now`.
    pub fn look(&mut self, now: Timestamp) -> f64 {
        self.turn(now);
        self.rate(now)
    }

    fn turn(&mut self, now: Timestamp) {
        // A clock that steps back stands still.
        let passed = now.since(self.began).0.max(0);
        if passed >= 2 * SECOND.0 {
            *self = Self {
                began: now,
                ..Self::default()
            };
        } else if passed >= SECOND.0 {
            self.began = self.began.plus(SECOND);
            self.before = std::mem::take(&mut self.count);
        }
    }

    fn rate(&self, now: Timestamp) -> f64 {
        let passed = now.since(self.began).0.clamp(0, SECOND.0);
        let rest = 1.0 - passed as f64 / SECOND.0 as f64;
        f64::from(self.before).mul_add(rest, f64::from(self.count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCALE: Scale = Scale {
        bits_min: 10,
        bits_max: 18,
        joins_per_second: 100,
        waiting: 10_000,
    };

    /// The slow way: as text of zeros and ones.
    fn zeros_of(text: &str) -> usize {
        let hash = Sha256::digest(text.as_bytes());
        let bits: String = hash.iter().map(|byte| format!("{byte:08b}")).collect();
        bits.len() - bits.trim_start_matches('0').len()
    }

    #[test]
    fn the_hash_of_all_zeros_has_256_zero_bits_and_each_first_one_ends_them() {
        assert_eq!(zero_bits(&[0; 32]), 256);
        for at in 0..256 {
            let mut hash = [0xFF; 32];
            for (index, byte) in hash.iter_mut().enumerate() {
                let zeros = at as u32 - (index as u32 * 8).min(at as u32);
                *byte = 0xFF_u8.checked_shr(zeros.min(8)).unwrap_or(0);
            }
            assert_eq!(zero_bits(&hash), at as u32, "{hash:?}");
        }
    }

    #[test]
    fn a_solution_is_one_for_its_own_challenge_and_for_less() {
        let solution = solve("some.challenge", 12, 1 << 20).expect("4,096 tries on average");
        assert!(solution.starts_with("some.challenge."));
        assert!(is_solved(&solution, 12) && is_solved(&solution, 11));
        assert!(zeros_of(&solution) >= 12);
        // Of all other challenges one in 4,096 would take it.
        let nonce = solution.rsplit_once('.').unwrap().1;
        assert!(!is_solved(&format!("other.challenge.{nonce}"), 12));
        assert_eq!(solve("some.challenge", 32, 10), None);
    }

    proptest! {
        #[test]
        fn the_check_counts_the_bits_as_one_would_by_hand(text in ".{0,40}", bits in 0u8..=32) {
            prop_assert_eq!(is_solved(&text, bits), zeros_of(&text) >= usize::from(bits));
        }

        #[test]
        fn what_is_solved_is_checked_as_solved(challenge in "[a-zA-Z0-9_.-]{1,80}", bits in 0u8..=10) {
            let solution = solve(&challenge, bits, 1 << 20).unwrap();
            prop_assert!(is_solved(&solution, bits));
        }

        #[test]
        fn it_gets_harder_with_the_load_never_easier_and_stays_within_its_bounds(
            rate in 0.0..1e7_f64, more in 0.0..1e7_f64, waiting: u32, others: u32,
        ) {
            let bits = SCALE.bits(rate, waiting);
            prop_assert!((SCALE.bits_min..=SCALE.bits_max).contains(&bits));
            prop_assert!(SCALE.bits(rate + more, waiting.saturating_add(others)) >= bits);
        }

        #[test]
        fn a_meter_tells_what_a_steady_stream_has(every_ms in 1i64..500, start in 0i64..1_000_000) {
            let mut meter = Meter::default();
            let mut told = 0.0;
            for n in 0..5_000 / every_ms {
                told = meter.count(Timestamp(start + n * every_ms));
            }
            let steady = 1_000.0 / every_ms as f64;
            prop_assert!((told - steady).abs() <= 2.0, "{} against {}", told, steady);
        }
    }

    #[test]
    fn each_doubling_of_the_load_adds_a_bit() {
        assert_eq!(SCALE.bits(0.0, 0), 10);
        assert_eq!(SCALE.bits(100.0, 10_000), 10);
        assert_eq!(SCALE.bits(101.0, 0), 11);
        assert_eq!(SCALE.bits(200.0, 0), 11);
        assert_eq!(SCALE.bits(401.0, 0), 13);
        assert_eq!(SCALE.bits(0.0, 80_000), 13);
        assert_eq!(SCALE.bits(1e9, u32::MAX), 18);
    }

    #[test]
    fn an_easy_challenge_is_good_while_it_is_fresh_or_it_has_not_become_much_harder() {
        let fresh = Millis::from_secs(10);
        for (bits, age, present, enough) in [
            (14, 10_000, 20, true),
            (14, 10_001, 20, false),
            (14, 10_001, 17, false),
            (14, 10_001, 16, true),
            (18, 120_000, 20, true),
            (20, 120_000, 14, true),
            // By a clock that has stepped back.
            (14, -1, 20, true),
            (u8::MAX, 120_000, u8::MAX, true),
        ] {
            let is = is_enough(bits, Millis(age), fresh, present);
            assert_eq!(is, enough, "{bits} bits after {age} ms, now {present}");
        }
    }

    #[test]
    fn a_crowd_in_one_instant_counts_whole_and_is_forgotten_two_seconds_later() {
        let mut meter = Meter::default();
        let told = (0..1_000).map(|_| meter.count(Timestamp(50_000))).last();
        assert_eq!(told, Some(1_000.0));
        // Half of the second before is still within the last second.
        assert!((meter.count(Timestamp(51_500)) - 501.0).abs() < 1e-9);
        assert!((meter.count(Timestamp(60_000)) - 1.0).abs() < 1e-9);
        // To look is not to happen.
        assert!((meter.look(Timestamp(60_000)) - 1.0).abs() < 1e-9);
        assert!(meter.look(Timestamp(70_000)).abs() < 1e-9);
        assert!((meter.count(Timestamp(60_000)) - 1.0).abs() < 1e-9);
        // A step back of the clock.
        assert!((meter.count(Timestamp(1)) - 2.0).abs() < 1e-9);
    }
}
