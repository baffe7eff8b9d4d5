//! Ties: what is decided on the strength of a decision that isn't durable yet must
//! not be durable before it.
//!
//! An order is the example: its seats may be sold as soon as its money is set aside
//! in the account's memory, if both are written by one lane, because then one commit
//! has both. A lane keeps a tie by taking what a parcel is tied to into the same
//! batch, and by refusing the parcel where that was lost. Between lanes there are
//! none.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::{Entry, Parcel, Waiting};
use crate::clock::monotonic;
use crate::domain::ids::EntityId;
use crate::persistence::batch::Tie;
#[cfg(feature = "sabotage")]
use crate::sabotage::{self, Switch};

/// For how long after a life was lost somebody may still be tied to it: far longer
/// than an order is open.
const LOST_FOR: Duration = Duration::from_secs(300);

/// How many lost lives are remembered one by one. Beyond it, for as long as that,
/// every life counts as lost.
const LOST_MAX: usize = 65_536;

/// The lives of which something was lost lately.
#[derive(Debug, Default)]
pub(super) struct Losses {
    lives: HashSet<Tie, RandomState>,
    order: VecDeque<(Instant, Tie)>,
    too_many_until: Option<Instant>,
}

impl Losses {
    /// What `life` has decided will never be written, or not all of it.
    pub(super) fn add(&mut self, life: Tie) {
        let now = monotonic();
        while let Some((at, oldest)) = self.order.front()
            && (now.duration_since(*at) > LOST_FOR || self.order.len() >= LOST_MAX)
        {
            if now.duration_since(*at) <= LOST_FOR {
                self.too_many_until = Some(now + LOST_FOR);
            }
            self.lives.remove(oldest);
            self.order.pop_front();
        }
        if self.lives.insert(life) {
            self.order.push_back((now, life));
        }
    }

    /// Whether one of `ties` is to a life of which something was lost.
    pub(super) fn any(&self, ties: &[Tie]) -> bool {
        if ties.is_empty() || (self.order.is_empty() && self.too_many_until.is_none()) {
            return false;
        }
        let are_too_many = self
            .too_many_until
            .is_some_and(|until| monotonic() <= until);
        are_too_many || ties.iter().any(|tie| self.lives.contains(tie))
    }
}

impl<P: Parcel> Waiting<P> {
    /// Takes what the parcels of `batch` are tied to into it, whatever its size;
    /// those of which that can't be done wait for the next.
    pub(super) fn keep_ties(&mut self, batch: &mut Vec<Entry<P>>) {
        #[cfg(feature = "sabotage")]
        if sabotage::is_on(Switch::Untied) {
            return self.loosen(batch);
        }
        let mut at = 0;
        let mut has_taken = false;
        while let Some(entry) = batch.get(at) {
            let ties: Vec<EntityId> = entry.parcel.ties().iter().map(|tie| tie.entity).collect();
            for entity in ties {
                if self.in_flight.contains(&entity) {
                    continue;
                }
                if let Some(taken) = self.oldest_of(entity) {
                    has_taken = true;
                    self.in_flight.insert(entity);
                    batch.push(taken);
                }
            }
            at += 1;
        }
        self.put_back(batch, |waiting, entry| {
            let mut ties = entry.parcel.ties().iter();
            // A write has one parcel of each entity: it had more.
            ties.any(|tie| waiting.entries.contains_key(&tie.entity))
        });
        if has_taken {
            let (entries, full) = (&self.entries, &self.full);
            self.order.retain(|(entity, _)| {
                entries.contains_key(entity) || full.iter().any(|entry| entry.entity == *entity)
            });
        }
    }

    /// Those that `must_wait` are the first of the next batch.
    fn put_back(
        &mut self,
        batch: &mut Vec<Entry<P>>,
        must_wait: impl Fn(&Self, &Entry<P>) -> bool,
    ) {
        let waits: Vec<bool> = batch.iter().map(|entry| must_wait(self, entry)).collect();
        if !waits.contains(&true) {
            return;
        }
        let all = std::mem::take(batch);
        for (entry, waits) in all.into_iter().zip(waits) {
            if waits {
                self.in_flight.remove(&entry.entity);
                self.order.push_front((entry.entity, monotonic()));
                self.full.push_front(entry);
            } else {
                batch.push(entry);
            }
        }
    }

    /// What a broken build does: what others are tied to comes after them.
    #[cfg(feature = "sabotage")]
    fn loosen(&mut self, batch: &mut Vec<Entry<P>>) {
        let ties = batch.iter().flat_map(|entry| entry.parcel.ties());
        let first: HashSet<EntityId> = ties.map(|tie| tie.entity).collect();
        self.put_back(batch, |_, entry| first.contains(&entry.entity));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::actors::lane::{Decided, Lane, Sink};
    use crate::domain::decision::Tier;
    use crate::domain::ids::{Activation, EntityKind, Epoch, Seq, Stamp};
    use crate::domain::time::Timestamp;

    const ACCOUNTS: usize = 4;
    const TIMETABLES: usize = 3;

    /// So few decisions fill a parcel that some of an account's wait for another
    /// batch.
    const FULL: u64 = 3;

    /// A batch is closed early, so that what a parcel is tied to is often beyond.
    const BATCH_ROWS: usize = 2;

    struct Sales {
        upto: Stamp,
        decisions: u64,
        ties: Vec<Tie>,
        /// Account and decision.
        needs: Vec<(usize, Stamp)>,
    }

    impl Parcel for Sales {
        fn begin(decided: &Decided) -> Self {
            Self {
                upto: decided.before,
                decisions: 0,
                ties: Vec::new(),
                needs: Vec::new(),
            }
        }

        fn extend(&mut self, decided: &Decided) {
            self.upto = decided.after;
            self.decisions += 1;
        }

        fn leads_to(&self, decided: &Decided) -> bool {
            self.upto == decided.before
        }

        fn is_full(&self) -> bool {
            self.decisions >= FULL
        }

        fn ties(&self) -> &[Tie] {
            &self.ties
        }

        fn rows(&self) -> usize {
            1
        }

        fn bytes(&self) -> usize {
            1
        }
    }

    struct Nobody;

    impl Sink for Nobody {
        fn durable(&self, _: EntityId, _: Activation, _: Tier, _: Seq) {}
        fn lost(&self, _: EntityId, _: Activation) {}
        fn rebase(&self, _: EntityId, _: Activation) {}
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pay(usize),
        /// Sold by this timetable, paid by that account.
        Sell(usize, usize),
        /// The next batch is written, but not what these accounts have in it.
        Write([bool; ACCOUNTS]),
    }

    fn step() -> impl Strategy<Value = Step> {
        let lost = proptest::array::uniform4(proptest::bool::weighted(0.1));
        prop_oneof![
            3 => (0..ACCOUNTS).prop_map(Step::Pay),
            4 => (0..TIMETABLES, 0..ACCOUNTS).prop_map(|(of, by)| Step::Sell(of, by)),
            2 => lost.prop_map(Step::Write),
        ]
    }

    /// An entity as its actor sees it.
    struct Live {
        entity: EntityId,
        decided: Stamp,
        written: Stamp,
    }

    impl Live {
        fn new(kind: EntityKind, number: usize) -> Self {
            let stamp = Stamp {
                epoch: Epoch(1),
                activation: Activation(1),
                seq: Seq(0),
            };
            Self {
                entity: EntityId {
                    kind,
                    id: Uuid::from_u128(number as u128 + 1),
                },
                decided: stamp,
                written: stamp,
            }
        }

        fn decide(&mut self, lane: &Lane<Sales>, record: impl FnOnce(&mut Sales)) -> Tie {
            let before = self.decided;
            self.decided.seq = before.seq.next();
            let decided = Decided {
                entity: self.entity,
                before,
                after: self.decided,
                at: Timestamp(0),
                urgent: false,
            };
            let sink: Arc<dyn Sink> = Arc::new(Nobody);
            lane.submit(decided, &sink, record);
            self.life()
        }

        /// What an earlier life decided still waits: it is not loaded again before
        /// that is written or fenced.
        fn is_away(&self, lane: &Lane<Sales>) -> bool {
            let waiting = lane.shared.waiting.lock();
            let of_another = |entry: &Entry<Sales>| {
                entry.entity == self.entity
                    && entry.parcel.upto.activation != self.decided.activation
            };
            waiting.full.iter().any(of_another) || waiting.entries.values().any(of_another)
        }

        fn life(&self) -> Tie {
            Tie {
                entity: self.entity,
                activation: self.decided.activation,
            }
        }

        /// It starts again from what is written.
        fn lose(&mut self, lane: &Lane<Sales>) {
            lane.lose(self.life());
            self.decided = Stamp {
                activation: Activation(self.decided.activation.0 + 1),
                seq: self.written.seq,
                ..self.decided
            };
        }
    }

    struct World {
        lane: Lane<Sales>,
        accounts: Vec<Live>,
        timetables: Vec<Live>,
    }

    impl World {
        fn new() -> Self {
            let of = |kind: EntityKind, count: usize| (0..count).map(move |n| Live::new(kind, n));
            Self {
                lane: Lane::new(BATCH_ROWS),
                accounts: of(EntityKind::Account, ACCOUNTS).collect(),
                timetables: of(EntityKind::Timetable, TIMETABLES).collect(),
            }
        }

        fn sell(&mut self, timetable: usize, account: usize) {
            let lane = &self.lane;
            if self.accounts[account].is_away(lane) || self.timetables[timetable].is_away(lane) {
                return;
            }
            let tie = self.accounts[account].decide(lane, |_| {});
            let needed = self.accounts[account].decided;
            self.timetables[timetable].decide(lane, |sales| {
                sales.ties.push(tie);
                sales.needs.push((account, needed));
            });
        }

        /// Whether there was anything to write.
        fn write(&mut self, lost: [bool; ACCOUNTS]) -> bool {
            let batch = self.lane.take();
            let was_any = !batch.is_empty();
            let of: HashSet<EntityId> = batch.iter().map(|entry| entry.entity).collect();
            assert_eq!(of.len(), batch.len(), "two parcels of one entity");
            let (accounts, timetables): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .partition(|entry| entry.entity.kind == EntityKind::Account);
            for entry in accounts {
                let number = entry.entity.id.as_u128() as usize - 1;
                let account = &mut self.accounts[number];
                if entry.parcel.upto.activation != account.decided.activation {
                    // Of a life that is over: it doesn't follow on what is stored.
                } else if lost[number] {
                    account.lose(&self.lane);
                } else {
                    account.written = entry.parcel.upto;
                }
            }
            for entry in timetables {
                let timetable = &mut self.timetables[entry.entity.id.as_u128() as usize - 1];
                if entry.parcel.upto.activation != timetable.decided.activation {
                    continue;
                }
                if self.lane.has_lost(&entry.parcel.ties) {
                    timetable.lose(&self.lane);
                    continue;
                }
                for (account, needed) in &entry.parcel.needs {
                    let written = self.accounts[*account].written;
                    assert_eq!(written.activation, needed.activation, "sold on a lost life");
                    assert!(written.seq >= needed.seq, "sold before its money");
                }
                timetable.written = entry.parcel.upto;
            }
            self.lane.written();
            was_any
        }
    }

    proptest! {
        #[test]
        fn what_is_tied_is_never_written_before_what_it_is_tied_to(
            steps in proptest::collection::vec(step(), 1..120)
        ) {
            let mut world = World::new();
            for step in &steps {
                match step {
                    Step::Pay(account) => {
                        let account = &mut world.accounts[*account];
                        if !account.is_away(&world.lane) {
                            account.decide(&world.lane, |_| {});
                        }
                    }
                    Step::Sell(timetable, account) => world.sell(*timetable, *account),
                    Step::Write(lost) => {
                        world.write(*lost);
                    }
                }
            }
            let mut batches = 0;
            while world.write([false; ACCOUNTS]) {
                batches += 1;
                prop_assert!(batches <= 2 * steps.len(), "something waits for ever");
            }
            let waiting = world.lane.shared.waiting.lock();
            prop_assert!(waiting.entries.is_empty() && waiting.full.is_empty());
            prop_assert!(waiting.order.is_empty());
        }
    }

    #[tokio::test]
    async fn an_entity_that_was_put_back_is_not_settled() {
        let mut world = World::new();
        let lane = world.lane.clone();
        for _ in 0..FULL {
            world.accounts[0].decide(&lane, |_| {});
        }
        world.sell(0, 0);
        let timetable = world.timetables[0].entity;
        // The first of the account's two parcels; its sale follows the second.
        world.write([false; ACCOUNTS]);
        assert!(lane.settled(timetable).now_or_never().is_none());
        while world.write([false; ACCOUNTS]) {}
        assert!(lane.settled(timetable).now_or_never().is_some());
        assert_eq!(world.timetables[0].written, world.timetables[0].decided);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_lives_are_forgotten_in_time_and_too_many_count_as_all() {
        let life = |number: u128| Tie {
            entity: EntityId {
                kind: EntityKind::Account,
                id: Uuid::from_u128(number),
            },
            activation: Activation(1),
        };
        let mut losses = Losses::default();
        assert!(!losses.any(&[life(1)]));
        losses.add(life(1));
        assert!(losses.any(&[life(2), life(1)]));
        assert!(!losses.any(&[life(2)]) && !losses.any(&[]));
        tokio::time::sleep(LOST_FOR + Duration::from_secs(1)).await;
        losses.add(life(2));
        assert!(!losses.any(&[life(1)]) && losses.any(&[life(2)]));
        for number in 0..LOST_MAX as u128 {
            losses.add(life(10 + number));
        }
        assert!(losses.any(&[life(9)]), "some may have been forgotten");
        assert_eq!(
            (losses.lives.len(), losses.order.len()),
            (LOST_MAX, LOST_MAX)
        );
        tokio::time::sleep(LOST_FOR + Duration::from_secs(1)).await;
        assert!(!losses.any(&[life(9)]));
    }
}
