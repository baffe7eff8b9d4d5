//! What is done again and again while the server runs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::App;
use crate::actors::node::SWEEP_EVERY;
use crate::domain::time::Millis;
use crate::persistence::Store;
use crate::telemetry::{self, CouponMetrics, QueueMetrics, SeatMetrics, SocketMetrics};

/// How often the node notes that it lives, and looks at the system's clock.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How many old idempotency keys are forgotten in one go.
const KEYS_SWEPT_MAX: u32 = 10_000;

/// How many old places of waiting rooms are forgotten in one go.
const PLACES_SWEPT_MAX: u32 = 10_000;

impl App {
    pub(super) fn start_upkeep(self: &Arc<Self>) {
        let store = match self.store {
            Store::Sqlite(_) => "sqlite",
            Store::Postgres(_) => "postgres",
        };
        let none_or = |is_there, name| if is_there { name } else { "none" };
        let checkpoints = none_or(!self.config.redis.url.is_empty(), "redis");
        let is_kafka = !self.config.kafka.brokers.is_empty();
        telemetry::build_info(
            store,
            checkpoints,
            if is_kafka { "kafka" } else { "in-process" },
        );
        let beat = tokio::spawn(heartbeat(Arc::downgrade(self)));
        let sweep = tokio::spawn(sweep(Arc::downgrade(self)));
        self.tasks.lock().extend([beat, sweep]);
    }
}

/// Once a second: the clock, the sign of life, the gauges.
async fn heartbeat(app: Weak<App>) {
    let seats = SeatMetrics::new();
    let mut queues = QueueMetrics::new();
    let mut coupons = CouponMetrics::new();
    let mut sockets = SocketMetrics::default();
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let Some(app) = app.upgrade() else { return };
        match app.node.keeper.get() {
            None => follow_the_system(&app).await,
            Some(keeper) => {
                telemetry::clock_uncertainty(keeper.uncertainty().as_secs_f64());
                app.node.fetch_counts().await;
            }
        }
        let counts = app.node.boards.totals();
        seats.available.set(counts.available);
        seats.held.set(counts.held);
        seats.sold.set(counts.sold);
        seats.blocked.set(counts.blocked);
        queues.show(&app.node.queue_boards.summaries());
        coupons.show(&app.node.coupon_boards.all());
        sockets.show(&app.queue_feeds.figures());
        telemetry::sockets(app.sockets.taken(), app.config.http.sockets_max as usize);
        telemetry::condition(app.readiness().is_empty(), app.node.lanes.are_healthy());
        app.node.observe();
        app.busiest.look(&app.node);
        match app.store.backlog().await {
            Ok(backlog) => telemetry::outbox(backlog.events, backlog.oldest, app.clock.now()),
            Err(error) => tracing::debug!(%error, "the outbox could not be counted"),
        }
        // Whether the store refuses or hangs: nobody waits for ever.
        app.node.give_up();
        if let Err(error) = app.catalogue.flush_views().await {
            tracing::debug!(%error, "views could not be written");
        }
    }
}

/// What a lone node does instead of renewing a lease: it goes by the system's
/// clock, and notes that it lives.
async fn follow_the_system(app: &App) {
    if let Some(step) = app.clock.anchor() {
        tracing::warn!(
            step_ms = step.0,
            "the system's clock is ahead, following it"
        );
        app.node.rearm();
    }
    let name = app.node.name.as_str().to_owned();
    if let Err(error) = app.store.note_alive(name, app.clock.now()).await {
        tracing::debug!(%error, "the sign of life could not be written");
    }
}

/// Forgets what nobody uses.
async fn sweep(app: Weak<App>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(app) = app.upgrade() else { return };
        app.node.sweep();
        app.rates.sweep();
        let before = app
            .clock
            .now()
            .plus(Millis(-crate::domain::account::KEY_LIFE.0));
        if let Err(error) = app.store.forget_keys(before, KEYS_SWEPT_MAX).await {
            tracing::debug!(%error, "old idempotency keys could not be removed");
        }
        let now = app.clock.now();
        if let Err(error) = app.store.forget_places(now, PLACES_SWEPT_MAX).await {
            tracing::debug!(%error, "old places of waiting rooms could not be removed");
        }
        if let Err(error) = app.accounts.sweep_sessions().await {
            tracing::debug!(%error, "old sessions could not be removed");
        }
    }
}
