//! One coupon after the other: its journal, and its rows against it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::TryStreamExt as _;

use super::journal;
use super::progress::Progress;
use super::report::{Book, Rule};
use super::snapshot::Snapshot;
use crate::domain::coupon::{Claim, Event, Prepare, Terms};
use crate::domain::ids::{CouponId, OrderId, UserId};
use crate::domain::time::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::batch::{UseRow, UseState};
use crate::persistence::stored::coupon as stored;
use crate::persistence::stored::reader::Reader as _;

/// Every coupon that something is stored of.
const ALL: &str = "SELECT id FROM coupon UNION SELECT coupon_id FROM coupon_claim \
     UNION SELECT coupon_id FROM coupon_use \
     UNION SELECT id FROM entity WHERE kind = 'coupon' \
     UNION SELECT entity FROM journal WHERE kind = 'coupon' ORDER BY 1";

/// Audits all coupons. In memory is one of them at a time.
pub(super) async fn audit(
    c: &mut Snapshot,
    book: &mut Book,
    progress: &mut Progress,
) -> Result<(), StoreError> {
    for id in c.ids(ALL).await?.into_iter().map(CouponId) {
        let mut replay = Replay::new(id);
        let tell = |_, _, event, book: &mut Book| replay.apply(event, book);
        let is_whole = journal::read(c, id.into(), book, progress, tell).await?;
        let told = is_whole.then_some(&replay);
        let rows = Rows { id, told };
        rows.check(c, book).await?;
        progress.tick(0);
    }
    Ok(())
}

fn expect(book: &mut Book, id: CouponId, rule: Rule, holds: bool, what: impl FnOnce() -> String) {
    book.expect(rule, holds, || format!("coupon {id}: {}", what()));
}

/// A coupon by its journal.
struct Replay {
    id: CouponId,
    terms: Option<Arc<Terms>>,
    claims: HashMap<UserId, Claim>,
    uses: HashMap<OrderId, UseRow>,
    /// The order that has the claim of a user.
    held: HashMap<UserId, OrderId>,
}

impl Replay {
    fn new(id: CouponId) -> Self {
        Self {
            id,
            terms: None,
            claims: HashMap::new(),
            uses: HashMap::new(),
            held: HashMap::new(),
        }
    }

    fn apply(&mut self, event: Event, book: &mut Book) {
        match event {
            Event::Created(terms) | Event::Changed(terms) => {
                let claimed = self.claims.len();
                let is_enough = claimed <= terms.stock as usize;
                expect(book, self.id, Rule::ClaimsWithinStock, is_enough, || {
                    format!(
                        "its stock is lowered to {} below {claimed} claims",
                        terms.stock
                    )
                });
                self.terms = Some(terms);
            }
            Event::Claimed(claim) => self.claim(claim, book),
            Event::Prepared(prepare) => self.prepare(prepare, book),
            Event::Posted { prepare, at } => {
                let is_its = self.held.get(&prepare.user) == Some(&prepare.order);
                expect(book, self.id, Rule::ClaimIsUsedOnce, is_its, || {
                    format!("order {} used a claim that it didn't have", prepare.order)
                });
                self.put(prepare, UseState::Posted, at);
            }
            Event::Voided { prepare, at } => self.release(prepare, UseState::Void, at),
            Event::Returned { prepare, at } => self.release(prepare, UseState::Returned, at),
        }
    }

    fn claim(&mut self, claim: Claim, book: &mut Book) {
        let before = self.claims.insert(claim.user, claim);
        expect(book, self.id, Rule::OneClaimAUser, before.is_none(), || {
            format!(
                "user {} has claimed it again: {before:?}, {claim:?}",
                claim.user
            )
        });
        let claimed = self.claims.len();
        let terms = self.terms.as_deref();
        let is_in_stock = terms.is_some_and(|terms| {
            claimed <= terms.stock as usize && (terms.starts_at..terms.ends_at).contains(&claim.at)
        });
        expect(book, self.id, Rule::ClaimsWithinStock, is_in_stock, || {
            format!("claim {} is number {claimed} of {terms:?}", claim.id)
        });
    }

    fn prepare(&mut self, prepare: Prepare, book: &mut Book) {
        let before = self.held.insert(prepare.user, prepare.order);
        let is_free = before.is_none() && self.claims.contains_key(&prepare.user);
        expect(book, self.id, Rule::ClaimIsUsedOnce, is_free, || {
            format!("{prepare:?} takes a claim that isn't free: {before:?} has it")
        });
        self.put(prepare, UseState::Prepared, prepare.at);
    }

    fn release(&mut self, prepare: Prepare, state: UseState, at: Timestamp) {
        if self.held.get(&prepare.user) == Some(&prepare.order) {
            self.held.remove(&prepare.user);
        }
        self.put(prepare, state, at);
    }

    fn put(&mut self, prepare: Prepare, state: UseState, at: Timestamp) {
        self.uses
            .insert(prepare.order, UseRow { prepare, state, at });
    }
}

/// The rows of one coupon, against what the journal tells, if it is whole.
struct Rows<'a> {
    id: CouponId,
    told: Option<&'a Replay>,
}

impl Rows<'_> {
    async fn check(&self, c: &mut Snapshot, book: &mut Book) -> Result<(), StoreError> {
        let claims = self.check_claims(c, book).await?;
        self.check_coupon(c, claims, book).await?;
        self.check_uses(c, book).await
    }

    fn matches(&self, book: &mut Book, holds: bool, what: impl FnOnce() -> String) {
        expect(book, self.id, Rule::CouponsMatchJournal, holds, what);
    }

    async fn check_coupon(
        &self,
        c: &mut Snapshot,
        claims: usize,
        book: &mut Book,
    ) -> Result<(), StoreError> {
        let row = c.one(stored::COUPON, &[self.id.0.into()]).await?;
        let terms = row.as_ref().map(|row| stored::terms(row, 0)).transpose()?;
        let claimed = row.as_ref().map_or(Ok(0), |row| row.int(9))?;
        let stock = terms.as_ref().map_or(0, |terms| terms.stock);
        let is_within = i64::try_from(claims) == Ok(claimed) && claimed <= stock.into();
        expect(book, self.id, Rule::ClaimsWithinStock, is_within, || {
            format!("it counts {claimed} claims, there are {claims}, its stock is {stock}")
        });
        if let Some(told) = self.told {
            let is_told = terms.as_ref() == told.terms.as_deref();
            self.matches(book, is_told, || {
                format!("its row is {terms:?}, by the journal {:?}", told.terms)
            });
        }
        Ok(())
    }

    async fn check_claims(&self, c: &mut Snapshot, book: &mut Book) -> Result<usize, StoreError> {
        let mut rows = c.rows(
            "SELECT id, user_id, claimed_at, key FROM coupon_claim WHERE coupon_id = $1",
            &[self.id.0.into()],
        );
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let claim = stored::claim(&row)?;
            count += 1;
            let told = self.told.map(|told| told.claims.get(&claim.user));
            self.matches(book, told.is_none_or(|told| told == Some(&claim)), || {
                format!("{claim:?} is by the journal {told:?}")
            });
        }
        let told = self.told.map_or(count, |told| told.claims.len());
        self.matches(book, count == told, || {
            format!("it has {count} claims, by the journal {told}")
        });
        Ok(count)
    }

    async fn check_uses(&self, c: &mut Snapshot, book: &mut Book) -> Result<(), StoreError> {
        let mut rows = c.rows(
            "SELECT user_id, order_id, timetable_id, at, state FROM coupon_use \
             WHERE coupon_id = $1",
            &[self.id.0.into()],
        );
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let prepare = stored::prepare(&row)?;
            let state: String = row.get(4)?;
            count += 1;
            let told = self.told.map(|told| told.uses.get(&prepare.order));
            let is_told = told.is_none_or(|told| {
                told.is_some_and(|told| {
                    let names = |p: &Prepare| (p.user, p.order, p.timetable);
                    (names(&prepare), state.as_str(), prepare.at)
                        == (names(&told.prepare), told.state.as_str(), told.at)
                })
            });
            self.matches(book, is_told, || {
                format!("{prepare:?}, {state}, is by the journal {told:?}")
            });
        }
        let told = self.told.map_or(count, |told| told.uses.len());
        self.matches(book, count == told, || {
            format!("{count} orders have met it, by the journal {told}")
        });
        Ok(())
    }
}
