//! What is measured of answers.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};

use super::names::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS_TOTAL};
use super::recorder;

/// Methods that have their own label; all others are "other".
const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
];
/// Statuses are counted by class (1xx to 5xx) and place within it.
const STATUS_CLASSES: usize = 5;
/// How many statuses of a class have a place; those in use are below x40.
const STATUSES_PER_CLASS: usize = 40;

/// What is measured of one endpoint: made when it answers for the first time,
/// afterwards found by index.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    by_method: [OnceLock<MethodMetrics>; METHODS.len() + 1],
}

#[derive(Debug)]
struct MethodMetrics {
    route: String,
    method: &'static str,
    seconds: Histogram,
    by_status: Box<[OnceLock<Counter>]>,
}

impl EndpointMetrics {
    /// Counts an answer. `route` is the pattern of the path, never the path.
    pub fn answered(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let index = METHODS
            .iter()
            .position(|known| known == method)
            .unwrap_or(METHODS.len());
        let Some(slot) = self.by_method.get(index) else {
            return;
        };
        let of_method = slot.get_or_init(|| MethodMetrics::new(route, index));
        of_method.seconds.record(took.as_secs_f64());
        let Some(slot) = status_index(status).and_then(|at| of_method.by_status.get(at)) else {
            return;
        };
        slot.get_or_init(|| of_method.counter(status)).increment(1);
    }
}

fn status_index(status: StatusCode) -> Option<usize> {
    let (class, place) = (
        usize::from(status.as_u16() / 100),
        usize::from(status.as_u16() % 100),
    );
    let has_place = (1..=STATUS_CLASSES).contains(&class) && place < STATUSES_PER_CLASS;
    has_place.then(|| (class - 1) * STATUSES_PER_CLASS + place)
}

impl MethodMetrics {
    fn new(route: &str, index: usize) -> Self {
        recorder();
        const NAMES: [&str; METHODS.len()] =
            ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
        let method = NAMES.get(index).copied().unwrap_or("other");
        Self {
            route: route.to_owned(),
            method,
            seconds: histogram!(HTTP_REQUEST_SECONDS, "route" => route.to_owned(), "method" => method),
            by_status: (0..STATUS_CLASSES * STATUSES_PER_CLASS)
                .map(|_| OnceLock::new())
                .collect(),
        }
    }

    fn counter(&self, status: StatusCode) -> Counter {
        counter!(
            HTTP_REQUESTS_TOTAL,
            "route" => self.route.clone(), "method" => self.method, "status" => status.as_u16().to_string(),
        )
    }
}
