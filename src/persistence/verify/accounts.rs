//! The accounts, some hundred at a time: their journals, and their rows against
//! them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};

use futures_util::TryStreamExt as _;
use uuid::Uuid;

use super::account_replay::{AccountReplay, KeyFact, Outcome, PrepareFact, TransferFact};
use super::journal::{AccountPages, Chain};
use super::progress::Progress;
use super::report::{Book, Rule};
use super::snapshot::Snapshot;
use crate::domain::account::{Event, PrepareState, stable_hash};
use crate::domain::ids::{OrderId, UserId};
use crate::domain::order::CancelNo;
use crate::persistence::StoreError;
use crate::persistence::stored::reader::{Reader as _, Value};

/// How many accounts are compared with their rows in one go.
const CHUNK_ACCOUNTS: usize = 512;

/// With so many bytes of events in hand, fewer.
const CHUNK_BYTES: usize = 8 << 20;

/// The users of one chunk: from the first to the second, as the parameters of its
/// statements.
type Range = [Value; 2];

/// Audits all accounts. In memory is one chunk of them at a time.
pub(super) async fn audit(
    c: &mut Snapshot,
    book: &mut Book,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    let mut pages = AccountPages::new();
    let mut chunk = Chunk::default();
    let mut bytes = 0;
    let mut from = Uuid::nil();
    while let Some(row) = pages.next(c).await? {
        let is_full = chunk.accounts.len() >= CHUNK_ACCOUNTS || bytes >= CHUNK_BYTES;
        if is_full
            && let Some(last) = chunk.accounts.keys().next_back().copied()
            && last != row.entity
        {
            chunk.compare(c, [from.into(), last.into()], book).await?;
            let next = Uuid::from_u128(last.as_u128().saturating_add(1));
            (chunk, bytes, from) = (Chunk::default(), 0, next);
        }
        bytes += row.bytes();
        let account = chunk.account(row.entity);
        for (seq, at, event) in account.chain.link::<Event>(&row, book) {
            account.replay.apply(seq, at, &event, book);
        }
        progress.tick(1);
    }
    chunk
        .compare(c, [from.into(), Uuid::max().into()], book)
        .await
}

/// One account while it is audited.
struct Facts {
    chain: Chain,
    replay: AccountReplay,
    version: Option<(i64, i64, i64, i64)>,
    balance: Option<i64>,
    moved: i128,
    transfers: usize,
    set_aside: i128,
    prepares: usize,
}

impl Facts {
    fn new(user: UserId) -> Self {
        Self {
            chain: Chain::new(user.into()),
            replay: AccountReplay::new(user),
            version: None,
            balance: None,
            moved: 0,
            transfers: 0,
            set_aside: 0,
            prepares: 0,
        }
    }

    /// Compares with the journal, if that could be read.
    fn expect(&self, book: &mut Book, rule: Rule, holds: bool, finding: impl FnOnce() -> String) {
        if self.chain.is_whole() {
            book.expect(rule, holds, finding);
        }
    }

    /// Compares a row of the ledger with what the journal tells of it, if that
    /// could be read.
    fn expect_told<T: PartialEq + Debug>(
        &self,
        book: &mut Book,
        of: impl Display,
        stored: &T,
        told: Option<&T>,
    ) {
        let is_told = told == Some(stored);
        self.expect(book, Rule::LedgerMatchesJournal, is_told, || {
            format!("{of} has {stored:?}, in the journal {told:?}")
        });
    }
}

#[derive(Default)]
struct Chunk {
    accounts: BTreeMap<Uuid, Facts>,
}

impl Chunk {
    fn account(&mut self, id: Uuid) -> &mut Facts {
        self.accounts
            .entry(id)
            .or_insert_with(|| Facts::new(UserId(id)))
    }

    async fn compare(
        &mut self,
        c: &mut Snapshot,
        range: Range,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        self.versions(c, &range).await?;
        for facts in self.accounts.values_mut() {
            facts.chain.end(facts.version, book);
        }
        self.wallets(c, &range).await?;
        self.transfers(c, &range, book).await?;
        self.prepares(c, &range, book).await?;
        self.credits(c, &range, book).await?;
        self.keys(c, &range, book).await?;
        for (user, facts) in &self.accounts {
            conclude(UserId(*user), facts, book);
        }
        Ok(())
    }

    async fn versions(&mut self, c: &mut Snapshot, range: &Range) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT id, epoch, activation, seq, shard FROM entity \
             WHERE kind = 'account' AND id >= $1 AND id <= $2",
            range,
        );
        while let Some(row) = rows.try_next().await? {
            self.account(row.get(0)?).version =
                Some((row.int(1)?, row.int(2)?, row.int(3)?, row.int(4)?));
        }
        Ok(())
    }

    async fn wallets(&mut self, c: &mut Snapshot, range: &Range) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT user_id, balance FROM wallet WHERE user_id >= $1 AND user_id <= $2",
            range,
        );
        while let Some(row) = rows.try_next().await? {
            self.account(row.get(0)?).balance = Some(row.int(1)?);
        }
        Ok(())
    }

    async fn transfers(
        &mut self,
        c: &mut Snapshot,
        range: &Range,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT user_id, seq, at, debit, credit, amount, cause, cause_id FROM transfer \
             WHERE user_id >= $1 AND user_id <= $2 ORDER BY user_id, seq",
            range,
        );
        while let Some(row) = rows.try_next().await? {
            let user: Uuid = row.get(0)?;
            let transfer = TransferFact {
                seq: row.int(1)?,
                at: row.int(2)?,
                debit: row.get(3)?,
                credit: row.get(4)?,
                amount: row.int(5)?,
                cause: row.get(6)?,
                cause_id: row.get(7)?,
            };
            let facts = self.account(user);
            let wallet = format!("wallet:{user}");
            let amount = i128::from(transfer.amount);
            match (transfer.debit == wallet, transfer.credit == wallet) {
                (false, true) => facts.moved += amount,
                (true, false) => facts.moved -= amount,
                (true, true) | (false, false) => book.found(Rule::BalanceIsTransfers, || {
                    format!(
                        "transfer {} of user {user} doesn't move its wallet",
                        transfer.seq
                    )
                }),
            }
            let expected = facts.replay.transfers.remove(&transfer.seq);
            facts.transfers += 1;
            let of = format_args!("user {user}");
            facts.expect_told(book, of, &transfer, expected.as_ref());
        }
        Ok(())
    }

    async fn prepares(
        &mut self,
        c: &mut Snapshot,
        range: &Range,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT user_id, order_id, timetable_id, amount, state, at FROM prepare \
             WHERE user_id >= $1 AND user_id <= $2",
            range,
        );
        while let Some(row) = rows.try_next().await? {
            let order = OrderId(row.get(1)?);
            let prepare = PrepareFact {
                timetable: row.get(2)?,
                amount: row.int(3)?,
                state: match row.get::<&str>(4)? {
                    "prepared" => PrepareState::Prepared,
                    "posted" => PrepareState::Posted,
                    _ => PrepareState::Void,
                },
                at: row.int(5)?,
            };
            let facts = self.account(row.get(0)?);
            if prepare.state == PrepareState::Prepared {
                facts.set_aside += i128::from(prepare.amount);
            }
            facts.prepares += 1;
            let expected = facts.replay.prepares.remove(&order);
            let of = format_args!("order {order}");
            facts.expect_told(book, of, &prepare, expected.as_ref());
        }
        Ok(())
    }

    async fn credits(
        &mut self,
        c: &mut Snapshot,
        range: &Range,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT user_id, order_id, no, seq, amount, at FROM credit \
             WHERE user_id >= $1 AND user_id <= $2",
            range,
        );
        while let Some(row) = rows.try_next().await? {
            let of = (OrderId(row.get(1)?), CancelNo(row.seats(2)?));
            let fact = (row.int(3)?, row.int(4)?, row.int(5)?);
            let facts = self.account(row.get(0)?);
            let expected = facts.replay.credits.remove(&of);
            let of = format_args!("refund {of:?}");
            facts.expect_told(book, of, &fact, expected.as_ref());
        }
        Ok(())
    }

    /// Keys are forgotten after a while, so that those of the journal need not
    /// be there.
    async fn keys(
        &mut self,
        c: &mut Snapshot,
        range: &Range,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT user_id, key, fingerprint, at, order_id, timetable_id, status, body \
             FROM idempotency WHERE user_id >= $1 AND user_id <= $2",
            range,
        );
        while let Some(row) = rows.try_next().await? {
            let user: Uuid = row.get(0)?;
            let key: String = row.get(1)?;
            let order: Option<Uuid> = row.get(4)?;
            let timetable: Option<Uuid> = row.get(5)?;
            let status = row.int_or_null(6)?.and_then(|s| u16::try_from(s).ok());
            let body: Option<&str> = row.get(7)?;
            let outcome = match (order, timetable, status, body) {
                (Some(order), Some(_), None, None) => Some(Outcome::Order(order)),
                (None, None, Some(status), Some(body)) => Some(Outcome::Answer {
                    status,
                    body: Some(stable_hash(body.as_bytes())),
                }),
                _ => None,
            };
            book.expect(Rule::OneOutcome, outcome.is_some(), || {
                format!("key {key:?} of user {user}: order {order:?}, status {status:?}")
            });
            let Some(outcome) = outcome else { continue };
            let fact = KeyFact {
                fingerprint: row.int(2)?,
                at: row.int(3)?,
                outcome,
            };
            let facts = self.account(user);
            let is_the_same = facts
                .replay
                .keys
                .get(&key)
                .is_some_and(|told| told.allows(&fact));
            facts.expect(book, Rule::KeysMatchJournal, is_the_same, || {
                format!("key {key:?} of user {user} is {fact:?}, the journal says otherwise")
            });
        }
        Ok(())
    }
}

/// All rows of the account were read.
fn conclude(user: UserId, facts: &Facts, book: &mut Book) {
    let Facts {
        balance,
        moved,
        set_aside,
        replay,
        ..
    } = facts;
    let has = balance.map_or("no wallet".to_owned(), |balance| {
        format!("a balance of {balance}")
    });
    if balance.is_some() || facts.transfers > 0 {
        let is_right = i128::from(balance.unwrap_or(0)) == *moved && *moved >= 0;
        book.expect(Rule::BalanceIsTransfers, is_right, || {
            format!("user {user} has {has}, the transfers sum to {moved}")
        });
        let told = replay.balance;
        let is_told = balance.map(i128::from) == Some(told);
        facts.expect(book, Rule::LedgerMatchesJournal, is_told, || {
            format!("user {user} has {has}, by the journal it is {told}")
        });
    }
    if facts.prepares > 0 {
        let balance = i128::from(balance.unwrap_or(0));
        book.expect(Rule::PreparedWithinBalance, *set_aside <= balance, || {
            format!("user {user} has {balance}, and {set_aside} of it set aside")
        });
    }
    let lost: HashMap<&str, usize> = HashMap::from([
        ("transfers", replay.transfers.len()),
        ("prepares", replay.prepares.len()),
        ("refunds", replay.credits.len()),
    ]);
    for (what, count) in lost.into_iter().filter(|(_, count)| *count > 0) {
        facts.expect(book, Rule::LedgerMatchesJournal, false, || {
            format!("user {user} lacks {count} {what} that are in the journal")
        });
    }
}
