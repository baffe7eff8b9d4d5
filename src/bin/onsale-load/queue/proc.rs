//! What a process of this machine uses, by `/proc`.

/// Pages of 4 KiB, and 100 ticks a second: so it is on Linux wherever this is
/// run.
const PAGE_BYTES: u64 = 4096;
const TICKS_PER_SECOND: f64 = 100.0;

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) resident_bytes: u64,
    pub(super) cpu_seconds: f64,
}

/// Of process `pid`.
///
/// # Errors
/// A line for a person.
pub(super) fn usage(pid: u32) -> Result<Usage, String> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    };
    let (memory, times) = (read("statm")?, read("stat")?);
    let parsed = parse(&memory, &times);
    parsed.ok_or_else(|| format!("/proc/{pid} has another form"))
}

fn parse(memory: &str, times: &str) -> Option<Usage> {
    let pages: u64 = memory.split_whitespace().nth(1)?.parse().ok()?;
    // The name, in parentheses, may have spaces.
    let (_, after) = times.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Usage {
        resident_bytes: pages * PAGE_BYTES,
        cpu_seconds: (user + system) / TICKS_PER_SECOND,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_and_the_fields_are_the_right_ones() {
        assert!(usage(std::process::id()).unwrap().resident_bytes > 0);
        let times = "7 (a b) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 9 0 0";
        let usage = parse("100 25 3 4 5 6 7", times).unwrap();
        assert_eq!(usage.resident_bytes, 25 * 4096);
        assert!((usage.cpu_seconds - 3.0).abs() < 1e-9);
    }
}
