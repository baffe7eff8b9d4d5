//! The audit of a store by the named invariants
//! ([`crate::domain::invariant::Invariant`]).
//!
//! It reads everything in one transaction, and so in one snapshot, whatever is
//! written meanwhile. It never writes: the connection is opened for reading
//! only (on Postgres, the transaction). After a crash that is still enough for SQLite to recover the WAL,
//! because recovery builds only the index of it, in the `-shm` file beside the
//! store; the database and the WAL stay as they are. Therefore the folder must
//! be writable (or both files must be there); a store on a read-only medium has
//! to be copied first, with its `-wal` file. While the audit runs, a live server
//! goes on, but its WAL can't be reset and grows.
//!
//! * [`report`]: the conditions, and what was found.
//! * `journal`: whether the journal is whole.
//! * `timetables`, with `replay` and `capacity`: seats, holds and orders.
//! * `accounts`, with `account_replay`: wallets and idempotency keys.
//! * `queues`, with `queue_replay`: waiting rooms.
//! * `coupons`: coupons, their claims and how they were used.
//! * `snapshot`: what all of them read from, SQLite or Postgres.
//! * `tables`: what tables must satisfy together.
//!
//! Where the journal of an entity has a hole, only that is reported, and its
//! rows are not compared with it: nobody knows the state behind the hole.
//! Memory is bounded by the largest entity, not by the store; SQLite sorts the
//! joins of whole tables, and keeps what doesn't fit its cache in a temporary
//! file.

mod account_replay;
mod accounts;
mod capacity;
mod coupons;
mod journal;
mod progress;
mod queue_replay;
mod queues;
mod replay;
pub mod report;
mod snapshot;
mod tables;
mod timetables;

use std::io::Write as _;

pub use report::{Check, FINDINGS_SHOWN_MAX, Pending, Report};
pub use snapshot::Snapshot;

use self::progress::Progress;
use self::report::Book;
use super::StoreError;
use crate::config::{self, Config};

/// The exit of an audit that found nothing.
const CLEAN: i32 = 0;
/// That of one with findings.
const FINDINGS: i32 = 1;
/// That of one that could not run.
const COULD_NOT_RUN: i32 = 2;

/// Audits the store of `config`, prints the report on stdout and returns the
/// exit status: 0 clean, 1 findings, 2 it could not run (one line on stderr
/// says why).
pub async fn run(config: &Config) -> i32 {
    let report = match report_on(&config.store).await {
        Ok(report) => report,
        Err(error) => {
            let error = error.to_string();
            let line: Vec<&str> = error.split_whitespace().collect();
            let url = config.store.shown();
            // Nobody is left to tell if stderr is closed.
            let _ = writeln!(
                std::io::stderr(),
                "onsale: can't audit {url}: {}",
                line.join(" ")
            );
            return COULD_NOT_RUN;
        }
    };
    let mut out = std::io::stdout().lock();
    // The exit status is the answer, even where nobody reads the report.
    let _ = write!(out, "{report}").and_then(|()| out.flush());
    if report.is_clean() { CLEAN } else { FINDINGS }
}

async fn report_on(settings: &config::Store) -> Result<Report, StoreError> {
    let mut snapshot = Snapshot::open(settings).await?;
    let rows = snapshot.count("SELECT count(*) FROM journal").await?;
    let mut progress = Progress::on_terminal(rows);
    let report = audit_shown(&mut snapshot, &mut progress).await;
    progress.end();
    snapshot.close().await;
    report
}

/// Audits a store in one snapshot. Writes nothing.
///
/// # Errors
/// If it can't be read.
pub async fn audit(snapshot: &mut Snapshot) -> Result<Report, StoreError> {
    audit_shown(snapshot, &mut Progress::hidden()).await
}

async fn audit_shown(
    snapshot: &mut Snapshot,
    progress: &mut Progress,
) -> Result<Report, StoreError> {
    let mut book = Book::new();
    snapshot.begin().await?;
    let read = read_all(snapshot, &mut book, progress).await;
    snapshot.end().await;
    read.map(|()| book.close())
}

async fn read_all(
    snapshot: &mut Snapshot,
    book: &mut Book,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    timetables::audit(snapshot, book, progress).await?;
    accounts::audit(snapshot, book, progress).await?;
    queues::audit(snapshot, book, progress).await?;
    coupons::audit(snapshot, book, progress).await?;
    tables::audit(snapshot, book).await
}
