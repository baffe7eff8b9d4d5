//! Promises that are broken on purpose, so that the tests of these promises can
//! be seen to fail; and faults that come exactly where a test wants them.
//!
//! Only the feature `sabotage` compiles this. `ONSALE_SABOTAGE` names what is
//! wrong with the process, separated by commas; without it nothing is.
//!
//! | switch | what is wrong |
//! |---|---|
//! | `ack-before-commit` | replies leave before what they promise is written |
//! | `no-limit-check` | nobody's seats are counted against a limit |
//! | `retry-blindly` | rows are written whatever version their entity is at |
//! | `refund-not-due` | a cancel's refund is noted as paid before it is |
//! | `no-credit` | a cancel's refund is noted as paid, and never is |
//! | `claim-not-stored` | claims of coupons are acknowledged and not written |
//! | `no-claim-void` | the coupon of an order that came to nothing stays with it |
//! | `no-coupon-return` | the coupon of a cancelled order is noted as back, and never is |
//! | `no-fence` | Postgres: a batch doesn't look who owns its shards |
//! | `key-share` | Postgres: it looks, with a lock that doesn't hold up a taker |
//! | `select-not-update` | Postgres: it looks which version an entity is at, then changes it |
//! | `forget-block` | a waiting room that comes back gives numbers of its reserved block again |
//! | `reveal-early` | what an answer shows of others' decisions, e.g. a pass, isn't waited for |
//! | `two-commits` | nothing: an order's money and its seats are never one commit |
//! | `untied` | what a sale is tied to is written after it |
//! | `panic-at:N` | each entity panics once its decision N was handed to the lane |
//! | `die-at:POINT:N` | the process kills itself (`kill -9`) when it passes a [`Point`] for the Nth time |

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::ids::Seq;

/// Where the switches are read.
const VARIABLE: &str = "ONSALE_SABOTAGE";

/// One thing that is wrong; the module says what each means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Switch {
    /// `ack-before-commit`
    AckBeforeCommit,
    /// `no-limit-check`
    NoLimitCheck,
    /// `retry-blindly`
    RetryBlindly,
    /// `refund-not-due`
    RefundNotDue,
    /// `no-credit`
    NoCredit,
    /// `claim-not-stored`
    ClaimNotStored,
    /// `no-claim-void`
    NoClaimVoid,
    /// `no-coupon-return`
    NoCouponReturn,
    /// `no-fence`
    NoFence,
    /// `key-share`
    KeyShare,
    /// `select-not-update`
    SelectNotUpdate,
    /// `forget-block`
    ForgetBlock,
    /// `reveal-early`
    RevealEarly,
    /// `two-commits`
    TwoCommits,
    /// `untied`
    Untied,
    /// `panic-at:N`
    PanicAt(Seq),
    /// `die-at:POINT:N`
    DieAt(Point, u64),
}

/// A point on the way of a decision at which the process may die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// `applied`: in memory, and nowhere else.
    Applied,
    /// `submitted`: with the write lanes.
    Submitted,
    /// `flush`: in a batch that is about to be sent to the store.
    Flush,
    /// `written`: its rows are, and their transaction is open.
    Written,
    /// `committed`: it is, and only the store knows.
    Committed,
    /// `checkpointed`: Redis has it, and nobody was told.
    Checkpointed,
    /// `answer`: its reply is about to leave.
    Answer,
    /// `order-opened`: the saga of an order has pinned the hold.
    OrderOpened,
    /// `order-discounted`: the coupon's claim is set aside, if there is one.
    OrderDiscounted,
    /// `order-prepared`: the money is set aside, too.
    OrderPrepared,
    /// `order-true`: the seats are sold, durably, and nobody was told.
    OrderTrue,
    /// `order-claimed`: the claim is used, the money is still set aside.
    OrderClaimed,
    /// `cancel-asked`: the saga of a cancel is about to ask the timetable.
    CancelAsked,
    /// `cancel-true`: the cancel is durable, its refund is not on its way yet.
    CancelTrue,
    /// `cancel-coupon-back`: the coupon is back, the refund is not on its way yet.
    CancelCouponBack,
    /// `cancel-credited`: the refund is in the wallet, and only the wallet knows.
    CancelCredited,
}

static SWITCHES: LazyLock<Vec<Switch>> = LazyLock::new(|| {
    let words = std::env::var(VARIABLE).unwrap_or_default();
    let words = words.split(',').filter(|word| !word.is_empty());
    let read = |word| {
        parse(word).unwrap_or_else(|| {
            // A build that is whole by mistake would look as if it was found out.
            eprintln!("{VARIABLE}: {word:?} is no switch");
            std::process::exit(64)
        })
    };
    words.map(read).collect()
});

fn parse(word: &str) -> Option<Switch> {
    let (name, argument) = word.split_once(':').unwrap_or((word, ""));
    Some(match name {
        "ack-before-commit" => Switch::AckBeforeCommit,
        "no-limit-check" => Switch::NoLimitCheck,
        "retry-blindly" => Switch::RetryBlindly,
        "refund-not-due" => Switch::RefundNotDue,
        "no-credit" => Switch::NoCredit,
        "claim-not-stored" => Switch::ClaimNotStored,
        "no-claim-void" => Switch::NoClaimVoid,
        "no-coupon-return" => Switch::NoCouponReturn,
        "no-fence" => Switch::NoFence,
        "key-share" => Switch::KeyShare,
        "select-not-update" => Switch::SelectNotUpdate,
        "forget-block" => Switch::ForgetBlock,
        "reveal-early" => Switch::RevealEarly,
        "two-commits" => Switch::TwoCommits,
        "untied" => Switch::Untied,
        "panic-at" => Switch::PanicAt(Seq(argument.parse().ok()?)),
        "die-at" => {
            let (point, nth) = argument.split_once(':')?;
            Switch::DieAt(point_of(point)?, nth.parse().ok()?)
        }
        _ => return None,
    })
}

fn point_of(name: &str) -> Option<Point> {
    Some(match name {
        "applied" => Point::Applied,
        "submitted" => Point::Submitted,
        "flush" => Point::Flush,
        "written" => Point::Written,
        "committed" => Point::Committed,
        "checkpointed" => Point::Checkpointed,
        "answer" => Point::Answer,
        "order-opened" => Point::OrderOpened,
        "order-discounted" => Point::OrderDiscounted,
        "order-prepared" => Point::OrderPrepared,
        "order-true" => Point::OrderTrue,
        "order-claimed" => Point::OrderClaimed,
        "cancel-coupon-back" => Point::CancelCouponBack,
        "cancel-asked" => Point::CancelAsked,
        "cancel-true" => Point::CancelTrue,
        "cancel-credited" => Point::CancelCredited,
        _ => return None,
    })
}

/// What the log says at start.
#[must_use]
pub fn warning() -> String {
    format!(
        "this process breaks its promises on purpose: {:?}",
        *SWITCHES
    )
}

/// Whether `switch` is on.
#[must_use]
pub fn is_on(switch: Switch) -> bool {
    SWITCHES.contains(&switch)
}

/// Panics if an entity is to panic after its decision `seq`.
pub fn decided(seq: Seq) {
    assert!(
        !is_on(Switch::PanicAt(seq)),
        "a panic on purpose, after decision {}",
        seq.0
    );
}

/// Ends the process by `kill -9`, if it is to die here and now.
pub fn pass(point: Point) {
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let last = SWITCHES.iter().find_map(|switch| match switch {
        Switch::DieAt(at, nth) if *at == point => Some(*nth),
        _ => None,
    });
    if let Some(last) = last
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == last
    {
        use rustix::process::{Signal, getpid, kill_process};
        let _ = kill_process(getpid(), Signal::KILL);
        // Nobody returns from that.
        std::process::abort();
    }
}
