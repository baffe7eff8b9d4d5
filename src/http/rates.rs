//! Rate limits per user.

use std::num::NonZeroU32;

use axum::http::{HeaderName, HeaderValue};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::error::{Answer, Code, Problem};
use crate::config;
use crate::domain::ids::UserId;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A limit on how often each user may do something.
#[derive(Debug)]
pub struct PerUser {
    limiter: DefaultKeyedRateLimiter<UserId>,
    clock: DefaultClock,
    policy: HeaderValue,
}

impl PerUser {
    fn new(name: &str, per_second: u32, burst: u32) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        let policy = format!(
            "\"{name}\";q={burst};w={}",
            burst.div_ceil(per_second.max(1))
        );
        Self {
            limiter: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Counts one more of `user`.
    ///
    /// # Errors
    /// 429 `rate-limited`, with how long to wait.
    pub fn check(&self, user: UserId) -> Answer<()> {
        let Err(not_until) = self.limiter.check_key(&user) else {
            return Ok(());
        };
        let wait = not_until.wait_time_from(self.clock.now());
        let seconds = u32::try_from(wait.as_secs())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let limit = HeaderValue::try_from(format!("\"default\";r=0;t={seconds}"));
        Err(Problem::new(Code::RateLimited)
            .retry_after(seconds)
            .header(RATE_LIMIT, limit.unwrap_or(HeaderValue::from_static("")))
            .header(RATE_LIMIT_POLICY, self.policy.clone()))
    }

    fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// All limits.
#[derive(Debug)]
pub struct Rates {
    /// Holds made.
    pub holds: PerUser,
    /// Joins and polls of waiting rooms.
    pub queue: PerUser,
}

impl Rates {
    /// As configured.
    #[must_use]
    pub fn new(config: &config::Rates) -> Self {
        Self {
            holds: PerUser::new("holds", config.holds_per_second, config.holds_burst),
            queue: PerUser::new("queue", config.queue_per_second, config.queue_burst),
        }
    }

    /// Forgets users who have been quiet for long enough.
    pub fn sweep(&self) {
        self.holds.sweep();
        self.queue.sweep();
    }
}
