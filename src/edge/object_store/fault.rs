//! What can go wrong with a store, and how bytes come out of one.

use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::error::Error;

/// Bytes in parts, in order. An error is the last that comes.
pub(crate) type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// One thing that a store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) location: String,
    pub(crate) bytes: u64,
    /// Milliseconds since 1970, by the store's clock.
    pub(crate) modified: i64,
}

/// Why a store has not done something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreFault {
    #[error("nothing is stored there")]
    Missing,
    #[error("the disk for media is full")]
    Full,
    #[error("media are in a store called `{0}`, which is not in the configuration")]
    UnknownStore(String),
    /// It can't be reached, does not answer in time, or refuses: later it may do better. The text is for the log.
    #[error("the store for media does not work: {0}")]
    Unavailable(String),
}

impl From<StoreFault> for Error {
    fn from(fault: StoreFault) -> Self {
        match fault {
            StoreFault::Full | StoreFault::Unavailable(_) => Self::Unavailable(fault.to_string()),
            StoreFault::Missing | StoreFault::UnknownStore(_) => Self::broken(fault),
        }
    }
}

impl From<StoreFault> for io::Error {
    fn from(fault: StoreFault) -> Self {
        Self::other(fault)
    }
}
