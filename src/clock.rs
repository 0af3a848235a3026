//! The wall clock, handed in: whoever needs the time holds a `Clock`, so that a test can move it.
//!
//! Only wall-clock time is read here, the kind that ends up in `origin_server_ts` and in expiry
//! dates (<https://spec.matrix.org/v1.19/appendices/#timestamps>). Waiting is `tokio::time`'s work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// Tells the time. Clones of a manual clock share its hands.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Milliseconds since the Unix epoch.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` (milliseconds since the Unix epoch) until it is advanced.
    pub fn manual(start: u64) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(start))))
    }

    /// Moves a manual clock forward; the system's clock goes by itself and stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(milliseconds) = &self.0 {
            milliseconds.fetch_add(milliseconds_in(by), Ordering::SeqCst);
        }
    }

    /// The time now, never before 1970 and never beyond what canonical JSON can carry.
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let milliseconds = match &self.0 {
            Source::System => milliseconds_in(since_epoch()),
            Source::Manual(milliseconds) => milliseconds.load(Ordering::SeqCst),
        };
        MilliSecondsSinceUnixEpoch(UInt::try_from(milliseconds).unwrap_or(UInt::MAX))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn milliseconds_in(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told_and_all_its_clones_with_it() {
        let clock = Clock::manual(1_000);
        let clone = clock.clone();
        assert_eq!(clone.now(), clock.now());

        clock.advance(Duration::from_secs(2));
        assert_eq!(u64::from(clone.now().get()), 3_000);
    }

    #[test]
    fn the_system_clock_is_past_this_line_being_written() {
        let written = 1_790_000_000_000;
        assert!(u64::from(Clock::system().now().get()) > written);
    }
}
