//! What the state of a sale takes in memory: the bytes that it has asked the
//! allocator for, counted one by one. (How the process grows was measured
//! before: between two runs of one build it differed by a fifth.)
//!
//! `cargo bench --bench memory`

#![allow(clippy::print_stdout, reason = "a bench prints figures")]

mod crowd;
mod scene;

use std::hint::black_box;

use onsale::actors::shell::Shell;
use onsale::domain::account::{self, Account, Claimant, KeyClaim, KeyHash};
use onsale::domain::decision::{Machine as _, step};
use onsale::domain::ids::{OrderId, PaymentId, Seq, TimetableId};
use onsale::domain::money::Money;
use onsale::domain::timetable::{Command, Timetable};
use uuid::Uuid;

use scene::{NOW, PRICE, SEATS, grid, hold, hold_id, plan, scattered, user};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// What a timetable may take.
const TIMETABLE_MAX: f64 = 8.0 * 1024.0 * 1024.0;
/// So many accounts are built, to average over.
const ACCOUNTS: u64 = 1_000;
/// What an active one may take.
const ACCOUNT_MAX: f64 = 1024.0;
/// So many people wait.
const WAITERS: u32 = 1_000_000;
/// What each may take.
const WAITER_MAX: f64 = 120.0;

/// A sold-out timetable, the account of somebody who has bought, a waiting room.
fn main() {
    let _profiler = dhat::Profiler::builder().testing().build();
    println!("memory (bytes asked for)");
    let before = allocated_bytes();
    let (timetable, orders) = sold_out();
    let bytes = allocated_bytes() - before;
    println!(
        "  {SEATS} seats sold in {orders} orders: {:.2} MiB = {:.2} of what it may be",
        bytes / 1024.0 / 1024.0,
        bytes / TIMETABLE_MAX
    );
    let before = allocated_bytes();
    let accounts: Vec<Account> = (0..ACCOUNTS).map(active_account).collect();
    // In production each account has its shell beside it.
    let shell = size_of::<Shell<Account>>() - size_of::<Account>();
    let bytes = (allocated_bytes() - before) / ACCOUNTS as f64 + shell as f64;
    println!(
        "  an account with two orders behind it: {bytes:.0} bytes = {:.2} of what it may be",
        bytes / ACCOUNT_MAX
    );
    let before = allocated_bytes();
    let mut queue = crowd::waiting_room(WAITERS);
    crowd::joined(&mut queue, WAITERS, 1_000);
    // As the actor does for its followers.
    black_box((queue.take_delta(), queue.take_news()));
    let bytes = (allocated_bytes() - before) / f64::from(WAITERS);
    println!(
        "  one of {WAITERS} in a waiting room: {bytes:.0} bytes = {:.2} of what it may be",
        bytes / WAITER_MAX
    );
    black_box((timetable, accounts, queue));
}

/// All seats sold, two to four an order: each buyer holds, opens, and buys.
fn sold_out() -> (Timetable, u32) {
    let mut timetable = Timetable::new(plan(grid(50, 50, 20)));
    let (mut seq, mut first, mut orders) = (Seq::default(), 0, 0);
    while first < SEATS {
        let count = (2 + orders % 3).min(SEATS - first);
        let number = u64::from(orders);
        let (order, payment) = (
            OrderId(scattered(number, 5)),
            PaymentId(scattered(number, 6)),
        );
        let open = Command::OpenOrder {
            order,
            payment,
            hold: hold_id(number),
            user: user(number),
            method: onsale::domain::order::Method::Wallet,
        };
        for command in [
            hold(number, first, count),
            open,
            Command::Sell {
                order,
                coupon: None,
            },
        ] {
            let outcome = step(&mut timetable, &mut seq, NOW, command).outcome;
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        timetable.settle(seq);
        black_box(timetable.take_changes().count());
        first += count;
        orders += 1;
    }
    assert_eq!(timetable.counts().sold, SEATS);
    (timetable, orders)
}

/// Charged once, then two orders paid.
fn active_account(number: u64) -> Account {
    let (mut account, mut seq) = (Account::default(), Seq::default());
    let key = |part: u64| {
        let key = format!("load-{number}-{part}-{:032x}", part + 1);
        Some(KeyClaim {
            hash: KeyHash::of(&key),
            key,
            fingerprint: part,
            by: Claimant(part),
        })
    };
    let mut run = |command| {
        let outcome = step(&mut account, &mut seq, NOW, command).outcome;
        assert!(outcome.is_ok(), "{outcome:?}");
    };
    run(account::Command::Charge {
        id: Uuid::from_u128(7),
        amount: Money(1_000_000),
        key: key(0),
    });
    for part in 1..=2 {
        let order = OrderId(scattered(number * 2 + part, 8));
        run(account::Command::Prepare {
            order,
            timetable: TimetableId(Uuid::from_u128(1)),
            amount: PRICE,
            key: key(part),
        });
        run(account::Command::Post { order });
    }
    account.settle(seq);
    account
}

/// How many bytes are allocated now.
fn allocated_bytes() -> f64 {
    dhat::HeapStats::get().curr_bytes as f64
}
