mod refunds;

use proptest::prelude::*;

use super::*;
use crate::domain::decision::step;

fn claim(n: u64) -> KeyClaim {
    KeyClaim {
        key: format!("key-{n}"),
        hash: KeyHash(n),
        fingerprint: n * 7,
        by: Claimant(n),
    }
}

/// The same request, sent again.
fn repeated(n: u64) -> KeyClaim {
    KeyClaim {
        by: Claimant(n + 1_000),
        ..claim(n)
    }
}

fn free(key: KeyClaim) -> Command {
    Command::FreeKey { key, order: None }
}

/// A charge of 10 under a key.
fn charge_under(account: &mut Account, key: KeyClaim) -> Result<Reply, Refusal> {
    let command = Command::Charge {
        id: Uuid::nil(),
        amount: Money(10),
        key: Some(key),
    };
    run(account, command)
}

fn prepare_under(account: &mut Account, n: u8, key: KeyClaim) -> Result<Reply, Refusal> {
    let command = Command::Prepare {
        order: order(n),
        timetable: SHOW,
        amount: Money(10),
        key: Some(key),
    };
    run(account, command)
}

fn order(n: u8) -> OrderId {
    OrderId(Uuid::from_u128(u128::from(n)))
}

const SHOW: TimetableId = TimetableId(Uuid::from_u128(9));
const NOW: Timestamp = Timestamp(1_000_000);

fn run(account: &mut Account, command: Command) -> Result<Reply, Refusal> {
    let mut seq = Seq(0);
    step(account, &mut seq, NOW, command).outcome
}

fn charge(account: &mut Account, amount: i64) {
    run(
        account,
        Command::Charge {
            id: Uuid::nil(),
            amount: Money(amount),
            key: None,
        },
    )
    .unwrap();
}

fn prepare(account: &mut Account, n: u8, amount: i64) -> Result<Reply, Refusal> {
    let command = Command::Prepare {
        order: order(n),
        timetable: SHOW,
        amount: Money(amount),
        key: None,
    };
    run(account, command)
}

#[test]
fn money_set_aside_can_not_be_spent_twice() {
    let mut account = Account::default();
    charge(&mut account, 100);
    assert_eq!(prepare(&mut account, 1, 60), Ok(Reply::Done));
    assert_eq!(
        prepare(&mut account, 2, 60),
        Err(Refusal::InsufficientBalance { balance: Money(40) })
    );
    run(
        &mut account,
        Command::Void {
            order: order(1),
            timetable: SHOW,
        },
    )
    .unwrap();
    assert_eq!(prepare(&mut account, 2, 60), Ok(Reply::Done));
}

#[test]
fn prepare_post_and_void_are_idempotent_by_order() {
    let mut account = Account::default();
    charge(&mut account, 100);
    for _ in 0..3 {
        assert_eq!(prepare(&mut account, 1, 60), Ok(Reply::Done));
    }
    for _ in 0..3 {
        run(&mut account, Command::Post { order: order(1) }).unwrap();
        run(
            &mut account,
            Command::Void {
                order: order(1),
                timetable: SHOW,
            },
        )
        .unwrap();
        assert_eq!(prepare(&mut account, 1, 60), Ok(Reply::Done));
    }
    assert_eq!(account.spendable(), Money(40));
    assert_eq!(account.balance(), Money(40));
}

#[test]
fn a_void_that_comes_before_its_prepare_refuses_it() {
    let mut account = Account::default();
    charge(&mut account, 100);
    run(
        &mut account,
        Command::Void {
            order: order(1),
            timetable: SHOW,
        },
    )
    .unwrap();
    assert_eq!(prepare(&mut account, 1, 60), Err(Refusal::OrderIsVoid));
    assert_eq!(account.spendable(), Money(100));
}

#[test]
fn one_request_at_a_time_runs_under_a_key_and_only_that_request() {
    let mut account = Account::default();
    let reserve = |account: &mut Account, key| run(account, Command::Reserve(key));
    assert_eq!(reserve(&mut account, claim(1)), Ok(Reply::KeyIsNew));
    assert_eq!(
        reserve(&mut account, claim(1)),
        Ok(Reply::KeyIsRunning(None))
    );
    let other = KeyClaim {
        fingerprint: 0,
        ..claim(1)
    };
    assert_eq!(reserve(&mut account, other), Err(Refusal::KeyReused));
    run(&mut account, free(claim(1))).unwrap();
    assert_eq!(reserve(&mut account, claim(1)), Ok(Reply::KeyIsNew));
    run(
        &mut account,
        Command::Answer {
            key: claim(1),
            status: 402,
            body: String::new(),
        },
    )
    .unwrap();
    assert_eq!(reserve(&mut account, claim(1)), Ok(Reply::KeyIsAnswered));
    run(&mut account, free(claim(1))).unwrap();
    assert_eq!(reserve(&mut account, claim(1)), Ok(Reply::KeyIsAnswered));
}

#[test]
fn a_late_free_leaves_the_reservation_of_another_request() {
    let mut account = Account::default();
    let reserve = |account: &mut Account, key| run(account, Command::Reserve(key));
    reserve(&mut account, claim(1)).unwrap();
    run(&mut account, free(claim(1))).unwrap();
    // A repetition has it now; the first request frees it a second time.
    assert_eq!(reserve(&mut account, repeated(1)), Ok(Reply::KeyIsNew));
    run(&mut account, free(claim(1))).unwrap();
    let third = KeyClaim {
        by: Claimant(3),
        ..claim(1)
    };
    assert_eq!(
        reserve(&mut account, third.clone()),
        Ok(Reply::KeyIsRunning(None))
    );
    // An order's key is free only once that order came to nothing.
    charge(&mut account, 100);
    prepare_under(&mut account, 1, repeated(1)).unwrap();
    let free_of = |n| Command::FreeKey {
        key: claim(1),
        order: Some(order(n)),
    };
    run(&mut account, free(repeated(1))).unwrap();
    run(&mut account, free_of(2)).unwrap();
    assert_eq!(
        reserve(&mut account, third.clone()),
        Ok(Reply::KeyIsRunning(Some((order(1), SHOW))))
    );
    run(&mut account, free_of(1)).unwrap();
    assert_eq!(reserve(&mut account, third), Ok(Reply::KeyIsNew));
}

#[test]
fn money_moves_once_under_a_key_even_if_its_reservation_was_forgotten() {
    let mut account = Account::default();
    run(&mut account, Command::Reserve(claim(1))).unwrap();
    // The account is read again: reservations are not in the store.
    account.keys = Keys::default();
    run(&mut account, Command::Reserve(repeated(1))).unwrap();
    // The first request is late: the other one runs.
    assert_eq!(
        charge_under(&mut account, claim(1)),
        Ok(Reply::KeyIsRunning(None))
    );
    assert!(matches!(
        charge_under(&mut account, repeated(1)),
        Ok(Reply::Charged(_))
    ));
    for late in [claim(1), repeated(1)] {
        assert_eq!(charge_under(&mut account, late), Ok(Reply::KeyIsAnswered));
    }
    assert_eq!(
        prepare_under(&mut account, 1, claim(1)),
        Ok(Reply::KeyIsAnswered)
    );
    assert_eq!(account.spendable(), Money(10));
    // With nobody ahead of it, a request whose reservation is gone goes on.
    assert_eq!(prepare_under(&mut account, 2, claim(2)), Ok(Reply::Done));
    assert_eq!(
        prepare_under(&mut account, 3, repeated(2)),
        Ok(Reply::KeyIsRunning(Some((order(2), SHOW))))
    );
    // A repetition of the same step is no other request.
    assert_eq!(prepare_under(&mut account, 2, claim(2)), Ok(Reply::Done));
}

#[test]
fn the_first_final_answer_under_a_key_stays() {
    let mut account = Account::default();
    let answer = |account: &mut Account, key, status| {
        let body = String::new();
        run(account, Command::Answer { key, status, body })
    };
    run(&mut account, Command::Reserve(claim(1))).unwrap();
    account.keys = Keys::default();
    run(&mut account, Command::Reserve(repeated(1))).unwrap();
    assert_eq!(answer(&mut account, claim(1), 201), Ok(Reply::Done));
    assert_eq!(
        answer(&mut account, repeated(1), 409),
        Ok(Reply::KeyIsAnswered)
    );
    charge(&mut account, 10);
    prepare_under(&mut account, 1, claim(2)).unwrap();
    assert_eq!(
        answer(&mut account, repeated(2), 409),
        Ok(Reply::KeyIsRunning(Some((order(1), SHOW))))
    );
}

#[test]
fn a_key_is_free_again_after_a_day_and_keys_are_bounded() {
    let mut account = Account::default();
    let mut seq = Seq(0);
    for n in 0..KEYS_MAX as u64 {
        step(&mut account, &mut seq, NOW, Command::Reserve(claim(n)))
            .outcome
            .unwrap();
    }
    let more = claim(KEYS_MAX as u64);
    let refused = step(&mut account, &mut seq, NOW, Command::Reserve(more.clone())).outcome;
    assert_eq!(refused, Err(Refusal::TooManyKeys));
    let tomorrow = NOW.plus(KEY_LIFE);
    let taken = step(&mut account, &mut seq, tomorrow, Command::Reserve(more)).outcome;
    assert_eq!(taken, Ok(Reply::KeyIsNew));
    let again = step(&mut account, &mut seq, tomorrow, Command::Reserve(claim(0))).outcome;
    assert_eq!(again, Ok(Reply::KeyIsNew));
}

proptest! {
    /// I7: whatever is asked in whatever order, what can be spent is what came
    /// in, less what was spent, less what is set aside, and never negative.
    #[test]
    fn a_wallet_balances(commands in prop::collection::vec((0u8..5, 0u8..6, 1i64..200), 0..200)) {
        let mut account = Account::default();
        let mut charged = 0;
        let mut open = std::collections::HashMap::new();
        let mut closed = std::collections::HashSet::new();
        let mut spent = 0;
        for (what, n, amount) in commands {
            match what {
                0 => { charge(&mut account, amount); charged += amount; }
                1 | 2 => {
                    let fresh = !open.contains_key(&n) && !closed.contains(&n);
                    if prepare(&mut account, n, amount).is_ok() && fresh { open.insert(n, amount); }
                }
                3 => {
                    run(&mut account, Command::Post { order: order(n) }).unwrap();
                    if let Some(amount) = open.remove(&n) { spent += amount; closed.insert(n); }
                }
                _ => {
                    run(&mut account, Command::Void { order: order(n), timetable: SHOW }).unwrap();
                    open.remove(&n);
                    closed.insert(n);
                }
            }
            let set_aside: i64 = open.values().sum();
            prop_assert_eq!(account.spendable(), Money(charged - spent - set_aside));
            prop_assert_eq!(account.balance(), Money(charged - spent));
            prop_assert!(account.spendable() >= Money::ZERO);
        }
    }
}
