//! The heart: renews the lease, over a connection of its own, and tells what it
//! has seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Seen, Shared};
use crate::actors::node::Node;
use crate::clock::{Anchor, monotonic};
use crate::persistence::StoreError;
use crate::persistence::lease::{LEASE_TTL, NodeState};
use crate::persistence::postgres::lease::Heart;
use crate::telemetry;

/// How often the lease is renewed.
const BEAT_EVERY: Duration = Duration::from_millis(500);

/// How long after the end of another node's lease it is looked at again.
const LEASE_OVER_MS: u64 = 5;

/// How soon a failed renewal is tried again.
const BEAT_AGAIN: Duration = Duration::from_millis(100);

/// Renews the lease.
pub(super) struct Pulse {
    node: Arc<Node>,
    shared: Arc<Shared>,
    heart: Heart,
    anchor: Anchor,
    /// Since when renewals have gone on, and the last one.
    renewing: Option<(tokio::time::Instant, tokio::time::Instant)>,
}

impl Pulse {
    pub(super) fn new(node: &Arc<Node>, shared: &Arc<Shared>, heart: Heart) -> Self {
        Self {
            node: Arc::clone(node),
            shared: Arc::clone(shared),
            heart,
            anchor: Anchor::default(),
            renewing: None,
        }
    }

    pub(super) async fn run(mut self) {
        telemetry::lease_began();
        // An outage is told, not each attempt to end it.
        let mut is_lost = false;
        loop {
            let pause = match self.beat().await {
                Ok(()) => {
                    if std::mem::take(&mut is_lost) {
                        tracing::info!("the lease is renewed again");
                    }
                    self.until_next()
                }
                Err(StoreError::Unreadable(why)) => {
                    tracing::error!(why, "this server has been replaced; ending");
                    std::process::exit(75);
                }
                Err(error) => {
                    telemetry::lease_renewal_failed();
                    if !std::mem::replace(&mut is_lost, true) {
                        tracing::warn!(%error, "the lease could not be renewed, trying on");
                    }
                    BEAT_AGAIN
                }
            };
            let _ = tokio::time::timeout(pause, self.shared.look.notified()).await;
            if self.shared.leaving.load(Ordering::Relaxed)
                && self.node.ownership.owned().is_empty()
                && self.heart.resign().await.is_ok()
            {
                return;
            }
        }
    }

    /// The next beat is not later than the end of another node's lease, as it was
    /// seen: a frozen one is found out at once.
    fn until_next(&self) -> Duration {
        let seen = self.shared.seen.borrow();
        let living = seen.iter().flat_map(|seen| seen.view.live());
        let ends = living.map(|member| member.lease_left.0.unsigned_abs() + LEASE_OVER_MS);
        let first = ends.min().map(Duration::from_millis);
        first.map_or(BEAT_EVERY, |first| first.min(BEAT_EVERY))
    }

    pub(super) async fn beat(&mut self) -> Result<(), StoreError> {
        let state = if self.shared.leaving.load(Ordering::Relaxed) {
            NodeState::Draining
        } else {
            NodeState::Up
        };
        let beat = self.heart.beat(state).await?;
        self.node.ownership.renewed(beat.stops_at);
        let jumped = self.anchor.take(&self.node.clock, beat.view.now, beat.read);
        if jumped.is_some() {
            self.node.rearm();
        }
        self.shared
            .uncertainty
            .send_replace(self.anchor.uncertainty());
        let now = monotonic();
        let term = Duration::from_millis(LEASE_TTL.0.unsigned_abs());
        let since = match self.renewing {
            Some((since, last)) if now - last < term => since,
            _ => now,
        };
        self.renewing = Some((since, now));
        let seen = Seen {
            view: beat.view,
            steady: now - since >= term,
        };
        self.shared.seen.send_replace(Some(Arc::new(seen)));
        Ok(())
    }
}
