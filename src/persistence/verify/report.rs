//! What an audit looks for, and what it found.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::domain::invariant::Invariant;

/// How many findings of one check are told in words; all are counted.
pub const FINDINGS_SHOWN_MAX: usize = 20;

/// What an audit found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Every check, whether it found something or not.
    pub checks: Vec<Check>,
    /// What is on its way: not findings.
    pub pending: Vec<Pending>,
}

/// One condition of an invariant.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The invariant, e.g. `I1`.
    pub invariant: &'static str,
    /// The condition, as a sentence.
    pub what: &'static str,
    /// How many rows or events it was held against.
    pub checked: u64,
    /// How many of them break it.
    pub found: u64,
    /// The first [`FINDINGS_SHOWN_MAX`] of those.
    pub findings: Vec<String>,
}

/// Work that a live server is doing, or that the next start takes up again.
#[derive(Clone, Debug, Serialize)]
pub struct Pending {
    /// What waits.
    pub what: &'static str,
    /// How many of them.
    pub count: u64,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.found() == 0
    }

    /// How many findings there are.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.checks.iter().map(|check| check.found).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<4} {:>10} {:>8}  condition",
            "", "checked", "findings"
        )?;
        for check in &self.checks {
            let Check {
                invariant,
                what,
                checked,
                found,
                ..
            } = check;
            writeln!(f, "{invariant:<4} {checked:>10} {found:>8}  {what}")?;
            for finding in &check.findings {
                writeln!(f, "     - {finding}")?;
            }
            let more = *found - check.findings.len() as u64;
            if more > 0 {
                writeln!(f, "     - and {more} more")?;
            }
        }
        writeln!(
            f,
            "\npending (no findings: a live server, or the next start, goes on)"
        )?;
        for Pending { what, count } in &self.pending {
            writeln!(f, "     {count:>10}           {what}")?;
        }
        match self.found() {
            0 => writeln!(f, "\nclean"),
            found => writeln!(f, "\n{found} findings"),
        }
    }
}

macro_rules! rules {
    ($($name:ident = $invariant:ident, $what:literal;)*) => {
        /// The conditions that are checked.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Rule { $($name),* }

        impl Rule {
            const ALL: &[Self] = &[$(Self::$name),*];

            fn invariant(self) -> Invariant {
                match self { $(Self::$name => Invariant::$invariant),* }
            }

            fn what(self) -> &'static str {
                match self { $(Self::$name => $what),* }
            }
        }
    };
}

rules! {
    SoldSeatHasOrder = I1, "a sold seat is of one confirmed order that names it at that price";
    OrderSeatIsSold = I1, "a seat of a confirmed order is sold to it, and to it alone";
    JournalSellsOnce = I1, "the journal sells no seat twice";
    TicketHasSeat = I1, "a ticket is of a seat that is sold to its order, or else void";
    SeatsAreDistinct = I2, "held, sold and blocked seats are distinct and within the capacity";
    JournalSeatsAreDistinct = I2, "in the journal only free seats are held or blocked";
    BlocksMatchJournal = I2, "the blocked seats are those that the journal leaves";
    SaleFollowsHold = I3, "a sale follows a live hold of its buyer on those very seats";
    HoldsMatchJournal = I3, "the holds are those that the journal leaves";
    OrdersMatchJournal = I3, "the orders are those that the journal confirmed";
    HoldsLast = I4, "no hold ends by time before its deadline, or gives its seat to another";
    ClaimsWithinStock = I5, "a coupon has the claims that it counts, within its stock and its window";
    OneClaimAUser = I6, "a user claims a coupon once";
    CouponsMatchJournal = I6, "a coupon, its claims and their uses are those that the journal leaves";
    ClaimFollowsOrder = I7, "a claim is used by the confirmed order that it discounts, and back with its last seat";
    ClaimIsUsedOnce = I7, "a claim is used by its owner, in one order at a time";
    OrderArithmetic = I7, "an order costs its seats, less its discount";
    BalanceIsTransfers = I7, "a balance is what came in less what went out, and not negative";
    PreparedWithinBalance = I7, "what is set aside is within the balance";
    LedgerMatchesJournal = I7, "balance, transfers and what is set aside are those of the journal";
    OrderIsPaid = I7, "a confirmed wallet order has its money, once, spent or set aside";
    CancelFollowsSale = I7, "a cancel gives sold seats back, once, and what was paid for them";
    CancelsMatchJournal = I7, "the cancels are those that the journal tells";
    RefundHasCancel = I7, "a refund is of a cancel of its amount, and comes in once";
    TransferHasOrder = I7, "a payment is of a confirmed order of its amount";
    PrepareHasFate = I7, "money is spent for orders that were confirmed only, and returned for others only";
    NumbersAreReserved = I8, "a number of a queue is given once, from those reserved, in turn";
    OnePlaceAUser = I8, "a user has one place in a queue at a time";
    AdmittedInOrder = I8, "nobody enters before one who waits with a lower number";
    CapIsKept = I8, "no more are inside a queue than the policy of the admission allows";
    WindowIsKept = I8, "no more enter a queue within a window than the policy allows";
    DrawFollowsSeed = I8, "a draw numbers its entrants by its seed";
    QueuesMatchJournal = I8, "a queue and its places are those that the journal leaves";
    GrantsMatchJournal = I8, "the window goes on from the last entry that the journal tells";
    JournalIsWhole = I9, "the journal of an entity is readable and without gaps";
    VersionMatchesJournal = I9, "an entity is at the version where its journal ends";
    EpochsNeverGoBack = I9, "epochs and activations never go back, nor beyond those of the shard";
    OutboxIsWhole = I9, "events are numbered from 1 without gaps";
    OrderIsPublished = I9, "a confirmed order, and a cancel, has one event, which tells it truly";
    PublishedHasTickets = I9, "an order whose event was published has all its tickets";
    OneOutcome = I10, "an idempotency key has either an order or an answer";
    KeysMatchJournal = I10, "an idempotency key has the outcome that the journal gave it, for good";
}

/// What is on its way, counted while the audit goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// Confirmed orders whose money is set aside.
    pub(super) unposted: u64,
    /// Money set aside for orders that aren't confirmed.
    pub(super) undecided: u64,
    /// Events that the bus doesn't have.
    pub(super) unpublished: u64,
    /// Who is next in a queue, but has no pass yet.
    pub(super) admitted: u64,
    /// Orders whose event was not yet published and that lack tickets.
    pub(super) unticketed: u64,
    /// Cancels whose refund is not known to have come in.
    pub(super) unrefunded: u64,
}

/// Collects the findings.
#[derive(Debug)]
pub(super) struct Book {
    checks: Vec<Check>,
    pub(super) waiting: Waiting,
}

impl Book {
    pub(super) fn new() -> Self {
        let check = |rule: &Rule| Check {
            invariant: rule.invariant().id(),
            what: rule.what(),
            checked: 0,
            found: 0,
            findings: Vec::new(),
        };
        Self {
            checks: Rule::ALL.iter().map(check).collect(),
            waiting: Waiting::default(),
        }
    }

    /// `count` more things were held against `rule`.
    pub(super) fn checked(&mut self, rule: Rule, count: u64) {
        if let Some(check) = self.checks.get_mut(rule as usize) {
            check.checked += count;
        }
    }

    /// One of them breaks it.
    pub(super) fn found(&mut self, rule: Rule, finding: impl FnOnce() -> String) {
        let Some(check) = self.checks.get_mut(rule as usize) else {
            return;
        };
        check.found += 1;
        if check.findings.len() < FINDINGS_SHOWN_MAX {
            check.findings.push(with_uuids(&finding()));
        }
    }

    /// Holds one thing against `rule`.
    pub(super) fn expect(&mut self, rule: Rule, holds: bool, finding: impl FnOnce() -> String) {
        self.checked(rule, 1);
        if !holds {
            self.found(rule, finding);
        }
    }

    pub(super) fn close(self) -> Report {
        let Waiting {
            unposted,
            undecided,
            unpublished,
            admitted,
            unticketed,
            unrefunded,
        } = self.waiting;
        let pending = [
            (
                "confirmed orders whose money is set aside, not yet spent",
                unposted,
            ),
            (
                "orders whose money is set aside and that are not decided",
                undecided,
            ),
            ("events not yet published", unpublished),
            ("orders whose tickets are not yet issued", unticketed),
            (
                "people who are next in a queue and have no pass yet",
                admitted,
            ),
            ("refunds of cancels on their way", unrefunded),
        ];
        Report {
            checks: self.checks,
            pending: pending.map(|(what, count)| Pending { what, count }).into(),
        }
    }
}

/// Ids that SQL wrote as bare hexadecimal, as they are known elsewhere.
fn with_uuids(text: &str) -> String {
    let word = |word: &str| {
        let end = word.trim_end_matches([',', ':']);
        match (end.len() == 32).then(|| Uuid::try_parse(end)) {
            Some(Ok(id)) => format!("{id}{}", word.strip_prefix(end).unwrap_or_default()),
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
