//! Load for an Onsale server: simulated buyers who sell out a hall over HTTP.
//!
//! `prepare` makes accounts with money, `arena` something to sell, `run` the
//! sale; `queue` a crowd before a waiting room; `coupons` a crowd that claims one. `accounts` measures signing up and signing in, which the others leave
//! out on purpose.

#![allow(
    clippy::print_stdout,
    reason = "what it prints is read by a person; the log is the server's"
)]

mod accounts;
mod api;
mod arena;
mod buyer;
mod client;
mod coupons;
mod fsync;
mod pool;
mod prepare;
mod queue;
mod random;
mod report;
mod run;
mod seat_map;
mod tally;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The client's share of the machine is the server's loss, see `client`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something failed, or the audit found something.
const FAILED: u8 = 1;
/// It could not begin.
const COULD_NOT_RUN: u8 = 2;

/// Simulated buyers for an Onsale server.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make accounts with money, straight in the store, and sign their tokens.
    Prepare(prepare::PrepareArgs),
    /// Make a venue and a performance on sale; prints its timetables.
    Arena(arena::ArenaArgs),
    /// Sell. Exits 1 if anything failed or the audit has findings.
    Run(run::RunArgs),
    /// Crowds before a waiting room.
    Queue(queue::QueueArgs),
    /// Many claim one coupon. Exits 1 if anything is wrong.
    Coupons(coupons::CouponsArgs),
    /// Sign up and sign in.
    Accounts(accounts::AccountsArgs),
}

fn main() -> ExitCode {
    // One thread: the server needs the others.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return could_not_run(&error.to_string()),
    };
    let result = runtime.block_on(async {
        match Cli::parse().command {
            Command::Prepare(args) => prepare::prepare(args).await.map(|()| true),
            Command::Arena(args) => arena::arena(args).await.map(|()| true),
            Command::Run(args) => run::run(args).await,
            Command::Queue(args) => queue::queue(args).await,
            Command::Coupons(args) => coupons::coupons(args).await,
            Command::Accounts(args) => accounts::accounts(args).await,
        }
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(line) => could_not_run(&line),
    }
}

fn could_not_run(line: &str) -> ExitCode {
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "onsale-load: {line}");
    ExitCode::from(COULD_NOT_RUN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["onsale-load", "run", "--think-ms", "5..1"]).is_err());
        assert!(Cli::try_parse_from(["onsale-load", "run", "--best-share", "1.5"]).is_err());
        assert!(
            Cli::try_parse_from(["onsale-load", "run", "--first", "--timetable", "x"]).is_err()
        );
    }
}
