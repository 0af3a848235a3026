//! How long an answer may take, and how long it may be.

use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// What a caller is ready to wait for and to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// For all of it: finding the server, asking it, and reading the last byte of its answer.
    pub(crate) timeout: Duration,
    /// For as long the body may say nothing.
    pub(crate) idle: Duration,
    /// Of the body.
    pub(crate) max_bytes: usize,
}

impl Bounds {
    /// Questions with small answers for which somebody waits.
    pub(crate) const QUICK: Self =
        Self { timeout: Duration::from_secs(10), idle: Duration::from_secs(10), max_bytes: 10 * MIB };
    /// All others.
    pub(crate) const ANSWER: Self =
        Self { timeout: Duration::from_secs(30), idle: Duration::from_secs(15), max_bytes: 100 * MIB };
    /// The state of a room that is joined: its server may have to work it out first.
    pub(crate) const JOIN: Self =
        Self { timeout: Duration::from_mins(15), idle: Duration::from_mins(1), max_bytes: 500 * MIB };
    /// What a server says of a transaction, which it may look through before it answers.
    pub(crate) const TRANSACTION: Self =
        Self { timeout: Duration::from_mins(1), idle: Duration::from_secs(30), max_bytes: MIB };
}
