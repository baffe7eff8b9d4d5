//! Queues: how their rows are written, come back, and are forgotten.

use onsale::domain::ids::{
    Activation, Epoch, PerformanceId, QueueTicketId, SHARDS, Seq, ShardId, ShardSet, Stamp,
    shard_of,
};
use onsale::domain::queue::draw::{Digest, Seed};
use onsale::domain::queue::line::TicketNumber;
use onsale::domain::queue::restore::{Gap, Grant, PlaceRow, PlaceState, QueueRow, QueueState};
use onsale::domain::queue::{Drawn, End};
use onsale::domain::time::Timestamp;
use onsale::persistence::StoreError;
use onsale::persistence::batch::PlaceEnd;
use onsale::persistence::constraints::A_NUMBER_IS_GIVEN_ONCE;
use onsale::persistence::store::commit::Verdict;
use onsale::persistence::store::queues::QueueFigures;
use uuid::Uuid;

use crate::fixture::{Fixture, NOW, user};

on_every_store!(
    a_queue_comes_back_as_it_was_written,
    a_place_that_ended_unseen_keeps_what_was_stored_of_it,
    a_batch_of_a_queue_that_is_repeated_late_or_stale_writes_nothing_more,
    a_number_is_nobody_elses,
    places_that_do_not_matter_are_not_read_and_are_deleted_in_bounded_batches,
    queues_are_listed_while_somebody_waits_or_is_inside,
);

fn show() -> PerformanceId {
    PerformanceId(Uuid::now_v7())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1_000)
}

fn place(number: u32, state: PlaceState) -> PlaceRow {
    PlaceRow {
        ticket: QueueTicketId(Uuid::now_v7()),
        user: user(),
        number: Some(TicketNumber(number)),
        entrant: false,
        joined_at: at(-1_000),
        state,
    }
}

fn ended(seconds: i64, pass_until: i64) -> PlaceState {
    PlaceState::Ended {
        end: End::Left,
        at: at(seconds),
        pass_until: at(pass_until),
    }
}

fn sorted(mut state: QueueState) -> QueueState {
    state.places.sort_by_key(|place| place.ticket);
    state
}

async fn read(f: &Fixture, id: PerformanceId) -> QueueState {
    sorted(f.store.load_queue(id, NOW).await.unwrap().state)
}

async fn a_queue_comes_back_as_it_was_written(f: &Fixture) {
    let (id, other) = (show(), show());
    let none = f.store.queue_figures(id, NOW).await.unwrap();
    assert_eq!(none, QueueFigures::default());
    let none = f.store.load_queue(id, NOW).await.unwrap();
    assert_eq!(
        (none.state, none.stamp),
        (QueueState::default(), Stamp::default())
    );

    let mut row = QueueRow {
        next: TicketNumber(12),
        reserved_upto: TicketNumber(1 << 27),
        admitted_up_to: TicketNumber(3),
        admitted_total: 5_000_000_000,
        paused: true,
        draining: true,
        grants: vec![
            Grant {
                at: NOW,
                count: u32::MAX,
            },
            Grant {
                at: at(1),
                count: 0,
            },
        ],
        gaps: vec![Gap {
            from: TicketNumber(4),
            upto: TicketNumber(9),
        }],
        seed: Some(Seed([0xa7; 32])),
        drawn: Some(Drawn {
            at: at(-5),
            first: TicketNumber(1),
            entrants: 3,
            entrants_hash: Digest([0x0f; 32]),
        }),
    };
    let active = PlaceState::Active {
        granted_at: at(-9),
        expires_at: at(591),
    };
    let states = [
        PlaceState::Waiting,
        PlaceState::Admitted,
        active,
        ended(-3, -3),
    ];
    let mut places: Vec<PlaceRow> = (1..).zip(states).map(|(n, s)| place(n, s)).collect();
    places[0].number = None;
    places[0].entrant = true;
    let mut first = f.contribution(id.into(), 0);
    let rows = first.queue().unwrap();
    rows.queue = Some(row.clone());
    places.iter().for_each(|place| rows.place_changed(*place));
    let mut of_another = f.contribution(other.into(), 0);
    let rows = of_another.queue().unwrap();
    // The same numbers, in another queue.
    rows.place_changed(place(1, PlaceState::Waiting));
    f.write(vec![first, of_another]).await;
    let written = sorted(QueueState {
        queue: row.clone(),
        places: places.clone(),
    });
    assert_eq!(read(f, id).await, written);
    assert_eq!(read(f, other).await.places.len(), 1);
    let figures = QueueFigures {
        waiting: 1,
        active: 2,
        admitted_total: 5_000_000_000,
        paused: true,
        draining: true,
    };
    assert_eq!(f.store.queue_figures(id, NOW).await.unwrap(), figures);
    // One of the passes has ended by then.
    let later = QueueFigures {
        active: 1,
        ..figures
    };
    assert_eq!(f.store.queue_figures(id, at(591)).await.unwrap(), later);

    // Changed, with each end there is; what isn't named stays.
    row.admitted_up_to = TicketNumber(7);
    row.grants.clear();
    places[0].number = Some(TicketNumber(1));
    let ends = [End::Expired, End::Purchased, End::Replaced];
    for (place, end) in places.iter_mut().skip(1).zip(ends) {
        place.state = PlaceState::Ended {
            end,
            at: at(-1),
            pass_until: at(5),
        };
    }
    let mut second = f.contribution(id.into(), 1);
    let rows = second.queue().unwrap();
    rows.queue = Some(row.clone());
    places.iter().for_each(|place| rows.place_changed(*place));
    f.write(vec![second]).await;
    let written = sorted(QueueState { queue: row, places });
    assert_eq!(read(f, id).await, written);
    let loaded = f.store.load_queue(id, NOW).await.unwrap();
    assert_eq!(loaded.stamp.seq, Seq(2));
}

/// By the time that the end is recorded, the user may have another place, so
/// that only the ticket, the number and the end are known.
async fn a_place_that_ended_unseen_keeps_what_was_stored_of_it(f: &Fixture) {
    let id = show();
    let waiting = place(1, PlaceState::Waiting);
    let active = PlaceState::Active {
        granted_at: at(-9),
        expires_at: at(591),
    };
    let inside = place(2, active);
    let over = place(3, ended(-3, 7));
    let mut entrant = place(4, PlaceState::Waiting);
    (entrant.number, entrant.entrant) = (None, true);
    let mut first = f.contribution(id.into(), 0);
    for place in [waiting, inside, over, entrant] {
        first.queue().unwrap().place_changed(place);
    }
    f.write(vec![first]).await;

    let end = |number: Option<u32>| PlaceEnd {
        number: number.map(TicketNumber),
        end: End::Replaced,
        at: at(1),
    };
    let mut second = f.contribution(id.into(), 1);
    let rows = second.queue().unwrap();
    rows.place_ended(waiting.ticket, end(Some(1)));
    rows.place_ended(inside.ticket, end(Some(2)));
    rows.place_ended(over.ticket, end(Some(3)));
    rows.place_ended(entrant.ticket, end(None));
    // One that the store never had, and one that began just now.
    rows.place_ended(QueueTicketId(Uuid::now_v7()), end(Some(5)));
    let new = place(6, PlaceState::Waiting);
    rows.place_changed(new);
    rows.place_ended(new.ticket, end(Some(6)));
    f.write(vec![second]).await;

    let replaced = |mut row: PlaceRow, pass_until: i64| {
        row.state = PlaceState::Ended {
            end: End::Replaced,
            at: at(1),
            pass_until: at(pass_until),
        };
        row
    };
    let mut entrant = replaced(entrant, 1);
    entrant.entrant = false;
    let expected = QueueState {
        queue: QueueRow::default(),
        places: vec![
            replaced(waiting, 1),
            replaced(inside, 591),
            over,
            entrant,
            replaced(new, 1),
        ],
    };
    assert_eq!(read(f, id).await, sorted(expected));
}

async fn a_batch_of_a_queue_that_is_repeated_late_or_stale_writes_nothing_more(f: &Fixture) {
    let id = show();
    let joined = |seq, number| {
        let mut one = f.contribution(id.into(), seq);
        let rows = one.queue().unwrap();
        rows.place_changed(place(number, PlaceState::Waiting));
        rows.queue = Some(QueueRow {
            next: TicketNumber(number + 1),
            ..QueueRow::default()
        });
        one
    };
    let first = joined(0, 1);
    for _ in 0..3 {
        // Its answer was lost.
        f.write(vec![first.clone()]).await;
    }
    let mut of_a_twin = joined(0, 2);
    of_a_twin.after.activation = Activation(7);
    let mut stale = joined(1, 2);
    (stale.expected.epoch, stale.after.epoch) = (f.epoch, Epoch(f.epoch.0 - 1));
    for stray in [of_a_twin, joined(4, 2), stale] {
        assert_eq!(f.commit(vec![stray]).await.unwrap(), [Verdict::Fenced]);
    }
    let found = read(f, id).await;
    assert_eq!((found.queue.next, found.places.len()), (TicketNumber(2), 1));
}

async fn a_number_is_nobody_elses(f: &Fixture) {
    let id = show();
    let joined = |seq| {
        let mut one = f.contribution(id.into(), seq);
        let waiting = place(1, PlaceState::Waiting);
        one.queue().unwrap().place_changed(waiting);
        one
    };
    f.write(vec![joined(0)]).await;
    let refused = f.commit(vec![joined(1)]).await.unwrap_err();
    let StoreError::Constraint { constraint } = refused else {
        panic!("{refused}");
    };
    assert_eq!(constraint, A_NUMBER_IS_GIVEN_ONCE);
    assert_eq!(read(f, id).await.places.len(), 1);
}

async fn places_that_do_not_matter_are_not_read_and_are_deleted_in_bounded_batches(f: &Fixture) {
    let id = show();
    let row = QueueRow {
        next: TicketNumber(101),
        reserved_upto: TicketNumber(200),
        admitted_up_to: TicketNumber(50),
        gaps: vec![
            Gap {
                from: TicketNumber(20),
                upto: TicketNumber(22),
            },
            Gap {
                from: TicketNumber(30),
                upto: TicketNumber(30),
            },
        ],
        ..QueueRow::default()
    };
    let mut drawn = place(10, ended(-5_000, -5_000));
    drawn.entrant = true;
    let mut never_drawn = place(11, ended(-5_000, -5_000));
    never_drawn.number = None;
    let kept = [
        drawn,
        place(1, PlaceState::Waiting),
        place(2, PlaceState::Admitted),
        // Its pass would still be good.
        place(3, ended(-5_000, 1)),
        // Told for ten minutes.
        place(4, ended(-600, -600)),
        // Numbers that may yet be claimed.
        place(20, ended(-5_000, -5_000)),
        place(22, ended(-5_000, -5_000)),
        place(30, ended(-5_000, -5_000)),
        // Not passed by admission.
        place(51, ended(-5_000, -5_000)),
    ];
    let gone = [
        never_drawn,
        place(5, ended(-601, -601)),
        place(19, ended(-5_000, 0)),
        place(23, ended(-5_000, -5_000)),
        place(50, ended(-5_000, -5_000)),
    ];
    let mut first = f.contribution(id.into(), 0);
    let rows = first.queue().unwrap();
    rows.queue = Some(row.clone());
    for place in kept.iter().chain(&gone) {
        rows.place_changed(*place);
    }
    f.write(vec![first]).await;
    let expected = sorted(QueueState {
        queue: row,
        places: kept.to_vec(),
    });
    assert_eq!(read(f, id).await, expected);
    let early = f.store.load_queue(id, at(-4_500)).await.unwrap();
    assert_eq!(early.state.places.len(), kept.len() + gone.len());

    let mut deleted = Vec::new();
    for _ in 0..4 {
        deleted.push(f.store.forget_places(NOW, 2).await.unwrap());
    }
    assert_eq!(deleted, [2, 2, 1, 0]);
    // As if nothing had been old.
    let left = f.store.load_queue(id, at(-4_500)).await.unwrap();
    assert_eq!(sorted(left.state), expected);
}

async fn queues_are_listed_while_somebody_waits_or_is_inside(f: &Fixture) {
    let active = PlaceState::Active {
        granted_at: at(-9),
        expires_at: at(591),
    };
    let states = [
        PlaceState::Waiting,
        PlaceState::Admitted,
        active,
        ended(-1, -1),
    ];
    let ids: Vec<PerformanceId> = states.iter().map(|_| show()).collect();
    let mut writes = Vec::new();
    for (id, state) in ids.iter().zip(states) {
        let mut write = f.contribution((*id).into(), 0);
        let rows = write.queue().unwrap();
        rows.queue = Some(QueueRow::default());
        rows.place_changed(place(1, state));
        rows.place_changed(place(2, ended(-1, -1)));
        writes.push(write);
    }
    f.write(writes).await;
    let all: ShardSet = (0..SHARDS).map(ShardId).collect();
    let mut found = f.store.queues_with_people(&all).await.unwrap();
    found.sort_unstable();
    let mut expected = ids[..3].to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let one: ShardSet = [shard_of(ids[0].0)].into_iter().collect();
    let found = f.store.queues_with_people(&one).await.unwrap();
    assert!(found.contains(&ids[0]) && found.len() < 3);
    let none = f.store.queues_with_people(&ShardSet::EMPTY).await.unwrap();
    assert_eq!(none, []);
}
