//! The limits on what one caller may hold, counted and logged where they strike.
//!
//! Whoever runs into a limit may do so thousands of times a second: each time counts, but the log has one line a minute
//! of each limit, so that an attack does not fill the disk with the news of it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

/// Between two lines of the log about one thing.
const SILENCE: Duration = Duration::from_mins(1);

/// A limit of the section `connections`. Their names are labels that operators have alerts on, so they stay as they
/// are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// A connection was refused because its address has as many as it may have.
    ConnectionsOfAddress,
    /// A connection was refused because there are as many as there may be, and no address has more of them.
    Connections,
    /// A connection was closed to make room for one of an address that has fewer.
    MadeRoom,
    /// An answer was given up because nobody read on.
    SlowReader,
    /// A body was given up because nobody sent on.
    SlowBody,
    /// A caller has more under way than fits into memory for one: an answer or a body was given up.
    HeldByCaller,
    /// All callers together have.
    HeldByAll,
    /// A waiting sync was answered because its device has begun others.
    SyncsOfDevice,
}

impl Strike {
    const ALL: [Self; 8] = [
        Self::ConnectionsOfAddress,
        Self::Connections,
        Self::MadeRoom,
        Self::SlowReader,
        Self::SlowBody,
        Self::HeldByCaller,
        Self::HeldByAll,
        Self::SyncsOfDevice,
    ];

    /// As the log and the metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionsOfAddress => "connections_of_address",
            Self::Connections => "connections",
            Self::MadeRoom => "made_room",
            Self::SlowReader => "slow_reader",
            Self::SlowBody => "slow_body",
            Self::HeldByCaller => "held_by_caller",
            Self::HeldByAll => "held_by_all",
            Self::SyncsOfDevice => "syncs_of_device",
        }
    }

    /// What has happened and which key decides it.
    fn in_words(self) -> &'static str {
        match self {
            Self::ConnectionsOfAddress => {
                "refused a connection: its address has as many as `connections.max_per_address` allows (a reverse proxy \
                 belongs into `trusted_proxies`)"
            }
            Self::Connections => {
                "refused a connection: there are as many as `connections.max` or the limit of open files allows"
            }
            Self::MadeRoom => {
                "closed a connection of the address that has most, to make room for another address: there are as many \
                 as `connections.max` or the limit of open files allows"
            }
            Self::SlowReader => "gave up an answer: nobody read on for `connections.patience_seconds`",
            Self::SlowBody => "gave up a body: too little of it came within `connections.patience_seconds`",
            Self::HeldByCaller => {
                "refused a request: what its caller sends and does not read takes more than \
                 `connections.held_megabytes_per_caller`"
            }
            Self::HeldByAll => {
                "refused a request: what all callers send and do not read takes more than `connections.held_megabytes`"
            }
            Self::SyncsOfDevice => {
                "answered a waiting sync: its device has more than `connections.waiting_syncs_per_device` at once"
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LimitLabel {
    pub(super) limit: &'static str,
}

/// How often each limit has struck, and when the log last had a line of it.
pub(super) struct Strikes {
    pub(super) counts: Family<LimitLabel, Counter>,
    logged: RecentLines<Strike>,
}

impl Default for Strikes {
    /// Each is there from the start, so that the first one is seen as one more.
    fn default() -> Self {
        let counts = Family::<LimitLabel, Counter>::default();
        for strike in Strike::ALL {
            counts.get_or_create(&LimitLabel { limit: strike.as_str() }).inc_by(0);
        }
        Self { counts, logged: RecentLines::default() }
    }
}

impl Strikes {
    pub(super) fn strike(&self, strike: Strike, caller: &dyn fmt::Display) {
        let limit = strike.as_str();
        self.counts.get_or_create(&LimitLabel { limit }).inc();
        if self.logged.is_news(strike) {
            tracing::warn!(limit, %caller, "{} (at most one such line a minute)", strike.in_words());
        } else {
            tracing::debug!(limit, %caller, "{}", strike.in_words());
        }
    }
}

/// When the log last had a line of each of a few things.
pub(super) struct RecentLines<T>(Mutex<Vec<(T, Instant)>>);

impl<T> Default for RecentLines<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: PartialEq> RecentLines<T> {
    /// Whether the log is to have a line of something now: it has had none for a minute.
    pub(super) fn is_news(&self, thing: T) -> bool {
        let now = Instant::now();
        let mut logged = self.0.lock();
        match logged.iter_mut().find(|(known, _)| *known == thing) {
            Some((_, last)) if now.duration_since(*last) < SILENCE => false,
            Some((_, last)) => {
                *last = now;
                true
            }
            None => {
                logged.push((thing, now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_news_once_and_counts_each_time() {
        let strikes = Strikes::default();
        assert!(strikes.logged.is_news(Strike::SlowBody));
        assert!(!strikes.logged.is_news(Strike::SlowBody));
        assert!(strikes.logged.is_news(Strike::SlowReader));
        strikes.strike(Strike::SlowBody, &"192.0.2.7");
        strikes.strike(Strike::SlowBody, &"192.0.2.7");
        assert_eq!(strikes.counts.get_or_create(&LimitLabel { limit: "slow_body" }).get(), 2);
    }
}
