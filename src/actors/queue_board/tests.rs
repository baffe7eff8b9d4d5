use uuid::Uuid;

use super::*;
use crate::clock::monotonic;
use crate::domain::decision::{Machine as _, catch_up, step};
use crate::domain::ids::{QueueTicketId, Seq};
use crate::domain::queue::policy::{Preset, QueuePolicy};
use crate::domain::queue::{Command, Event, QueuePlan, SeatsLeft};

const LIFE: Life = (Epoch(3), Activation(1));
const NOW: Timestamp = Timestamp(1_000_000);

fn queue() -> Queue {
    let policy = QueuePolicy {
        max_active: Some(10),
        admit: None,
        ..Preset::Active50.policy()
    };
    let mut queue = Queue::new(Arc::new(QueuePlan {
        performance_id: PerformanceId(Uuid::nil()),
        policy,
        opens_at: Timestamp(0),
        closes_at: Timestamp(i64::MAX),
        capacity: 100,
        places_max: 100,
        withdrawn: false,
    }));
    let left = SeatsLeft {
        available: 100,
        held: 0,
    };
    queue.apply(Seq(0), &Event::SeatsTold(left));
    queue
}

/// Somebody joins, enters, and leaves again. Whose pass is over then.
fn come_and_go(queue: &mut Queue, seq: &mut Seq) -> (UserId, TicketNumber) {
    let user = UserId(Uuid::now_v7());
    let ticket = QueueTicketId(Uuid::now_v7());
    let claim = None;
    let join = Command::Join {
        user,
        ticket,
        claim,
    };
    assert!(step(queue, seq, NOW, join).outcome.is_ok());
    for _ in 0..2 {
        catch_up(queue, seq, NOW, &mut smallvec::SmallVec::new());
        queue.settle(*seq);
    }
    catch_up(queue, seq, NOW, &mut smallvec::SmallVec::new());
    let (number, _) = queue.pass_of(user).expect("a pass");
    assert!(
        step(queue, seq, NOW, Command::Leave { user })
            .outcome
            .is_ok()
    );
    (user, number)
}

#[test]
fn an_end_of_a_pass_is_known_at_once_here_and_with_the_next_copy_elsewhere() {
    let (here, there) = (QueueBoards::default(), QueueBoards::default());
    let id = PerformanceId(Uuid::nil());
    let (here, there) = (here.open(id), there.open(id));
    let (mut queue, mut seq) = (queue(), Seq(0));
    let (first, first_number) = come_and_go(&mut queue, &mut seq);
    assert_eq!(here.is_over(first, first_number), None, "nothing is known");
    here.load(&mut queue, LIFE, NOW);
    assert_eq!(here.is_over(first, first_number), Some(true));
    let age = Duration::from_secs(1);
    assert_eq!(there.is_over_in_copy(first, first_number, age), None);
    assert!(there.copy(None, here.copy_since(there.known()), monotonic(), NOW));
    assert_eq!(there.is_over_in_copy(first, first_number, age), Some(true));

    let (second, number) = come_and_go(&mut queue, &mut seq);
    assert_eq!(here.is_over(second, number), Some(false));
    here.stir(&queue, NOW);
    assert_eq!(here.is_over(second, number), Some(true));
    assert_eq!(there.is_over_in_copy(second, number, age), Some(false));
    let known = there.known();
    let copy = here.copy_since(known);
    assert_eq!((copy.whole, copy.over.len()), (false, 1));
    // For who has something else it is worth nothing.
    assert!(!there.copy(Some((LIFE, 9)), copy.clone(), monotonic(), NOW));
    assert!(there.copy(known, copy, monotonic(), NOW));
    assert_eq!(there.is_over_in_copy(second, number, age), Some(true));
    assert_eq!(there.is_over_in_copy(second, number, Duration::ZERO), None);
    // Another life of the queue is copied as a whole.
    here.load(&mut queue, (Epoch(4), Activation(1)), NOW);
    assert!(here.copy_since(there.known()).whole);
}

#[test]
fn versions_of_the_line_rise_over_reloads_and_epochs_and_stay_below_2_to_the_53() {
    let board = QueueBoards::default().open(PerformanceId(Uuid::nil()));
    let mut told = Vec::new();
    // A panic reloads it within its epoch; then another node has it, and
    // then this one again, in the last epoch that there is room for.
    let last = Epoch(u32::try_from(EPOCH_MASK).unwrap());
    let lives = [(Epoch(3), 1), (Epoch(3), 2), (Epoch(3), 3), (last, 1)];
    for (epoch, activation) in lives {
        let (mut queue, mut seq) = (queue(), Seq(0));
        board.load(&mut queue, (epoch, Activation(activation)), NOW);
        told.push(queue.line().seq());
        for _ in 0..3 {
            come_and_go(&mut queue, &mut seq);
            board.tell(&mut queue, NOW);
            told.push(queue.line().seq());
            assert_eq!(board.with_line(Line::seq), queue.line().seq());
        }
    }
    assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
    assert!(told.iter().all(|seq| *seq < 1 << 53));
}

#[test]
fn followers_are_told_each_change_once_and_can_follow_the_line() {
    let board = QueueBoards::default().open(PerformanceId(Uuid::nil()));
    let (mut queue, mut seq) = (queue(), Seq(0));
    board.load(&mut queue, LIFE, NOW);
    let mut told = board.told();
    let (user, number) = come_and_go(&mut queue, &mut seq);
    board.stir(&queue, NOW);
    assert!(board.is_stirred());
    board.tell(&mut queue, NOW);
    assert!(!board.is_stirred());
    let told = told.borrow_and_update().clone().expect("loaded");
    assert_eq!((told.version, told.deltas.len()), (1, 1));
    let (_, news) = &told.news[0];
    assert!(news.all || news.users.contains(&user));
    assert_eq!(board.with_line(Line::admitted_up_to), number);
    assert_eq!(board.summary().map(|summary| summary.left), Some(1));
    board.cool();
    assert_eq!(board.summary(), None);
}
