//! Reading the journal in order, and whether it is whole.

use std::collections::VecDeque;

use futures_util::TryStreamExt as _;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::progress::Progress;
use super::report::{Book, Rule};
use super::snapshot::{self, Snapshot};
use crate::domain::ids::{EntityId, Seq};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::stored::reader::{Reader as _, Value};

/// How many rows of the journal are read in one go.
const PAGE_ROWS: usize = 512;

/// A row of the journal.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) entity: Uuid,
    first_seq: i64,
    last_seq: i64,
    version: Version,
    events: Vec<u8>,
}

/// Epoch and activation; they are compared in that order.
pub(super) type Version = (i64, i64);

/// The columns of [`Row`], in its order.
macro_rules! columns {
    () => {
        "entity, first_seq, last_seq, epoch, activation, events"
    };
}

/// The journal of one entity.
const OF_ENTITY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM journal WHERE entity = $1 AND kind = $2 ORDER BY first_seq"
);

/// Not `kind = 'account'`: as a constant, it would keep SQLite from seeing that
/// the primary key is in this order already, and each page would sort all that
/// an account has.
const OF_ACCOUNTS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM journal WHERE kind || '' = 'account' \
       AND (entity, kind, first_seq) > ($1, 'account', $2) \
     ORDER BY entity, kind, first_seq LIMIT $3"
);

/// Reads the journal of `entity` and has each of its events told, by which life
/// of the entity and when. Whether it is whole: what was told is worth comparing
/// only then.
pub(super) async fn read<E: DeserializeOwned>(
    c: &mut Snapshot,
    entity: EntityId,
    book: &mut Book,
    progress: &mut Progress,
    mut tell: impl FnMut(Version, Timestamp, E, &mut Book),
) -> Result<bool, StoreError> {
    let mut chain = Chain::new(entity);
    {
        let kind = Value::Text(entity.kind.as_str());
        let mut rows = c.rows(OF_ENTITY, &[entity.id.into(), kind]);
        while let Some(row) = rows.try_next().await? {
            let row = Row::read(&row)?;
            for (_, at, event) in chain.link(&row, book) {
                tell(row.version, at, event, book);
            }
            progress.tick(1);
        }
    }
    chain.end_at_row(c, book).await?;
    Ok(chain.is_whole())
}

impl Row {
    fn read(row: &snapshot::Row) -> Result<Self, StoreError> {
        Ok(Self {
            entity: row.get(0)?,
            first_seq: row.int(1)?,
            last_seq: row.int(2)?,
            version: (row.int(3)?, row.int(4)?),
            events: row.get(5)?,
        })
    }

    /// How many bytes of events it has.
    pub(super) fn bytes(&self) -> usize {
        self.events.len()
    }
}

/// The journal of all accounts, entity by entity, page by page: between two
/// rows the connection is free for other reads of the same snapshot.
#[derive(Debug)]
pub(super) struct AccountPages {
    after: (Uuid, i64),
    page: VecDeque<Row>,
    is_last: bool,
}

impl AccountPages {
    pub(super) fn new() -> Self {
        Self {
            after: (Uuid::nil(), i64::MIN),
            page: VecDeque::new(),
            is_last: false,
        }
    }

    pub(super) async fn next(
        &mut self,
        connection: &mut Snapshot,
    ) -> Result<Option<Row>, StoreError> {
        if self.page.is_empty() && !self.is_last {
            let rows = connection
                .all(
                    OF_ACCOUNTS,
                    &[
                        self.after.0.into(),
                        self.after.1.into(),
                        (PAGE_ROWS as i64).into(),
                    ],
                )
                .await?;
            self.is_last = rows.len() < PAGE_ROWS;
            self.page = rows.iter().map(Row::read).collect::<Result<_, _>>()?;
            if let Some(last) = self.page.back() {
                self.after = (last.entity, last.first_seq);
            }
        }
        Ok(self.page.pop_front())
    }
}

/// The journal of one entity, as far as it was read.
#[derive(Debug)]
pub(super) struct Chain {
    entity: EntityId,
    last_seq: i64,
    version: Version,
    is_whole: bool,
}

impl Chain {
    pub(super) fn new(entity: EntityId) -> Self {
        Self {
            entity,
            last_seq: 0,
            version: (0, 0),
            is_whole: true,
        }
    }

    /// Whether all was readable so far: only then is the state that it leads to
    /// worth comparing.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The events of the next row. None after a hole: nobody knows the state
    /// that they happened to.
    pub(super) fn link<E: DeserializeOwned>(
        &mut self,
        row: &Row,
        book: &mut Book,
    ) -> Vec<(Seq, Timestamp, E)> {
        let Row {
            first_seq,
            last_seq,
            ..
        } = *row;
        book.expect(Rule::EpochsNeverGoBack, row.version >= self.version, || {
            format!(
                "{} was written by epoch and activation {:?} after {:?}",
                self.at(first_seq, last_seq),
                row.version,
                self.version
            )
        });
        self.version = self.version.max(row.version);
        let follows = first_seq == self.last_seq.saturating_add(1) && last_seq >= first_seq;
        book.expect(Rule::JournalIsWhole, follows, || {
            format!(
                "{} comes after seq {}",
                self.at(first_seq, last_seq),
                self.last_seq
            )
        });
        self.last_seq = last_seq;
        let events = decode(row);
        if let Err(problem) = &events {
            book.found(Rule::JournalIsWhole, || {
                format!("{} {problem}", self.at(first_seq, last_seq))
            });
        }
        self.is_whole &= follows && events.is_ok();
        events.ok().filter(|_| self.is_whole).unwrap_or_default()
    }

    /// [`Chain::end`] at what the entity's row says.
    async fn end_at_row(&mut self, c: &mut Snapshot, book: &mut Book) -> Result<(), StoreError> {
        let row = c
            .one(
                "SELECT epoch, activation, seq, shard FROM entity WHERE id = $1 AND kind = $2",
                &[
                    self.entity.id.into(),
                    Value::Text(self.entity.kind.as_str()),
                ],
            )
            .await?;
        let stored = match row {
            Some(row) => Some((row.int(0)?, row.int(1)?, row.int(2)?, row.int(3)?)),
            None => None,
        };
        self.end(stored, book);
        Ok(())
    }

    /// Nothing more is in the journal; the entity's row says `stored`: epoch,
    /// activation, seq and shard. If the journal ends elsewhere, its end is
    /// lost, or that of the rows: they aren't worth comparing either.
    pub(super) fn end(&mut self, stored: Option<(i64, i64, i64, i64)>, book: &mut Book) {
        if stored.is_none() && self.last_seq == 0 {
            return;
        }
        self.is_whole &= stored.is_some_and(|(_, _, seq, _)| seq == self.last_seq);
        let (epoch, activation) = self.version;
        let shard = i64::from(self.entity.shard().0);
        let journal = (epoch, activation, self.last_seq, shard);
        book.expect(Rule::VersionMatchesJournal, stored == Some(journal), || {
            format!(
                "{} {} has epoch, activation, seq and shard {stored:?}, its journal {journal:?}",
                self.entity.kind.as_str(),
                self.entity.id
            )
        });
    }

    fn at(&self, first: i64, last: i64) -> String {
        let EntityId { kind, id } = self.entity;
        format!(
            "the journal of {} {id} from seq {first} to {last}",
            kind.as_str()
        )
    }
}

/// All events of a row. Each decision has at least one, so that their numbers
/// have no hole.
fn decode<E: DeserializeOwned>(row: &Row) -> Result<Vec<(Seq, Timestamp, E)>, String> {
    let mut events: Vec<(Seq, Timestamp, E)> = Vec::new();
    let mut rest = row.events.as_slice();
    while !rest.is_empty() {
        let (event, after) = postcard::take_from_bytes::<(Seq, Timestamp, E)>(rest)
            .map_err(|error| format!("is unreadable: {error}"))?;
        rest = after;
        let last = events
            .last()
            .map_or(row.first_seq.wrapping_sub(1), |(seq, ..)| {
                seq.0.cast_signed()
            });
        let seq = event.0.0.cast_signed();
        let first_is_right = !events.is_empty() || seq == row.first_seq;
        if !first_is_right || (seq != last && seq != last.wrapping_add(1)) {
            return Err(format!("has seq {seq} after {last}"));
        }
        events.push(event);
    }
    match events.last() {
        Some((seq, ..)) if seq.0.cast_signed() == row.last_seq => Ok(events),
        Some((seq, ..)) => Err(format!("ends at seq {}", seq.0)),
        None => Err("is empty".to_owned()),
    }
}
