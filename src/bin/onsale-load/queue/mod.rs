//! `onsale-load queue`: crowds before a waiting room.
//!
//! `join` has everybody join in one instant, poll and buy, and checks what a
//! client can check: `checks`. `sockets` opens live sockets and measures how
//! late positions arrive.

mod api;
mod checks;
mod join;
mod proc;
mod report;
mod sockets;
mod sockets_report;
mod waiter;
mod ws;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Everybody joins in one instant, polls, and buys when admitted. Exits 1
    /// if anything failed or was unfair.
    Join(join::JoinArgs),
    /// Many live sockets: how late positions arrive, and what a socket costs
    /// the server.
    Sockets(sockets::SocketsArgs),
    /// A part of the sockets, in a process of its own: told by `sockets` what
    /// to do.
    #[command(hide = true)]
    SocketsWorker(sockets::WorkerArgs),
}

/// Runs it; `Ok(false)` if anything failed.
///
/// # Errors
/// If it can't begin; a line for a person.
pub(crate) async fn queue(args: QueueArgs) -> Result<bool, String> {
    match args.command {
        QueueCommand::Join(args) => join::join(args).await,
        QueueCommand::Sockets(args) => sockets::sockets(args).await,
        QueueCommand::SocketsWorker(args) => sockets::worker(args).await.map(|()| true),
    }
}
