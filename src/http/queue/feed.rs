//! What this node's sockets of a waiting room are told.
//!
//! A queue with sockets has one feed here. It makes the shared part of a tick
//! once for many sockets, which add their own digits, and pokes the sockets of
//! users who stand otherwise than before. Nothing is kept for a socket but the
//! fact that it was poked: a slow one skips.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::actors::queue_board::{Life, QueueBoard, Told};
use crate::app::App;
use crate::domain::ids::{PerformanceId, UserId};
use crate::domain::queue::{Pace, TicketNumber};
use crate::domain::time::Timestamp;

/// How often a socket is told its position while that moves. The contract says
/// once a second at least.
const TICK_EVERY: Duration = Duration::from_millis(900);

/// How often some groups have their turn.
const TURN_EVERY: Duration = Duration::from_millis(50);

/// The sockets of a queue take turns in so many groups, so that a tick is no
/// burst of all of them: each turn so many of those that are due.
const LANES: usize = 18;
const LANES_A_TURN: usize = 2;

/// How many sockets of a node may ask queues how their users stand at once:
/// when everybody must, it goes on in turn.
const ASKING_MAX: usize = 256;

/// How each socket of a user is told to look again.
type Pokes = SmallVec<[Arc<Notify>; 1]>;

/// What was known when a tick was made.
type Version = (Life, u64);

/// The part of a tick that is the same for all sockets of a group.
#[derive(Debug)]
pub(super) struct Tick {
    /// How many this group had before.
    pub(super) count: u64,
    version: Version,
    /// The beginning of the frame.
    head: Box<str>,
    /// What waits are foretold by; `None`: nobody enters.
    pace: Option<Pace>,
    /// Until the opening, in seconds.
    opens_in: f64,
}

/// What one socket adds to a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digits {
    pub(super) position: u32,
    behind: u32,
    pub(super) seq: u64,
}

impl Tick {
    /// The frame of one socket.
    pub(super) fn frame(&self, digits: Digits) -> String {
        let Digits {
            position,
            behind,
            seq,
        } = digits;
        let mut text = String::with_capacity(self.head.len() + 128);
        text.push_str(&self.head);
        // Writing to a String can't fail.
        let _ = write!(
            text,
            r#","seq":{seq},"position":{position},"waiting_behind":{behind},"estimated_wait_seconds":"#
        );
        let wait = |pace: Pace| pace.wait(self.opens_in, position);
        match self.pace.and_then(wait) {
            Some(seconds) => {
                let _ = write!(text, "{seconds}");
            }
            None => text.push_str("null"),
        }
        text.push('}');
        text
    }
}

/// The feed of one queue on this node.
#[derive(Debug)]
pub(super) struct Feed {
    board: Arc<QueueBoard>,
    lanes: Vec<watch::Sender<Option<Arc<Tick>>>>,
    sockets: Mutex<HashMap<UserId, Pokes, RandomState>>,
    joined: AtomicUsize,
    count: AtomicUsize,
    dropped: AtomicU64,
}

impl Feed {
    fn of(board: Arc<QueueBoard>) -> Self {
        Self {
            board,
            lanes: (0..LANES).map(|_| watch::Sender::new(None)).collect(),
            sockets: Mutex::default(),
            joined: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Where the owner of `number` is now, as this node knows it.
    pub(super) fn digits(&self, number: TicketNumber) -> Digits {
        self.board.with_line(|line| Digits {
            position: line.position(number),
            behind: line.behind(number),
            seq: line.seq(),
        })
    }

    /// Whether `number` was admitted, or passed.
    pub(super) fn was_admitted(&self, number: TicketNumber) -> bool {
        self.board.with_line(|line| number <= line.admitted_up_to())
    }

    /// A socket skipped so many frames.
    pub(super) fn skipped(&self, frames: u64) {
        self.dropped.fetch_add(frames, Ordering::Relaxed);
    }

    /// Makes a tick for one group; `false` if there is nothing new for it.
    fn tick(&self, lane: usize, told: &Told, now: Timestamp, opens_at: Timestamp) -> bool {
        let Some(lane) = self.lanes.get(lane) else {
            return false;
        };
        let version = (told.life, told.version);
        lane.send_if_modified(|last| {
            if last.as_ref().is_some_and(|last| last.version == version) {
                return false;
            }
            let count = last.as_ref().map_or(0, |last| last.count + 1);
            *last = Some(Arc::new(tick_of(told, count, now, opens_at)));
            true
        })
    }

    /// Pokes the sockets of these users, or of all.
    fn poke(&self, users: Option<&[UserId]>) {
        let sockets = self.sockets.lock();
        let poke = |of_user: &Pokes| {
            of_user.iter().for_each(|socket| socket.notify_one());
        };
        match users {
            Some(users) => users
                .iter()
                .filter_map(|user| sockets.get(user))
                .for_each(poke),
            None => sockets.values().for_each(poke),
        }
    }
}

fn tick_of(told: &Told, count: u64, now: Timestamp, opens_at: Timestamp) -> Tick {
    let summary = &told.summary;
    let head = format!(
        r#"{{"type":"tick","at":"{now}","seats":{{"available":{},"held":{}}},"paused":{}"#,
        summary.seats.available, summary.seats.held, summary.paused
    );
    Tick {
        count,
        version: (told.life, told.version),
        head: head.into(),
        pace: told.pace,
        opens_in: opens_at.since(now).0.max(0) as f64 / 1000.0,
    }
}

/// A socket's membership in a feed; it ends with it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) feed: Arc<Feed>,
    /// When the user's standing must be looked at again.
    pub(super) poke: Arc<Notify>,
    pub(super) ticks: watch::Receiver<Option<Arc<Tick>>>,
    user: UserId,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut sockets = self.feed.sockets.lock();
        if let Some(of_user) = sockets.get_mut(&self.user) {
            of_user.retain(|socket| !Arc::ptr_eq(socket, &self.poke));
            if of_user.is_empty() {
                sockets.remove(&self.user);
            }
        }
        drop(sockets);
        self.feed.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The feeds of all queues that have sockets on this node.
#[derive(Clone, Debug)]
pub struct QueueFeeds {
    feeds: Arc<DashMap<PerformanceId, Arc<Feed>, RandomState>>,
    /// Bounds how many sockets ask at once.
    pub(super) asking: Arc<Semaphore>,
}

impl Default for QueueFeeds {
    fn default() -> Self {
        Self {
            feeds: Arc::default(),
            asking: Arc::new(Semaphore::new(ASKING_MAX)),
        }
    }
}

impl QueueFeeds {
    /// Follows a queue for a socket of `user`. The first one starts the feed,
    /// which ends after the last one.
    pub(super) fn follow(&self, app: &Arc<App>, id: PerformanceId, user: UserId) -> Member {
        // Under the entry's lock, so that the feed can't end in between.
        let entry = self.feeds.entry(id).or_insert_with(|| {
            let feed = Arc::new(Feed::of(app.node.queue_boards.open(id)));
            tokio::spawn(run(self.clone(), Arc::clone(app), Arc::clone(&feed)));
            feed
        });
        let feed = Arc::clone(&entry);
        feed.count.fetch_add(1, Ordering::AcqRel);
        drop(entry);
        let poke = Arc::new(Notify::new());
        let mut sockets = feed.sockets.lock();
        sockets.entry(user).or_default().push(Arc::clone(&poke));
        drop(sockets);
        let lane = feed.joined.fetch_add(1, Ordering::Relaxed) % LANES;
        let ticks = match feed.lanes.get(lane) {
            Some(lane) => lane.subscribe(),
            // Not reached: the remainder is below their number.
            None => watch::Sender::new(None).subscribe(),
        };
        Member {
            feed,
            poke,
            ticks,
            user,
        }
    }

    /// How many sockets each queue has on this node, and how many frames slow
    /// ones have skipped.
    #[must_use]
    pub fn figures(&self) -> Vec<(PerformanceId, usize, u64)> {
        let feeds = self.feeds.iter();
        feeds
            .map(|feed| {
                let sockets = feed.count.load(Ordering::Relaxed);
                (*feed.key(), sockets, feed.dropped.load(Ordering::Relaxed))
            })
            .collect()
    }
}

/// Whose turn it is.
#[derive(Debug)]
struct Turns {
    next: usize,
    /// When each group had its last tick.
    ticked: Vec<Option<Instant>>,
}

impl Turns {
    fn new() -> Self {
        Self {
            next: 0,
            ticked: vec![None; LANES],
        }
    }

    /// Ticks some of the groups that are due at `at`: those without a tick for
    /// [`TICK_EVERY`]. `tick` says whether there was anything to tell.
    fn take(&mut self, at: Instant, mut tick: impl FnMut(usize) -> bool) {
        let first = self.next;
        let mut taken = 0;
        for lane in (first..first + LANES).map(|lane| lane % LANES) {
            let Some(last) = self.ticked.get_mut(lane) else {
                continue;
            };
            let is_due = last.is_none_or(|last| at.duration_since(last) >= TICK_EVERY);
            if is_due && tick(lane) {
                *last = Some(at);
                self.next = (lane + 1) % LANES;
                taken += 1;
                if taken == LANES_A_TURN {
                    return;
                }
            }
        }
    }
}

/// Runs a feed for as long as it has sockets.
async fn run(feeds: QueueFeeds, app: Arc<App>, feed: Arc<Feed>) {
    let id = feed.board.id();
    let mut shutdown = app.shutdown.subscribe();
    let mut told = feed.board.told();
    // Who comes now asks after this, and so knows at least as much.
    let mut seen = told
        .borrow_and_update()
        .as_ref()
        .map(|told| (told.life, told.version));
    let mut turns = Turns::new();
    let mut turn = tokio::time::interval(TURN_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let following = app.follow_queue(&feed.board);
    tokio::pin!(following);
    loop {
        tokio::select! {
            biased;
            changed = told.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = told.borrow_and_update().clone();
                if let Some(now) = now {
                    pass_on(&feed, &now, &mut seen);
                }
            }
            at = turn.tick() => {
                let is_over = |_: &PerformanceId, feed: &Arc<Feed>| {
                    feed.count.load(Ordering::Acquire) == 0
                };
                if feeds.feeds.remove_if(&id, is_over).is_some() {
                    return;
                }
                let now = app.clock.now();
                let performance = app.catalogue.performance(id);
                let opens_at = performance.map_or(now, |p| p.row.opens_at);
                let latest = feed.board.told().borrow().clone();
                if let Some(told) = latest {
                    turns.take(at, |lane| feed.tick(lane, &told, now, opens_at));
                }
            }
            () = &mut following => {}
            _ = shutdown.wait_for(|ends| *ends) => {
                // The sockets are told by themselves.
                feeds.feeds.remove(&id);
                return;
            }
        }
    }
}

/// Pokes whoever stands otherwise than in `seen`.
fn pass_on(feed: &Feed, told: &Told, seen: &mut Option<Version>) {
    let before = seen.replace((told.life, told.version));
    // In another life anything may have happened.
    let known = before.filter(|(life, _)| *life == told.life);
    let users = known.and_then(|(_, version)| told.news_since(version));
    feed.poke(users.as_deref());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(pace: Option<Pace>) -> Tick {
        Tick {
            count: 0,
            version: Version::default(),
            head: r#"{"type":"tick","paused":false"#.into(),
            pace,
            opens_in: 0.0,
        }
    }

    #[test]
    fn every_group_has_its_tick_in_time_and_never_all_at_once() {
        let start = crate::clock::monotonic();
        let mut turns = Turns::new();
        let mut last = [start; LANES];
        for turn in 0..200 {
            let at = start + TURN_EVERY * turn;
            let mut ticked = Vec::new();
            turns.take(at, |lane| {
                ticked.push(lane);
                true
            });
            assert!(ticked.len() <= LANES_A_TURN);
            for lane in ticked {
                last[lane] = at;
            }
            assert!(last.iter().all(|last| at - *last < Duration::from_secs(1)));
        }
        // What comes after a silence is told as soon.
        let silence = start + Duration::from_secs(60);
        let mut told = 0;
        for turn in 0..10 {
            turns.take(silence + TURN_EVERY * turn, |_| {
                told += 1;
                true
            });
        }
        assert_eq!(told, LANES);
    }

    #[test]
    fn a_tick_is_json_with_the_digits_of_its_socket() {
        let digits = Digits {
            position: 30,
            behind: 4,
            seq: 9,
        };
        let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let pace = Pace {
            room: 2,
            per_second: 20.0,
        };
        let frame = read(tick(Some(pace)).frame(digits));
        assert_eq!(frame["position"], 30);
        assert_eq!(frame["waiting_behind"], 4);
        assert_eq!(frame["seq"], 9);
        assert_eq!(frame["estimated_wait_seconds"], 2);
        let frame = read(tick(None).frame(digits));
        assert!(frame["estimated_wait_seconds"].is_null());
    }
}
