//! How long Redis is waited for.
//!
//! A connection that died without a word looks open from this side for as long as TCP retries, which is a quarter of an
//! hour.

use std::{future::Future, time::Duration};

use redis::{ErrorKind, RedisError};

/// After so much silence a connection is taken for dead, however open it looks.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// Redis may be paused or cut off without a word. The future is dropped when time is up, and with it the connection
/// that it was making.
pub(super) async fn in_time<T>(asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    tokio::time::timeout(SILENCE, asked).await.unwrap_or_else(|_elapsed| Err(no_answer()))
}

pub(super) fn no_answer() -> RedisError {
    RedisError::from((ErrorKind::Io, "no answer in time"))
}
