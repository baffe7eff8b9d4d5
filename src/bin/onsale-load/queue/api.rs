//! The parts of the HTTP contract that who waits reads.

use onsale::domain::proof_of_work::{BITS_MAX, solve};
use serde::{Deserialize, Serialize};

use crate::api::BASE;
use crate::client::Request;
use crate::pool::Pool;

/// `GET …/queue`, and the frame of that name.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct State {
    pub(super) state: String,
    pub(super) number: Option<u32>,
    pub(super) position: Option<u32>,
    pub(super) ticket: String,
    pub(super) pass: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Summary {
    pub(super) waiting: u32,
    pub(super) active: u32,
    pub(super) admitted_total: u64,
}

/// The public part of the policy.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Policy {
    #[serde(default)]
    pub(super) free_admission: u32,
    pub(super) admit: Option<Admit>,
    pub(super) max_active: Option<u32>,
    #[serde(default)]
    pub(super) active_ttl_seconds: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Admit {
    pub(super) count: u32,
    pub(super) every_seconds: u32,
}

/// `proof_of_work` of a problem.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Challenge {
    challenge: String,
    difficulty: u8,
}

#[derive(Deserialize)]
struct ProofRequired {
    proof_of_work: Challenge,
}

impl Challenge {
    /// In an answer's body, if it asks for a proof.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let problem: ProofRequired = serde_json::from_slice(body).ok()?;
        Some(problem.proof_of_work)
    }

    /// The header that solves it; on a thread of its own, because it takes the
    /// processor for a while.
    ///
    /// # Errors
    /// A line for a person.
    pub(super) async fn solved(self) -> Result<String, String> {
        let Self {
            challenge,
            difficulty,
        } = self;
        // So many times the work that it takes on average: one in 10^13 fails.
        let tries_max = 30_u64 << difficulty.min(BITS_MAX);
        let solving = move || solve(&challenge, difficulty, tries_max);
        let solved = tokio::task::spawn_blocking(solving).await;
        let solved = solved.map_err(|error| error.to_string())?;
        solved.ok_or_else(|| format!("no proof of work of {difficulty} bits was found"))
    }
}

#[derive(Deserialize)]
struct Timetable {
    performance_id: String,
}

#[derive(Deserialize)]
struct Performance {
    queue: Option<Policy>,
}

/// The performance of a timetable, and its policy.
///
/// # Errors
/// A line for a person, also if it has no queue.
pub(super) async fn performance_of(
    pool: &Pool,
    timetable: &str,
) -> Result<(String, Policy), String> {
    let path = format!("{BASE}/timetables/{timetable}");
    let Timetable { performance_id } = pool.expect(200, &Request::get(&path)).await?;
    let path = format!("{BASE}/performances/{performance_id}");
    let performance: Performance = pool.expect(200, &Request::get(&path)).await?;
    let policy = performance.queue;
    let policy = policy.ok_or_else(|| format!("performance {performance_id} has no queue"))?;
    Ok((performance_id, policy))
}
