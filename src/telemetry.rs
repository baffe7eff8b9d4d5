//! Logs and metrics.
//!
//! What is counted on a hot path is counted through a struct of handles that is
//! made once: looking a metric up by its name and labels costs more than the
//! counting.

mod actors;
mod cluster;
mod coupon;
mod exposition;
pub mod history;
mod http;
mod log;
mod names;
mod process;
mod queue;
mod queue_door;
mod recorder;
mod sales;
mod series;

pub use self::actors::{
    ActorMetrics, FlushMetrics, checkpoint_fallback, checkpoint_usable, dirty, gate_wait,
    recovered_without_checkpoint,
};
pub use self::cluster::{
    Owned, build_info, clock_uncertainty, condition, lease_began, lease_renewal_failed, owned,
    shard_gained, shard_lost, took_over,
};
pub use self::coupon::{CouponMetrics, CouponUses};
pub use self::http::EndpointMetrics;
pub use self::log::init;
pub use self::names::*;
pub use self::queue::{QueueMetrics, SocketMetrics, eta_error};
pub use self::queue_door::{HumanMetrics, ProofMetrics};
pub use self::recorder::{recorder, render};
pub use self::sales::{
    Outcomes, SeatMetrics, bus_began, dead_letter, invariant_violated, outbox, shed, sockets,
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{Method, StatusCode};

    use super::*;

    #[test]
    fn everything_that_is_counted_can_be_read_and_the_recorder_is_installed_once() {
        assert!(recorder().is_some());
        assert!(recorder().is_some());
        ActorMetrics::for_kind("test-kind").messages.increment(3);
        gate_wait("test-tier").record(0.003);
        FlushMetrics::of_lane("test-tier", 3).flushed(Duration::from_millis(2), 100);
        Outcomes::of_holds().refused("seat-unavailable");
        let endpoint = EndpointMetrics::default();
        for _ in 0..2 {
            endpoint.answered(
                "/test/{id}",
                &Method::POST,
                StatusCode::CREATED,
                Duration::from_micros(7),
            );
        }
        let text = render();
        for line in [
            "onsale_actor_messages_total{kind=\"test-kind\"} 3",
            "onsale_gate_wait_seconds_bucket{tier=\"test-tier\",le=\"0.005\"} 1",
            "onsale_flush_rows_bucket{tier=\"test-tier\",lane=\"3\",le=\"128\"} 1",
            "onsale_holds_total{outcome=\"seat-unavailable\"}",
            "onsale_http_requests_total{route=\"/test/{id}\",method=\"POST\",status=\"201\"} 2",
            "onsale_http_request_seconds_count{route=\"/test/{id}\",method=\"POST\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
