//! The actors of this node that have the most to do at the moment.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::directory::Directory;
use super::host::Hosted;
use super::node::Node;
use super::observe::ActorRow;
use crate::clock::monotonic;
use crate::domain::ids::EntityKind;

/// So many are told.
const BUSIEST_MAX: usize = 10;

/// How much the last look counts: a list that changed with each second could
/// not be read.
const WEIGHT: f64 = 0.3;

/// An actor that has something to do.
#[derive(Clone, Debug)]
pub struct Busy {
    /// How it is.
    pub row: ActorRow,
    /// Messages a second, lately.
    pub messages_per_second: f64,
    /// Which share of the time it worked, lately.
    pub busy_share: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    messages: u64,
    busy_ns: u64,
    messages_per_second: f64,
    busy_share: f64,
}

impl Pace {
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    fn after(self, elapsed: Duration, messages: u64, busy_ns: u64) -> Self {
        let seconds = elapsed.as_secs_f64();
        let smoothed = |old: f64, new: f64| old + (new - old) * WEIGHT;
        // An actor that was started anew counts from 0 again.
        let came = messages.saturating_sub(self.messages) as f64;
        let worked = busy_ns.saturating_sub(self.busy_ns) as f64 / 1e9;
        Self {
            messages,
            busy_ns,
            messages_per_second: smoothed(self.messages_per_second, came / seconds),
            busy_share: smoothed(self.busy_share, worked / seconds),
        }
    }
}

type Paces = HashMap<(EntityKind, Uuid), Pace, RandomState>;

#[derive(Debug)]
struct State {
    at: Instant,
    /// Of all actors that live: as many as there are.
    paces: Paces,
    busiest: Vec<Busy>,
}

/// Who they are, as of the last look.
#[derive(Debug)]
pub struct Busiest(Mutex<State>);

impl Default for Busiest {
    fn default() -> Self {
        Self(Mutex::new(State {
            at: monotonic(),
            paces: Paces::default(),
            busiest: Vec::new(),
        }))
    }
}

impl Busiest {
    /// Looks at all actors of `node`; call it once a second.
    pub fn look(&self, node: &Node) {
        let mut state = self.0.lock();
        let now = monotonic();
        let elapsed = now.saturating_duration_since(state.at);
        if elapsed.is_zero() {
            return;
        }
        let before = std::mem::take(&mut state.paces);
        let mut look = Look {
            elapsed,
            before,
            now: Paces::default(),
        };
        look.at(node.timetables.directory());
        look.at(node.accounts.directory());
        look.at(node.queues.directory());
        look.at(node.coupons.directory());
        let mut order: Vec<((EntityKind, Uuid), Pace)> =
            look.now.iter().map(|(id, pace)| (*id, *pace)).collect();
        order.retain(|(_, pace)| pace.busy_share > 1e-6);
        // In nanoseconds a second, which have an order.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is not negative, and small"
        )]
        order.sort_unstable_by_key(|(id, pace)| (Reverse((pace.busy_share * 1e9) as u64), *id));
        order.truncate(BUSIEST_MAX);
        let busy = order.into_iter().filter_map(|((kind, key), pace)| {
            Some(Busy {
                row: node.own_actor(kind, key)?,
                messages_per_second: pace.messages_per_second,
                busy_share: pace.busy_share,
            })
        });
        state.busiest = busy.collect();
        state.paces = look.now;
        state.at = now;
    }

    /// The busiest first.
    #[must_use]
    pub fn read(&self) -> Vec<Busy> {
        self.0.lock().busiest.clone()
    }
}

struct Look {
    elapsed: Duration,
    before: Paces,
    now: Paces,
}

impl Look {
    fn at<M: Hosted>(&mut self, directory: &Directory<M>) {
        for (key, host) in directory.all() {
            let id = (M::KIND, key);
            let (messages, busy_ns) = host.stats().work();
            let before = self.before.get(&id).copied().unwrap_or_default();
            let pace = before.after(self.elapsed, messages, busy_ns);
            self.now.insert(id, pace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_follows_what_is_done_and_fades_when_nothing_is() {
        let mut pace = Pace::default();
        for second in 1..=40 {
            pace = pace.after(Duration::from_secs(1), second * 100, second * 500_000_000);
        }
        assert!((pace.messages_per_second - 100.0).abs() < 0.1, "{pace:?}");
        assert!((pace.busy_share - 0.5).abs() < 0.001, "{pace:?}");
        for _ in 0..40 {
            pace = pace.after(Duration::from_secs(1), pace.messages, pace.busy_ns);
        }
        assert!(pace.messages_per_second < 0.01, "{pace:?}");
        // A new actor in its place.
        let anew = pace.after(Duration::from_secs(1), 10, 10);
        assert!(anew.messages_per_second < 4.0, "{anew:?}");
    }
}
