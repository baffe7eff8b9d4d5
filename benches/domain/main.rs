//! How fast the rules of a sale and of its waiting room are, on one core, without IO.
//!
//! `cargo bench --bench domain`; run it while nothing else builds or runs.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints figures, and times what never waits"
)]

mod best_available;
mod crowd;
mod decide;
mod queue;
mod scene;

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    decide::bench();
    best_available::bench();
    queue::bench();
}
