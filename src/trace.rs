//! The trace of a request (W3C `traceparent`), for as long as it is worked on.
//! Events carry it on, so that what comes of them belongs to the same trace.

use std::sync::Arc;

/// A `traceparent` of version 00.
pub type Trace = Arc<str>;

tokio::task_local! {
    static CURRENT: Trace;
}

/// `00-<trace id>-<parent id>-<flags>`.
const PARTS: [usize; 4] = [2, 32, 16, 2];

/// The trace that a header tells; `None` where it is malformed, as the
/// specification asks (§3.2).
#[must_use]
pub fn read(header: &str) -> Option<Trace> {
    let is_hex = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    let parts: Vec<&str> = header.split('-').collect();
    let lengths = parts.iter().map(|part| part.len());
    let is_right = lengths.eq(PARTS)
        && parts.iter().all(|part| is_hex(part))
        && parts[0] == "00"
        && !is_zero(parts[1])
        && !is_zero(parts[2]);
    is_right.then(|| header.into())
}

/// The trace of the request that this task works on.
#[must_use]
pub fn current() -> Option<Trace> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Does `work` as a part of `trace`, if there is one.
pub async fn within<F: Future>(trace: Option<Trace>, work: F) -> F::Output {
    match trace {
        Some(trace) => CURRENT.scope(trace, work).await,
        None => work.await,
    }
}

/// `work` as a part of the current trace, for a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    within(current(), work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_carried_on() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read(good).as_deref(), Some(good));
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_task_of_its_own_is_part_of_the_trace_only_if_it_is_carried() {
        let trace: Trace = "x".into();
        within(Some(trace.clone()), async move {
            assert_eq!(
                tokio::spawn(carried(async { current() })).await.unwrap(),
                Some(trace)
            );
            assert_eq!(tokio::spawn(async { current() }).await.unwrap(), None);
        })
        .await;
    }
}
