//! How entities come back from the store.

use std::collections::HashMap;

use super::Store;
use crate::domain::account::Account;
use crate::domain::ids::{OrderId, Stamp, TimetableId, UserId};
use crate::domain::order::CancelNo;
use crate::domain::time::Timestamp;
use crate::domain::timetable::restore::Stored;
use crate::persistence::StoreError;

/// An entity as stored: its state's rows and their version.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The rows.
    pub state: T,
    /// Their version; the default for an entity that was never written.
    pub stamp: Stamp,
    /// The last number published to each topic.
    pub last_event_seq: u64,
}

impl Store {
    /// A timetable at its version, read in one snapshot.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn load_timetable(&self, id: TimetableId) -> Result<Loaded<Stored>, StoreError> {
        on_backend!(self, load_timetable(id))
    }

    /// Accounts at their versions, read in one snapshot; those that were never
    /// written are empty.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn load_accounts(
        &self,
        users: &[UserId],
        now: Timestamp,
    ) -> Result<HashMap<UserId, Loaded<Account>>, StoreError> {
        on_backend!(self, load_accounts(users, now))
    }

    /// Timetables that have something to do without being asked: live holds,
    /// refunds that are due.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn timetables_to_wake(&self) -> Result<Vec<TimetableId>, StoreError> {
        on_backend!(self, timetables_to_wake())
    }

    /// Accounts whose money is set aside for orders of unknown outcome.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn accounts_in_doubt(&self) -> Result<Vec<UserId>, StoreError> {
        on_backend!(self, accounts_in_doubt())
    }

    /// How many seats of each timetable are sold and blocked, for those that
    /// aren't loaded.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn seat_counts(&self) -> Result<Vec<(TimetableId, u32, u32)>, StoreError> {
        on_backend!(self, seat_counts())
    }

    /// The same of these timetables alone, those without any included.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn seat_counts_of(
        &self,
        timetables: &[TimetableId],
    ) -> Result<Vec<(TimetableId, u32, u32)>, StoreError> {
        on_backend!(self, seat_counts_of(timetables))
    }

    /// Whether the refund of a cancel has come in to the wallet of `user`, as of
    /// all that was committed before the call.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn is_credited(
        &self,
        user: UserId,
        order: OrderId,
        no: CancelNo,
    ) -> Result<bool, StoreError> {
        on_backend!(self, is_credited(user, order, no))
    }

    /// The stored answer under a key.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn stored_answer(
        &self,
        user: UserId,
        key: &str,
    ) -> Result<Option<(u16, String)>, StoreError> {
        on_backend!(self, stored_answer(user, key))
    }

    /// Forgets keys whose answers need not be repeated any more, at most
    /// `limit` of them. Returns how many.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn forget_keys(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        on_backend!(self, forget_keys(before, limit))
    }
}
