//! What is measured of coupons.

use std::collections::{HashMap, HashSet};

use metrics::{Counter, Gauge, counter, gauge};

use super::names::*;
use super::recorder;
use crate::domain::coupon::{Tally, View};
use crate::domain::ids::CouponId;

/// So many coupons have figures of their own: as of queues, the first ones of this
/// process that somebody claimed.
const NAMED_MAX: usize = 64;

/// The figures of all others together.
const OTHERS: &str = "others";

/// What becomes of claims in orders, of all coupons.
#[derive(Debug)]
pub struct CouponUses {
    reserved: Counter,
    used: Counter,
    released: Counter,
    returned: Counter,
}

impl CouponUses {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        recorder();
        Self {
            reserved: counter!(COUPON_USES_TOTAL, "step" => "reserved"),
            used: counter!(COUPON_USES_TOTAL, "step" => "used"),
            released: counter!(COUPON_USES_TOTAL, "step" => "released"),
            returned: counter!(COUPON_USES_TOTAL, "step" => "returned"),
        }
    }

    /// So many more.
    pub fn add(&self, tally: Tally) {
        if tally == Tally::default() {
            return;
        }
        self.reserved.increment(u64::from(tally.reserved));
        self.used.increment(u64::from(tally.used));
        self.released.increment(u64::from(tally.released));
        self.returned.increment(u64::from(tally.returned));
    }
}

impl Default for CouponUses {
    fn default() -> Self {
        Self::new()
    }
}

/// How a coupon stands, or several together.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    stock: u64,
    remaining: u64,
    /// In seconds after its opening; of several, the least.
    sold_out: Option<f64>,
}

impl Figures {
    fn of(view: &View) -> Self {
        Self {
            stock: u64::from(view.terms.stock),
            remaining: u64::from(view.remaining()),
            sold_out: view.sold_out_after().map(|after| after.seconds()),
        }
    }

    fn plus(self, other: Self) -> Self {
        let both = [self.sold_out, other.sold_out];
        Self {
            stock: self.stock + other.stock,
            remaining: self.remaining + other.remaining,
            sold_out: both.into_iter().flatten().reduce(f64::min),
        }
    }
}

/// What is told of one coupon, or of several together.
#[derive(Debug)]
struct Told {
    coupon: String,
    stock: Gauge,
    remaining: Gauge,
    /// From when it was sold out for the first time: 0 would be a lie before.
    sold_out: Option<Gauge>,
}

impl Told {
    fn of(coupon: &str) -> Self {
        recorder();
        let of = || coupon.to_owned();
        Self {
            coupon: of(),
            stock: gauge!(COUPON_STOCK_CLAIMS, "coupon" => of()),
            remaining: gauge!(COUPON_REMAINING_CLAIMS, "coupon" => of()),
            sold_out: None,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "metrics")]
    fn set(&mut self, figures: Figures) {
        self.stock.set(figures.stock as f64);
        self.remaining.set(figures.remaining as f64);
        match (figures.sold_out, &self.sold_out) {
            (Some(seconds), Some(gauge)) => gauge.set(seconds),
            (Some(seconds), None) => {
                let coupon = self.coupon.clone();
                let gauge = gauge!(COUPON_SOLD_OUT_SECONDS, "coupon" => coupon);
                gauge.set(seconds);
                self.sold_out = Some(gauge);
            }
            // One that was loaded again doesn't know when that was: what was told
            // stands. What is measured can't be taken back: no number.
            (None, Some(gauge)) if figures.remaining > 0 => gauge.set(f64::NAN),
            (None, Some(_) | None) => {}
        }
    }
}

/// The figures of the coupons that live on this node.
#[derive(Debug)]
pub struct CouponMetrics {
    named: HashMap<CouponId, Told>,
    others: Told,
}

impl CouponMetrics {
    /// Of none yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            named: HashMap::new(),
            others: Told::of(OTHERS),
        }
    }

    /// These live here now, and no others.
    pub fn show(&mut self, views: &[(CouponId, View)]) {
        let mut gone: HashSet<CouponId> = self.named.keys().copied().collect();
        let mut others = Figures::default();
        for (id, view) in views {
            gone.remove(id);
            let is_claimed = view.claimed_at.is_some();
            if is_claimed && !self.named.contains_key(id) && self.named.len() < NAMED_MAX {
                self.named.insert(*id, Told::of(&id.to_string()));
            }
            let figures = Figures::of(view);
            match self.named.get_mut(id) {
                Some(told) => told.set(figures),
                None => others = others.plus(figures),
            }
        }
        self.others.set(others);
        for told in gone.iter().filter_map(|id| self.named.get(id)) {
            told.stock.set(0.0);
            told.remaining.set(0.0);
        }
    }
}

impl Default for CouponMetrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::coupon::{Discount, Terms};
    use crate::domain::ids::UserId;
    use crate::domain::time::{Millis, Timestamp};
    use crate::telemetry::render;

    const OPENED: Timestamp = Timestamp(1_000_000);

    /// Tests run side by side: each has others of its own.
    fn metrics(others: &str) -> CouponMetrics {
        CouponMetrics {
            named: HashMap::new(),
            others: Told::of(others),
        }
    }

    fn new_id() -> CouponId {
        CouponId(uuid::Uuid::now_v7())
    }

    /// So many of 10 are claimed, the last one so many milliseconds after the
    /// opening.
    fn view(claimed: u32, last: Option<i64>) -> View {
        let terms = Terms {
            name: "spring".to_owned(),
            discount: Discount::Percent(10),
            stock: 10,
            starts_at: Timestamp(0),
            ends_at: Timestamp(i64::MAX),
            performance: None,
            owner: UserId(uuid::Uuid::nil()),
            created_at: OPENED,
        };
        View {
            terms: Arc::new(terms),
            claimed,
            claimed_at: last.map(|after| OPENED.plus(Millis(after))),
        }
    }

    fn assert_told(name: &str, coupon: &str, value: &str) {
        let line = format!("{name}{{coupon=\"{coupon}\"}} {value}\n");
        let text = render();
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }

    #[test]
    fn a_coupon_that_is_sold_out_tells_how_fast_until_there_are_more() {
        let mut metrics = metrics("others-of-one");
        let id = new_id();
        let name = id.to_string();
        metrics.show(&[(id, view(4, Some(900)))]);
        assert_told(COUPON_STOCK_CLAIMS, &name, "10");
        assert_told(COUPON_REMAINING_CLAIMS, &name, "6");
        let sold_out = format!("{COUPON_SOLD_OUT_SECONDS}{{coupon=\"{name}\"}}");
        assert!(!render().contains(&sold_out));
        metrics.show(&[(id, view(10, Some(1_500)))]);
        assert_told(COUPON_REMAINING_CLAIMS, &name, "0");
        assert_told(COUPON_SOLD_OUT_SECONDS, &name, "1.5");
        // Loaded again: nobody knows when, but it was said.
        metrics.show(&[(id, view(10, None))]);
        assert_told(COUPON_SOLD_OUT_SECONDS, &name, "1.5");
        metrics.show(&[(id, view(9, Some(1_500)))]);
        assert_told(COUPON_SOLD_OUT_SECONDS, &name, "NaN");
        // Another node has it now.
        metrics.show(&[]);
        assert_told(COUPON_STOCK_CLAIMS, &name, "0");
        assert_told(COUPON_REMAINING_CLAIMS, &name, "0");
    }

    #[test]
    fn however_many_coupons_there_are_only_some_are_named_and_none_is_lost() {
        let mut metrics = metrics("others-of-many");
        let others = &metrics.others.coupon.clone();
        let idle = (0..NAMED_MAX).map(|_| (new_id(), view(3, None)));
        let hot = (0..NAMED_MAX + 2).map(|_| (new_id(), view(10, Some(2_000))));
        let mut all: Vec<_> = idle.chain(hot).collect();
        metrics.show(&all);
        assert_eq!(metrics.named.len(), NAMED_MAX);
        assert!(!metrics.named.contains_key(&all[0].0), "nobody claims it");
        let stock = 10 * (NAMED_MAX + 2);
        assert_told(COUPON_STOCK_CLAIMS, others, &stock.to_string());
        let left = 7 * NAMED_MAX;
        assert_told(COUPON_REMAINING_CLAIMS, others, &left.to_string());
        assert_told(COUPON_SOLD_OUT_SECONDS, others, "2");
        all.push((new_id(), view(10, Some(250))));
        metrics.show(&all);
        assert_told(COUPON_SOLD_OUT_SECONDS, others, "0.25");
    }

    #[test]
    fn what_became_of_claims_is_counted_by_step() {
        let uses = CouponUses::new();
        let before = steps();
        uses.add(Tally {
            reserved: 4,
            used: 3,
            released: 2,
            returned: 1,
        });
        let more: Vec<u64> = steps().iter().zip(before).map(|(n, b)| n - b).collect();
        assert_eq!(more, [4, 3, 2, 1]);
    }

    fn steps() -> [u64; 4] {
        let text = render();
        ["reserved", "used", "released", "returned"].map(|step| {
            let start = format!("{COUPON_USES_TOTAL}{{step=\"{step}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap().parse().unwrap()
        })
    }
}
