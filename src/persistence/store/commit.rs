//! The group commit.

use std::sync::Arc;

use super::Store;
use crate::persistence::StoreError;
use crate::persistence::batch::Contribution;

/// What became of a contribution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is on disk, by this commit or by an earlier one whose answer was
    /// lost.
    Written,
    /// Somebody else owns the entity: its shard's epoch is another, or its
    /// rows are at a version that the contribution doesn't follow. Nothing of
    /// it was written.
    Fenced,
}

impl Store {
    /// Writes all `contributions` in one transaction. When this returns `Ok`,
    /// each is on disk or fenced, in the order given.
    ///
    /// # Errors
    /// Then nothing was written, or (only if [`StoreError::is_transient`]) the
    /// outcome is unknown; the same call is safe to repeat, because an entity's
    /// rows are written only if its version is the expected one.
    pub async fn commit(
        &self,
        contributions: Arc<Vec<Contribution>>,
    ) -> Result<Vec<Verdict>, StoreError> {
        on_backend!(self, commit(contributions))
    }

    /// Writes all `contributions` in one transaction, or none of them: where one is
    /// fenced, none is.
    ///
    /// # Errors
    /// Then nothing was written, or (of whatever kind the error is) the outcome is
    /// unknown: [`Store::commit`] finds that out, and may write them one by one.
    pub async fn commit_together(
        &self,
        contributions: Arc<Vec<Contribution>>,
    ) -> Result<(), StoreError> {
        on_backend!(self, commit_together(contributions))
    }
}
