//! How coupons come back from the store, and claims as their owners see them.

use super::Store;
use super::entities::Loaded;
use crate::domain::coupon::{Claim, CouponState, Terms};
use crate::domain::ids::{CouponClaimId, CouponId, OrderId, UserId};
use crate::persistence::StoreError;

/// How a claim stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimUse {
    /// It can be used.
    Available,
    /// An order that isn't finished has it.
    Reserved(OrderId),
    /// An order has used it.
    Used(OrderId),
}

/// A claim with its coupon.
#[derive(Clone, Debug)]
pub struct ClaimRow {
    /// The claim.
    pub claim: Claim,
    /// Of which coupon.
    pub coupon: CouponId,
    /// What that is.
    pub terms: Terms,
    /// How it stands.
    pub used: ClaimUse,
}

impl Store {
    /// A coupon at its version, read in one snapshot; one without terms if it was
    /// never written.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn load_coupon(&self, id: CouponId) -> Result<Loaded<CouponState>, StoreError> {
        on_backend!(self, load_coupon(id))
    }

    /// All coupons, in the order in which they were made.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn coupons(&self) -> Result<Vec<CouponId>, StoreError> {
        on_backend!(self, coupons())
    }

    /// Coupons with claims that are set aside for orders of unknown outcome.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn coupons_in_doubt(&self) -> Result<Vec<CouponId>, StoreError> {
        on_backend!(self, coupons_in_doubt())
    }

    /// The claims of `user`, newest first, older than `after`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn claims_of(
        &self,
        user: UserId,
        after: Option<CouponClaimId>,
        limit: u32,
    ) -> Result<Vec<ClaimRow>, StoreError> {
        on_backend!(self, claims_of(user, after, limit))
    }

    /// The coupon that this claim of `user` is of; `None` if they have no such
    /// claim.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn coupon_of_claim(
        &self,
        user: UserId,
        id: CouponClaimId,
    ) -> Result<Option<CouponId>, StoreError> {
        on_backend!(self, coupon_of_claim(user, id))
    }

    /// The claim of `user` on a coupon.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn claim_on(
        &self,
        coupon: CouponId,
        user: UserId,
    ) -> Result<Option<Claim>, StoreError> {
        on_backend!(self, claim_on(coupon, user))
    }
}
