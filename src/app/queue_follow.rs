//! How a node keeps up with a waiting room that it has sockets of: one
//! subscription a queue to its owner, whichever node that is at the moment.

use std::time::Duration;

use super::App;
use crate::actors::ownership::Shard;
use crate::actors::queue_board::QueueBoard;
use crate::actors::queue_board::copy::{Followed, ToldCopy};
use crate::domain::ids::{PerformanceId, shard_of};
use crate::http::error::{Answer, Problem};

/// How often a queue of this node is looked after: it may have been unloaded.
const HERE_EVERY: Duration = Duration::from_millis(250);

/// How long a question to the owner waits for something new.
const NEWS_WAIT: Duration = Duration::from_secs(1);

/// The shortest time between two questions to the owner.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// How long to wait while the owner can't be reached, or isn't known: a
/// take-over ends it early.
const LOST_PAUSE: Duration = Duration::from_millis(100);

impl App {
    /// Keeps what is published of a queue up to date on this node. Never ends;
    /// while there is no owner, what was told last stands.
    pub async fn follow_queue(&self, board: &QueueBoard) {
        let id = board.id();
        let mut known = None;
        let mut changes = self.node.ownership.changes();
        loop {
            let pause = match self.node.ownership.state(shard_of(id.0)) {
                Shard::Ours { .. } => {
                    if !board.is_loaded() {
                        // Tried again, whatever came of it.
                        let _ = self.load_queue_board(id).await;
                    }
                    HERE_EVERY
                }
                Shard::Elsewhere {
                    owner: Some(owner), ..
                } => match self.ask_told(&owner.address, id, known).await {
                    Some(copy) => {
                        let fits = board.follow(copy);
                        known = board.followed().filter(|_| fits);
                        ASK_PAUSE
                    }
                    None => LOST_PAUSE,
                },
                Shard::Elsewhere { owner: None, .. } | Shard::HandingOver { .. } => LOST_PAUSE,
            };
            let _ = tokio::time::timeout(pause, changes.changed()).await;
        }
    }

    async fn ask_told(
        &self,
        owner: &str,
        id: PerformanceId,
        known: Option<Followed>,
    ) -> Option<ToldCopy> {
        let peers = self.node.route.peers()?;
        let asked = peers.query(owner, "/internal/told", &(id, known)).await;
        asked
            .inspect_err(
                |error| tracing::debug!(%error, queue.id = %id, "a queue can't be followed"),
            )
            .ok()
    }

    /// What is told of a queue of this node that who has `known` doesn't know;
    /// waits a moment for it.
    ///
    /// # Errors
    /// 503 if it can't be told now.
    pub async fn told_of_queue(
        &self,
        id: PerformanceId,
        known: Option<Followed>,
    ) -> Answer<ToldCopy> {
        let board = self.load_queue_board(id).await?;
        let mut told = board.told();
        let newer = told.wait_for(|told| {
            told.as_ref()
                .is_some_and(|told| QueueBoard::has_newer(told, known))
        });
        // Without news the answer says so.
        let _ = tokio::time::timeout(NEWS_WAIT, newer).await;
        board
            .told_since(known)
            .ok_or_else(Problem::store_unavailable)
    }
}
