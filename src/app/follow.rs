//! How a node keeps up with what the others change of that which every node
//! keeps in memory: the catalogue, and who was signed out.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::App;
use crate::domain::time::{Millis, Timestamp};
use crate::persistence::StoreError;
use crate::persistence::store::changes::{Change, Changes};

/// Changes are taken up so much apart at least: a burst of them is read once.
const PAUSE: Duration = Duration::from_millis(50);

/// How often is looked for changes that nobody told of: a listener whose
/// connection has died without a word hears nothing.
const LOOK: Duration = Duration::from_secs(5);

/// How long to wait before listening again.
const AGAIN: Duration = Duration::from_millis(500);

/// By how much the clocks of two nodes may differ, and how long a commit may
/// take: revocations are read again from so long before the last look.
const OVERLAP: Millis = Millis::from_secs(10);

impl App {
    /// Follows the other nodes, where there can be any.
    pub(super) fn start_following(self: &Arc<Self>) {
        if self.config.store.is_server() {
            let task = tokio::spawn(follow(Arc::downgrade(self)));
            self.tasks.lock().push(task);
        }
    }

    async fn follow_catalogue(&self) -> Result<(), StoreError> {
        self.catalogue.follow(self.clock.now()).await?;
        for timetable in self.catalogue.take_changed() {
            self.plan_changed(timetable);
        }
        Ok(())
    }
}

async fn follow(app: Weak<App>) {
    let mut seen = match app.upgrade() {
        Some(app) => app.clock.now(),
        None => return,
    };
    loop {
        let Some(this) = app.upgrade() else { return };
        let listening = this.store.changes().await;
        drop(this);
        let ended = match listening {
            Ok(None) => return,
            Ok(Some(changes)) => listen(&app, changes, &mut seen).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "not told of changes by other nodes, will listen again");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Takes up changes until the connection is lost. `Ok` when the server ends.
async fn listen(
    app: &Weak<App>,
    mut changes: Changes,
    seen: &mut Timestamp,
) -> Result<(), StoreError> {
    // What was missed while nobody listened.
    let mut told = vec![Change::Catalogue, Change::Access];
    loop {
        {
            let Some(app) = app.upgrade() else {
                return Ok(());
            };
            let now = app.clock.now();
            if told.contains(&Change::Catalogue) {
                app.follow_catalogue().await?;
            }
            if told.contains(&Change::Access) {
                let since = seen.plus(Millis(-OVERLAP.0));
                app.accounts.follow_revocations(since).await?;
                *seen = now;
            }
        }
        tokio::time::sleep(PAUSE).await;
        told = match tokio::time::timeout(LOOK, changes.next()).await {
            Ok(Ok(Some(told))) => told,
            Ok(Ok(None)) => {
                let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                return Err(StoreError::Unavailable(lost.into()));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => vec![Change::Catalogue, Change::Access],
        };
    }
}
