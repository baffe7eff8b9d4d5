//! What happens to one entity stays its own: panics, and promises that a
//! decision would break.

use std::panic::{AssertUnwindSafe, catch_unwind};

use uuid::Uuid;

use crate::domain::invariant::{Invariant, Violation};
use crate::persistence::batch::Persisted;
use crate::telemetry;

/// Runs something of one entity; a panic is reported, and stays its own.
pub(super) fn contain<M: Persisted, T>(id: Uuid, run: impl FnOnce() -> T) -> Result<T, ()> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let violation = panic.downcast_ref::<Violation>();
        let broken = violation.map_or(Invariant::I9, |violation| violation.invariant);
        tracing::error!(
            entity.id = %id,
            entity.kind = M::KIND.as_str(),
            invariant.id = broken.id(),
            cause = violation.map(tracing::field::display),
            "an entity panicked; it is discarded and reloaded"
        );
        telemetry::invariant_violated(broken.id());
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::queue::Queue;

    #[test]
    fn a_broken_promise_is_counted_by_its_name_and_stays_its_entitys_own() {
        let count = |id: Invariant| {
            let name = format!(
                "{}{{id=\"{}\"}} ",
                telemetry::INVARIANT_VIOLATIONS_TOTAL,
                id.id()
            );
            let text = telemetry::render();
            let value = text.lines().find_map(|line| line.strip_prefix(&name));
            value.map_or(0, |value| value.parse::<u64>().expect("a count"))
        };
        telemetry::recorder();
        let before = count(Invariant::I8);
        let violation = Violation {
            invariant: Invariant::I8,
            what: "9 would be inside, of 8".to_owned(),
        };
        let id = Uuid::now_v7();
        assert_eq!(contain::<Queue, ()>(id, || violation.raise()), Err(()));
        assert_eq!(count(Invariant::I8), before + 1);
        assert_eq!(contain::<Queue, _>(id, || 7), Ok(7));
    }
}
