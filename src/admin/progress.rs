//! How far something has come that takes long: on a terminal a line that changes, elsewhere a line now and then, for the
//! log of whatever runs it.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use super::Failure;

/// Between two looks on a terminal.
const GLANCE: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const LINE: Duration = Duration::from_secs(30);

/// Writes to standard error.
pub(super) struct ProgressLine {
    is_terminal: bool,
    /// When it was written last, or begun.
    at: Instant,
    /// How many characters there are now, all of which the next text has to cover.
    shown: usize,
}

impl ProgressLine {
    pub(super) fn begin() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), at: Instant::now(), shown: 0 }
    }

    /// Shows the text, unless the last one was just shown.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        let pause = if self.is_terminal { GLANCE } else { LINE };
        if self.at.elapsed() < pause {
            return;
        }
        self.at = Instant::now();
        let text = text();
        let written = if self.is_terminal {
            let before = std::mem::replace(&mut self.shown, text.chars().count());
            write!(io::stderr(), "\r{text:before$}")
        } else {
            writeln!(io::stderr(), "{text}")
        };
        // Nobody has to look: what goes on goes on.
        written.unwrap_or_default();
    }

    /// Whatever comes next has a line of its own.
    pub(super) fn end(self) -> Result<(), Failure> {
        if self.shown > 0 {
            writeln!(io::stderr())?;
        }
        Ok(())
    }
}
