//! A sign of life on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::time::Instant;

use crate::clock::monotonic;

/// An audit that ends sooner shows nothing.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Counts the rows of the journal on stderr, if that is a terminal and it takes
/// long.
pub(super) struct Progress {
    bar: ProgressBar,
    show_at: Option<Instant>,
}

impl Progress {
    pub(super) fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            show_at: None,
        }
    }

    pub(super) fn on_terminal(rows: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(rows), ProgressDrawTarget::hidden());
        Self {
            bar,
            show_at: Some(monotonic() + SHOWN_AFTER),
        }
    }

    pub(super) fn tick(&mut self, rows: u64) {
        self.bar.inc(rows);
        if self.show_at.is_some_and(|at| monotonic() >= at) {
            self.show_at = None;
            // Draws nothing where stderr is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
