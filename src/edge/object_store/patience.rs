//! How long stores are waited for.

use std::time::Duration;

/// Tests have less.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a connection.
    pub(super) connect: Duration,
    /// For how long nothing may move on one.
    pub(super) stall: Duration,
    /// After how long a failed request is not made again.
    pub(super) retries: Duration,
    /// For the head of an answer, repetitions and waiting for a turn included.
    pub(super) answer: Duration,
    /// For a request that carries bytes, or makes a file of its parts.
    pub(super) whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            retries: Duration::from_secs(20),
            answer: Duration::from_mins(1),
            whole: Duration::from_mins(10),
        }
    }
}
