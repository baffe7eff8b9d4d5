use super::*;
use crate::domain::ids::{EntityKind, Epoch};
use uuid::Uuid;

/// How many decisions the parcels of these tests have at most.
const FULL: u64 = 100;

/// A parcel that only knows where it begins and ends.
struct Ends(Stamp, Stamp);

impl Parcel for Ends {
    fn begin(decided: &Decided) -> Self {
        Self(decided.after, decided.before)
    }

    fn extend(&mut self, decided: &Decided) {
        self.0 = decided.after;
    }

    fn leads_to(&self, decided: &Decided) -> bool {
        self.0 == decided.before
    }

    fn is_full(&self) -> bool {
        self.0.seq.0 - self.1.seq.0 >= FULL
    }

    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        1
    }
}

/// Writes nothing for a millisecond, and tells what it was given.
struct Shows(tokio::sync::mpsc::Sender<Stamp>);

impl Writer<Ends> for Shows {
    async fn write(&self, lane: &Lane<Ends>, batch: Vec<Entry<Ends>>) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for entry in batch {
            lane.done(&entry.parcel);
            self.0.send(entry.parcel.0).await.unwrap();
        }
    }
}

#[derive(Default)]
struct Lost(Mutex<Vec<Activation>>);

impl Sink for Lost {
    fn durable(&self, _: EntityId, _: Activation, _: Tier, _: Seq) {}

    fn rebase(&self, _: EntityId, _: Activation) {}

    fn lost(&self, _: EntityId, activation: Activation) {
        self.0.lock().push(activation);
    }
}

fn stamp(activation: u32, seq: u64) -> Stamp {
    Stamp {
        epoch: Epoch(1),
        activation: Activation(activation),
        seq: Seq(seq),
    }
}

fn decided(before: Stamp, after: Stamp) -> Decided {
    Decided {
        entity: EntityId {
            kind: EntityKind::Timetable,
            id: Uuid::nil(),
        },
        before,
        after,
        at: Timestamp(0),
        urgent: false,
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_waits_for_company_even_after_another_batch() {
    const DECISIONS: u64 = 500;
    let (shows, mut written) = tokio::sync::mpsc::channel(1_024);
    let lane = Lane::start(Shows(shows), 512);
    let sink: Arc<dyn Sink> = Arc::new(Lost::default());
    for seq in 0..DECISIONS {
        lane.submit(decided(stamp(1, seq), stamp(1, seq + 1)), &sink, |_| {});
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lane.drained().await;
    let mut batches = Vec::new();
    while let Ok(upto) = written.try_recv() {
        batches.push(upto.seq.0);
    }
    assert_eq!(batches.last(), Some(&DECISIONS));
    assert!(batches.len() <= 500 / 25 + 1, "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_is_written_at_once_with_all_that_waits() {
    let (shows, mut written) = tokio::sync::mpsc::channel(8);
    let lane = Lane::start(Shows(shows), 512);
    let sink: Arc<dyn Sink> = Arc::new(Lost::default());
    let begun = tokio::time::Instant::now();
    lane.submit(decided(stamp(1, 0), stamp(1, 1)), &sink, |_| {});
    tokio::time::sleep(Duration::from_millis(3)).await;
    let urgent = Decided {
        urgent: true,
        ..decided(stamp(1, 1), stamp(1, 2))
    };
    lane.submit(urgent, &sink, |_| {});
    assert_eq!(written.recv().await, Some(stamp(1, 2)));
    assert!(begun.elapsed() < LINGER);
}

#[tokio::test(start_paused = true)]
async fn what_one_entity_decides_is_split_over_writes_and_keeps_nobody_else_waiting() {
    let (shows, mut written) = tokio::sync::mpsc::channel(64);
    let lane = Lane::start(Shows(shows), 512);
    let sink: Arc<dyn Sink> = Arc::new(Lost::default());
    for seq in 0..3 * FULL + 1 {
        lane.submit(decided(stamp(1, seq), stamp(1, seq + 1)), &sink, |_| {});
    }
    let another = Decided {
        entity: EntityId {
            kind: EntityKind::Coupon,
            id: Uuid::max(),
        },
        ..decided(stamp(7, 7), stamp(7, 8))
    };
    lane.submit(another, &sink, |_| {});
    lane.drained().await;
    assert_eq!(lane.dirty_bytes(), 0);
    let mut ends = Vec::new();
    while let Ok(upto) = written.try_recv() {
        ends.push((upto.activation.0, upto.seq.0));
    }
    let own = [FULL, 2 * FULL, 3 * FULL, 3 * FULL + 1].map(|upto| (1, upto));
    assert_eq!(
        ends.iter()
            .filter(|end| end.0 == 1)
            .copied()
            .collect::<Vec<_>>(),
        own
    );
    let before = ends.iter().position(|end| *end == (7, 8)).unwrap();
    assert!(before <= 2, "{ends:?}");
}

#[tokio::test]
async fn what_does_not_follow_what_waits_is_not_written_and_its_entity_is_discarded() {
    let (shows, mut written) = tokio::sync::mpsc::channel(8);
    let lane = Lane::start(Shows(shows), 512);
    let lost = Arc::new(Lost::default());
    let sink: Arc<dyn Sink> = Arc::clone(&lost) as _;
    lane.submit(decided(stamp(1, 0), stamp(1, 1)), &sink, |_| ());
    lane.submit(decided(stamp(1, 1), stamp(1, 2)), &sink, |_| ());
    // A second life that was read before the first one's work was written.
    lane.submit(decided(stamp(1, 0), stamp(2, 1)), &sink, |_| {
        panic!("its rows are taken")
    });
    assert_eq!(*lost.0.lock(), [Activation(2)]);
    assert_eq!(written.recv().await, Some(stamp(1, 2)));
    lane.drained().await;
    assert_eq!(lane.dirty_bytes(), 0);
}
