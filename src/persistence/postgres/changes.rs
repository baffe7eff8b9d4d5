//! What other nodes have changed of that which every node keeps in memory, as
//! the database tells it (LISTEN, `migrations/postgres/0003_changes.sql`).
//!
//! The listening connection goes past PgBouncer, over `store.direct_url`: a
//! server that is shared by the transaction listens for nobody.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{PostgresStore, options};
use crate::persistence::StoreError;
use crate::persistence::store::changes::Change;

/// How long connecting and subscribing may take.
const LISTEN_MAX: Duration = Duration::from_secs(5);

const CHANNEL: &str = "onsale_changes";

/// Changes as they are committed.
#[derive(Debug)]
pub(crate) struct Listener(PgListener);

impl PostgresStore {
    pub(crate) async fn changes(&self) -> Result<Listener, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(LISTEN_MAX)
            .connect_lazy_with(options(&self.direct_url, false)?);
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(Listener(listener))
        };
        tokio::time::timeout(LISTEN_MAX, listening)
            .await
            .unwrap_or_else(|_| Err(super::hung()))
    }

    pub(crate) async fn catalogue_version(&self) -> Result<i64, StoreError> {
        self.read(|c| {
            Box::pin(async move {
                let row = c.sql("SELECT version FROM catalogue_version");
                Ok(row.fetch_one(c.on()).await?.try_get(0)?)
            })
        })
        .await
    }
}

impl Listener {
    /// The next changes: one at least, and all that have come with it. `None`
    /// once the connection is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Change>>, StoreError> {
        let Some(first) = self.0.try_recv().await? else {
            return Ok(None);
        };
        let mut changes: Vec<Change> = of(first.payload()).into_iter().collect();
        while let Some(more) = self.0.next_buffered() {
            let more = of(more.payload());
            changes.extend(more.filter(|change| !changes.contains(change)));
        }
        Ok(Some(changes))
    }
}

/// The change that a payload is; a later version of this program may tell of
/// more.
fn of(payload: &str) -> Option<Change> {
    match payload {
        "catalogue" => Some(Change::Catalogue),
        "access" => Some(Change::Access),
        _ => None,
    }
}
