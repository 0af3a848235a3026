//! The wall clock, handed in: whoever needs the time holds a `Clock`, so that a test can move it.
//!
//! Only wall-clock time is read here, the kind that ends up in `origin_server_ts` and in expiry
//! dates (<https://spec.matrix.org/v1.19/appendices/#timestamps>). Waiting is `tokio::time`'s work.
//!
//! Nodes go by the database's time ([`Clock::agree_with`]), because receipts, typing and leases of one are judged by
//! another. The time may step in either direction when that happens; whoever measures how long something took uses
//! `Instant`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// A source of the time. Clones of a manual clock share its hands.
#[derive(Clone, Debug)]
pub struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    /// How far this machine's clock is behind the time that the nodes have agreed on, in milliseconds.
    System { behind: Arc<AtomicI64>, error: i64 },
    /// Milliseconds since the Unix epoch.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self::wrong_by(0)
    }

    /// The clock of a machine that is ahead of the true time by so many milliseconds. For tests.
    pub fn wrong_by(error: i64) -> Self {
        Self(ClockSource::System { behind: Arc::default(), error })
    }

    /// Takes over a time (milliseconds since the Unix epoch) that others go by as well. Returns by how many
    /// milliseconds that moved this clock. A small difference is not worth a step, and a manual clock goes its own way.
    pub fn agree_with(&self, theirs: i64) -> i64 {
        let ClockSource::System { behind, error } = &self.0 else { return 0 };
        let wanted = theirs.saturating_sub(machine_time().saturating_add(*error));
        let moved = wanted.saturating_sub(behind.load(Ordering::Relaxed));
        if moved.abs() < SMALL {
            return 0;
        }
        behind.store(wanted, Ordering::Relaxed);
        moved
    }

    /// A clock that stands at `start` (milliseconds since the Unix epoch) until it is advanced.
    pub fn manual(start: u64) -> Self {
        Self(ClockSource::Manual(Arc::new(AtomicU64::new(start))))
    }

    /// Moves a manual clock forward; the system's clock goes by itself and stays as it is.
    pub fn advance(&self, by: Duration) {
        if let ClockSource::Manual(milliseconds) = &self.0 {
            milliseconds.fetch_add(milliseconds_in(by), Ordering::SeqCst);
        }
    }

    /// The time now, never before 1970 and never beyond what canonical JSON can carry.
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let milliseconds = match &self.0 {
            ClockSource::System { behind, error } => {
                let time = machine_time().saturating_add(*error).saturating_add(behind.load(Ordering::Relaxed));
                u64::try_from(time).unwrap_or(0)
            }
            ClockSource::Manual(milliseconds) => milliseconds.load(Ordering::SeqCst),
        };
        MilliSecondsSinceUnixEpoch(UInt::try_from(milliseconds).unwrap_or(UInt::MAX))
    }
}

/// Differences below so many milliseconds are left alone: as much may be on the way. A step for each of them would only
/// make the time jitter.
const SMALL: i64 = 100;

fn machine_time() -> i64 {
    millis(since_epoch())
}

/// A span of time as it is counted in the database.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
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
    fn a_wrong_clock_agrees_with_the_others() {
        let (right, wrong) = (Clock::system(), Clock::wrong_by(3_600_000));
        let time = |clock: &Clock| i64::from(clock.now().get());
        assert!(time(&wrong) - time(&right) > 3_599_000);
        assert!(wrong.clone().agree_with(time(&right)) < -3_599_000);
        assert!((time(&wrong) - time(&right)).abs() < 1_000);
        assert_eq!(wrong.agree_with(time(&wrong) + 5), 0, "a small step is none");
    }

    #[test]
    fn the_system_clock_is_past_this_line_being_written() {
        let written = 1_790_000_000_000;
        assert!(u64::from(Clock::system().now().get()) > written);
    }
}
