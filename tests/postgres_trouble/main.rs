//! Postgres in trouble, and the server on it: frozen, crashed, cut off between
//! COMMIT and its answer, killed in rounds, down for longer than a hold lasts,
//! with a row in it that is in the way, with a replica that is behind, and set
//! so that it would forget.
//!
//! The servers are this test's own, started by `scripts/services`; each test has
//! fresh ones, and they run one after the other.
//!
//! `ONSALE_OUTAGE_SECONDS` says how long Postgres is away (default 4),
//! `ONSALE_CRASH_ROUNDS` how often the server is killed (default 3), and
//! `ONSALE_CRASH_SEED` repeats a run's choices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, that is how it fails; and it measures real time"
)]

#[path = "../crash/claims.rs"]
mod claims;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "sabotage")]
#[path = "../crash/coupon_matrix.rs"]
mod coupon_matrix;
mod coupons;
#[path = "../crash/customer.rs"]
mod customer;
mod cut;
#[path = "../history/mod.rs"]
mod history;
mod kill;
#[cfg(feature = "sabotage")]
mod left_behind;
mod long_down;
#[cfg(feature = "sabotage")]
#[path = "../crash/matrix.rs"]
mod matrix;
mod nodes;
#[cfg(feature = "sabotage")]
#[path = "../crash/on_purpose.rs"]
mod on_purpose;
mod outage;
#[path = "../crash/person.rs"]
mod person;
mod poison;
mod proxy;
mod queue;
#[path = "../queue_history/mod.rs"]
mod queue_history;
mod replica;
#[path = "../crash/room.rs"]
mod room;
#[path = "../crash/rounds.rs"]
mod rounds;
#[cfg(feature = "sabotage")]
mod taken_over;
mod unfit;
#[path = "../crash/world.rs"]
mod world;

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use common::services::Services;
use world::World;

/// On Postgres there has to be one; a test's is none.
const SECRET: &str = "a secret of the tests that is long enough";

/// Ten times what anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(20);

/// One test at a time: an outage of one must not be the load of another.
static TURN: Mutex<()> = Mutex::const_new(());

/// Postgres and Redis for one test, while it has its turn.
struct Place {
    services: Services,
    _turn: MutexGuard<'static, ()>,
}

impl Place {
    async fn fresh() -> Self {
        let turn = TURN.lock().await;
        let services = Services::start(&["postgres", "redis"]);
        let place = Self {
            services,
            _turn: turn,
        };
        place.assert_is_durable().await;
        place
    }

    /// A server on them, and its customers.
    async fn world(&self, extra: &[(&str, &str)]) -> World {
        self.world_at(&self.services.postgres_url(), extra).await
    }

    /// The same with Postgres at another address.
    async fn world_at(&self, postgres: &str, extra: &[(&str, &str)]) -> World {
        let redis = self.services.redis_url();
        let servers = [
            ("ONSALE_STORE__URL", postgres),
            ("ONSALE_REDIS__URL", &redis),
            ("ONSALE_AUTH__SECRET", SECRET),
            ("ONSALE_DURABILITY__HOLDS", "checkpoint"),
        ];
        World::start(&[&servers, extra].concat(), false).await
    }

    /// A connection beside the server.
    async fn sql(&self) -> sqlx::PgConnection {
        use sqlx::Connection as _;
        sqlx::PgConnection::connect(&self.services.postgres_url())
            .await
            .unwrap()
    }

    /// What is killed here must keep what it acknowledges, or nothing is shown.
    async fn assert_is_durable(&self) {
        let mut sql = self.sql().await;
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let is: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut sql)
                .await
                .unwrap();
            assert_eq!(is, "on", "{setting}");
        }
    }
}
