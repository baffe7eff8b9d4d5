//! `onsale-load queue join`: a crowd that joins in one instant, polls and buys.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use onsale::config::Config;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{Policy, Summary, performance_of};
use super::checks::Checks;
use super::report::Report;
use super::waiter::{Crowd, Ends, Stand};
use crate::buyer::Buyer;
use crate::client::Target;
use crate::pool::Pool;
use crate::prepare::BuyersFile;
use crate::tally::Tally;

/// How long after everything is set up the crowd joins.
const START_AFTER: Duration = Duration::from_millis(500);

/// How often the figures are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often, and after which pause, the last figures are read until they are of
/// one moment: not for so long that somebody enters and runs out of time meanwhile.
const LOOKS_MAX: u32 = 3;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// After the end nobody buys; so long until the last admissions are durable.
const CALM: Duration = Duration::from_secs(3);

/// With --pace this part of the crowd enters within the time.
const PACED_SHARE: f64 = 0.9;

/// Of the connections so many are for those inside.
const INSIDE_SHARE: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Where the server is.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The accounts that `prepare` made.
    #[arg(long, value_name = "FILE", default_value = "buyers.json")]
    buyers_file: PathBuf,
    /// Which timetable is sold; its performance must have a queue that nobody
    /// else uses.
    #[arg(long, value_name = "ID")]
    timetable: String,
    /// How many of the accounts join; all by default.
    #[arg(long)]
    buyers: Option<usize>,
    /// For how many seconds they poll and buy.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// The longest pause between two polls, in seconds; less where the server
    /// says so.
    #[arg(long, default_value_t = 3.0)]
    poll_seconds: f64,
    /// How many of those inside leave without buying, from 0 to 1.
    #[arg(long, default_value_t = 0.1)]
    leave_share: f64,
    /// How many of those inside neither buy nor leave, but let their pass run
    /// out, from 0 to 1; the policy's `active_ttl_seconds` must be short.
    #[arg(long, default_value_t = 0.0)]
    idle_share: f64,
    /// How long those inside think before they buy, at most, in milliseconds.
    #[arg(long, default_value_t = 1_000, conflicts_with = "pace")]
    think_ms: u64,
    /// Think for as long as it takes that the crowd polls until the end: the
    /// last tenth is still waiting then. Needs a policy with `max_active` alone.
    #[arg(long)]
    pace: bool,
    /// Solve the proof of work where the server asks for one
    /// (`queue.proof_of_work`).
    #[arg(long)]
    solve: bool,
    /// How many connections they share.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(8..=16_000))]
    connections: u16,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Audit the store afterwards, as `onsale verify` does.
    #[arg(long)]
    audit: bool,
    /// The settings of the server, to find its store for --audit.
    #[arg(long, value_name = "FILE")]
    store_config: Option<PathBuf>,
}

/// Runs the crowd; `Ok(false)` if anything failed or was unfair.
///
/// # Errors
/// If it can't begin; a line for a person.
pub(crate) async fn join(args: JoinArgs) -> Result<bool, String> {
    let settings = match args.audit {
        true => Some(
            Config::load(args.store_config.as_deref())
                .map_err(|error| error.to_string())?
                .0,
        ),
        false => None,
    };
    let mut file = BuyersFile::read(&args.buyers_file)?;
    let wanted = args.buyers.unwrap_or(file.buyers.len());
    if wanted > file.buyers.len() {
        let there = file.buyers.len();
        return Err(format!("--buyers {wanted}: the file has {there}"));
    }
    file.buyers.truncate(wanted);
    let buyers: Vec<Arc<Buyer>> = file.buyers.into_iter().map(Arc::new).collect();
    let (crowd, policy, before) = assemble(&args, wanted).await?;
    let mut tasks = JoinSet::new();
    for (who, buyer) in buyers.iter().enumerate() {
        let (crowd, buyer) = (Arc::clone(&crowd), Arc::clone(buyer));
        tasks.spawn(async move { (who, crowd.serve(who, buyer).await) });
    }
    let mut stands = vec![Stand::Nowhere; wanted];
    watch(&crowd, tasks, &mut stands).await;
    sleep(CALM).await;
    let seconds = crowd.starts_at.elapsed().as_secs_f64();
    let (after, waiting) = look_at_last(&crowd, &policy, &buyers, &stands).await?;
    account(&crowd, &policy, before, after, waiting);
    let audit = match &settings {
        Some(config) => Some(onsale::persistence::verify::run(config).await),
        None => None,
    };
    let (findings, words, active_max) = crowd.checks.result();
    let ends = *crowd.ends.lock();
    let report = Report {
        url: args.url,
        performance: crowd.performance.clone(),
        policy,
        joined: wanted,
        seconds,
        waiting_after: waiting,
        admitted: after.admitted_total - before.admitted_total,
        active_after: after.active,
        active_max,
        bought: ends.bought,
        left: ends.left,
        expired: ends.expired,
        findings,
        words,
        summary: crowd.tally.summary(),
        audit_exit: audit,
    };
    report.print();
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.is_clean())
}

async fn assemble(args: &JoinArgs, wanted: usize) -> Result<(Arc<Crowd>, Policy, Summary), String> {
    let target = Target::of(&args.url).await?;
    let connections = usize::from(args.connections);
    let inside = connections / INSIDE_SHARE;
    let pool = Pool::new(target.clone(), connections - inside);
    let (performance, policy) = performance_of(&pool, &args.timetable).await?;
    let think = match args.pace {
        true => pace(&policy, wanted, args.seconds)?,
        false => Duration::from_millis(args.think_ms),
    };
    let starts_at = Instant::now() + START_AFTER;
    let crowd = Arc::new(Crowd {
        pool,
        pool_inside: Pool::new(target, inside),
        performance,
        timetable: args.timetable.clone(),
        checks: Checks::of(policy),
        tally: Tally::default(),
        starts_at,
        ends_at: starts_at + Duration::from_secs(args.seconds),
        poll: Duration::from_secs_f64(args.poll_seconds.clamp(0.1, 3_600.0)),
        leave_share: args.leave_share.clamp(0.0, 1.0),
        idle_share: args.idle_share.clamp(0.0, 1.0),
        think,
        solve: args.solve,
        run: uuid::Uuid::now_v7().simple().to_string(),
        ends: Mutex::new(Ends::default()),
    });
    let before = crowd.look().await?;
    if before.waiting + before.active > 0 {
        return Err("somebody is in this queue already".to_owned());
    }
    Ok((crowd, policy, before))
}

/// How long those inside may think at most, evenly spread, so that most of a
/// crowd of `wanted` passes through the cap within so many seconds.
fn pace(policy: &Policy, wanted: usize, seconds: u64) -> Result<Duration, String> {
    let (Some(cap), None) = (policy.max_active, policy.admit) else {
        return Err("--pace: the policy must have max_active, and no admit".to_owned());
    };
    let mean = f64::from(cap) * seconds as f64 / (wanted as f64 * PACED_SHARE);
    // Bounded by the longest run.
    Ok(Duration::from_secs_f64((2.0 * mean).min(86_400.0)))
}

/// Shows the progress, and looks at the figures, until all are done.
async fn watch(crowd: &Arc<Crowd>, mut tasks: JoinSet<(usize, Stand)>, stands: &mut [Stand]) {
    let bar = ProgressBar::new(stands.len() as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {pos}/{len} admitted  {msg}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut next_look = crowd.starts_at;
    let mut active = 0;
    loop {
        let progress = crowd.checks.progress();
        bar.set_position(progress.admitted);
        let bought = crowd.ends.lock().bought;
        bar.set_message(format!(
            "{} places  {active} inside  {bought} bought",
            progress.places
        ));
        tokio::select! {
            () = sleep_until(next_look) => {
                next_look = Instant::now() + LOOK_EVERY;
                match crowd.look().await {
                    Ok(summary) => active = summary.active,
                    Err(error) => crowd.checks.found(format!("the figures can't be read: {error}")),
                }
            }
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok((who, stand))) => {
                    if let Some(place) = stands.get_mut(who) {
                        *place = stand;
                    }
                }
                Some(Err(error)) => crowd.checks.found(format!("a buyer broke: {error}")),
            }
        }
    }
    bar.finish_and_clear();
}

/// The figures at last, and how many still wait: of one moment. Passes run out, and
/// let others in, while everybody is asked; and between an end and the pass of the
/// next there is a commit.
async fn look_at_last(
    crowd: &Arc<Crowd>,
    policy: &Policy,
    buyers: &[Arc<Buyer>],
    stands: &[Stand],
) -> Result<(Summary, u64), String> {
    let mut looks = 0;
    loop {
        let before = crowd.look().await?;
        let waiting = look_back(crowd, buyers, stands).await;
        let after = crowd.look().await?;
        looks += 1;
        let is_one_moment =
            before.admitted_total == after.admitted_total && before.active == after.active;
        let is_full = match (policy.max_active, policy.admit) {
            (Some(cap), None) => waiting == 0 || u64::from(after.active) == u64::from(cap),
            _ => true,
        };
        if (is_one_moment && is_full) || looks == LOOKS_MAX {
            return Ok((after, waiting));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Asks everybody who waits once more: no place may be lost or changed. How
/// many still wait.
async fn look_back(crowd: &Arc<Crowd>, buyers: &[Arc<Buyer>], stands: &[Stand]) -> u64 {
    let mut tasks = JoinSet::new();
    for (who, (buyer, stand)) in buyers.iter().zip(stands).enumerate() {
        let Stand::Waits(number) = *stand else {
            continue;
        };
        let (crowd, buyer) = (Arc::clone(crowd), Arc::clone(buyer));
        tasks.spawn(async move {
            match crowd.stands(&buyer).await {
                Ok(state) if state.number != Some(number) => {
                    let now = state.number;
                    crowd
                        .checks
                        .found(format!("buyer {who} waited with {number}, and has {now:?}"));
                    false
                }
                Ok(state) => match state.state.as_str() {
                    "waiting" | "closed" | "pre_queue" => true,
                    "admitted" => false,
                    other => {
                        crowd
                            .checks
                            .found(format!("number {number}: waiting, then {other}"));
                        false
                    }
                },
                Err(error) => {
                    crowd
                        .checks
                        .found(format!("number {number} is lost: {error}"));
                    false
                }
            }
        });
    }
    let mut waiting = 0;
    while let Some(waits) = tasks.join_next().await {
        waiting += u64::from(waits.unwrap_or(false));
    }
    waiting
}

/// Everybody admitted is inside or has ended; and where only an end makes room,
/// each end admitted exactly one.
fn account(crowd: &Crowd, policy: &Policy, before: Summary, after: Summary, waiting: u64) {
    let admitted = after.admitted_total - before.admitted_total;
    let freed = crowd.ends.lock().freed();
    let active = u64::from(after.active);
    // Passes also run out by themselves, which nobody here may have seen.
    if admitted < active + freed {
        crowd.checks.found(format!(
            "{admitted} were admitted, but {freed} have ended and {active} are inside"
        ));
    }
    // Unless passes live for longer than the run.
    if u64::from(policy.active_ttl_seconds) > crowd.starts_at.elapsed().as_secs()
        && admitted != active + freed
    {
        crowd.checks.found(format!(
            "{admitted} were admitted, {freed} have ended and {active} are inside: not all of them"
        ));
    }
    let (Some(cap), None) = (policy.max_active, policy.admit) else {
        return;
    };
    if waiting > 0 && active != u64::from(cap) {
        crowd.checks.found(format!(
            "{waiting} wait, but {active} of {cap} are inside: an end admitted nobody"
        ));
    }
    let ended = admitted.saturating_sub(active);
    if waiting > 0 && admitted != u64::from(cap) + ended {
        crowd.checks.found(format!(
            "{admitted} were admitted; the cap of {cap} and {ended} ends make room for others"
        ));
    }
    let places = crowd.checks.progress().places as u64;
    if admitted + waiting != places {
        crowd.checks.found(format!(
            "{places} places: {admitted} admitted and {waiting} waiting are not all of them"
        ));
    }
}
