//! Where thumbnails are made: on few threads, in a bounded amount of memory, and with so many waiting and no more.
//!
//! What waits here holds up nobody but whoever asked for it: no connection to the database and no lock.

use std::{sync::Arc, thread};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

const MIB: u64 = 1024 * 1024;
/// How many thumbnails are waited for at once. What is beyond is asked for again later.
const QUEUE: usize = 128;
/// How many originals are on the local disk at once.
const ORIGINALS: usize = 8;
/// However many processors there are.
const MAX_THREADS: usize = 8;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Lanes {
    queue: Arc<Semaphore>,
    originals: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    /// As many places as there are MiB.
    memory: Arc<Semaphore>,
}

/// A place in the queue.
pub(super) struct Queued {
    lanes: Lanes,
    _place: OwnedSemaphorePermit,
}

/// The right to have an original on the local disk.
pub(super) struct Place {
    lanes: Lanes,
    _places: [OwnedSemaphorePermit; 2],
}

impl Lanes {
    /// With so many MiB of memory.
    pub(super) fn new(megabytes: u32) -> Self {
        // One processor is left to everything else, where there is another.
        let threads = thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).clamp(1, MAX_THREADS);
        Self::with(QUEUE, threads, megabytes)
    }

    fn with(queue: usize, threads: usize, megabytes: u32) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let memory = usize::try_from(megabytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { queue: places(queue), originals: places(ORIGINALS), threads: places(threads), memory: places(memory) }
    }

    /// `Error::Unavailable` where too many wait already.
    pub(super) fn enter(&self) -> Result<Queued> {
        let Ok(place) = Arc::clone(&self.queue).try_acquire_owned() else {
            return Err(Error::Unavailable("Too many thumbnails are being made at this moment: try again".to_owned()));
        };
        Ok(Queued { lanes: self.clone(), _place: place })
    }
}

impl Queued {
    /// Waits until an original may be fetched.
    pub(super) async fn place(self) -> Result<Place> {
        let Self { lanes, _place: queued } = self;
        let original = Arc::clone(&lanes.originals).acquire_owned().await.map_err(Error::broken)?;
        Ok(Place { lanes, _places: [queued, original] })
    }
}

impl Place {
    /// Does what takes so many bytes of memory, of which there must be so many in all.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let megabytes = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.lanes.memory).acquire_many_owned(megabytes).await.map_err(Error::broken)?;
        let thread = Arc::clone(&self.lanes.threads).acquire_owned().await.map_err(Error::broken)?;
        let working = tokio::task::spawn_blocking(move || {
            // Moved into the work, which can't be broken off: a caller who goes away must not let another in before it
            // ends.
            let _held = (memory, thread);
            work()
        });
        working.await.map_err(Error::broken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_finds_the_queue_full_is_sent_away() {
        let lanes = Lanes::with(2, 1, 64);
        let (first, _second) = (lanes.enter().unwrap(), lanes.enter().unwrap());
        assert!(matches!(lanes.enter(), Err(Error::Unavailable(_))));
        let place = first.place().await.unwrap();
        assert!(lanes.enter().is_err(), "what is being made is still in the queue");
        drop(place);
        assert!(lanes.enter().is_ok());
    }

    #[tokio::test]
    async fn what_does_not_fit_into_the_memory_waits() {
        let lanes = Lanes::with(8, 8, 64);
        let (go, gone) = mpsc::channel::<()>();
        let place = lanes.enter().unwrap().place().await.unwrap();
        let mut large = Box::pin(place.work(50 * MIB, move || gone.recv().is_ok()));
        assert!((&mut large).now_or_never().is_none());
        let other = lanes.enter().unwrap().place().await.unwrap();
        assert_eq!(other.work(14 * MIB, || 1).await.unwrap(), 1);
        let mut waiting = Box::pin(other.work(15 * MIB, || 2));
        assert!((&mut waiting).now_or_never().is_none());
        go.send(()).unwrap();
        assert!(large.await.unwrap());
        assert_eq!(waiting.await.unwrap(), 2);
    }
}
