//! For how many requests of one user what is new is gathered at once.
//!
//! What is gathered is in memory until it is written, which may be all rooms of a user, and takes many looks into the
//! database. So one user's requests take turns, whatever device they come from, and those of others are not behind them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// Clients ask for one after the other, on each device.
const AT_ONCE: usize = 4;
/// How many may wait for their turn. Nobody has so many devices that come back at the same moment.
const MOST_WAITING: usize = 64;
/// How long whoever finds no place to wait is asked to, in seconds.
const COME_BACK: u64 = 1;

/// The turns of one user.
pub(super) struct Turns {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(AT_ONCE)), waiting: AtomicUsize::new(0) }
    }
}

impl Turns {
    /// Refused where too many wait already.
    pub(super) async fn take(&self) -> Result<Turn> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(Turn { _permit: permit });
        }
        let _waiting = Waiting::begin(&self.waiting)?;
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(Error::broken)?;
        Ok(Turn { _permit: permit })
    }
}

/// Counted as long as it waits, be it that its client hangs up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Result<Self> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            return Err(Error::wait("You sync too often at once", std::time::Duration::from_secs(COME_BACK)));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    #[tokio::test]
    async fn some_have_their_turn_some_wait_and_the_rest_are_refused() {
        let turns = Turns::default();
        let mut taken = join_all((0..AT_ONCE).map(|_| turns.take())).await;
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| Box::pin(turns.take())).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert!(matches!(turns.take().await, Err(Error::Refused { .. })));
        taken.pop();
        assert!(waiting.remove(0).await.is_ok());
        // Who has gone away waits no more.
        waiting.pop();
        assert!(turns.take().now_or_never().is_none());
        drop((taken, waiting));
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
        assert!(turns.take().await.is_ok());
    }
}
