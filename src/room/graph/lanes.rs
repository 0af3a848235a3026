//! Where states are resolved: few threads at a time, each for a bounded number of steps.
//!
//! Nearly every resolution is done in a moment. One that is not, because a room's history is broken or made to be costly,
//! is given up and done again on the slow lane, where such rooms wait for each other and for nobody else. A room that
//! came there begins there the next time, until one of its resolutions has been quick.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// How many steps a quick resolution takes at most: a few hundred milliseconds.
const QUICK_STEPS: u64 = 20_000;
/// How many steps any takes: about a minute.
const SLOW_STEPS: u64 = 5_000_000;
/// Quick resolutions at once, at most.
const QUICK_THREADS: usize = 4;
/// How many slow rooms are remembered. Who is forgotten is quick until proven otherwise.
const SLOW_ROOMS: usize = 1_000;

/// The threads on which states are resolved.
pub(in crate::room) struct Lanes {
    /// As many places as there are threads, [`QUICK_THREADS`] at most.
    quick: Arc<Semaphore>,
    /// One place: rooms whose history is costly hold up each other alone.
    slow: Arc<Semaphore>,
    quick_steps: u64,
    slow_steps: u64,
    /// A hint, lost with the process.
    slow_rooms: Mutex<HashSet<OwnedRoomId>>,
}

/// The steps of one resolution: how many it has taken, and how many it may. A step is an event that is looked at, so
/// the number does not depend on the machine.
pub(in crate::room) struct StepBudget {
    taken: AtomicU64,
    limit: u64,
}

impl StepBudget {
    /// Takes a step. False if there are none left: what comes out is of no use then.
    pub(in crate::room) fn take(&self) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed) < self.limit
    }

    fn are_exceeded(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.limit
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self::new(QUICK_STEPS, SLOW_STEPS)
    }
}

impl Lanes {
    /// With so many steps for a quick resolution, and for any.
    pub(in crate::room) fn new(quick_steps: u64, slow_steps: u64) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(QUICK_THREADS);
        let (quick, slow) = (Arc::new(Semaphore::new(threads)), Arc::new(Semaphore::new(1)));
        Self { quick, slow, quick_steps, slow_steps, slow_rooms: Mutex::default() }
    }

    /// Does a room's work on one of the lanes. It is begun again if it takes too many steps for the quick one, and failed
    /// if it takes too many for any.
    ///
    /// `work` may be called twice, on different threads, and has to give up once [`StepBudget::take`] is false. No lock
    /// and no connection may be held by the caller. `Error::Broken` where the steps of the slow lane are not enough.
    pub(in crate::room) async fn run<T: Send + 'static>(
        &self,
        room_id: &RoomId,
        work: impl Fn(&StepBudget) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let work = Arc::new(work);
        if !self.slow_rooms.lock().contains(room_id) {
            let (done, _) = attempt(&self.quick, self.quick_steps, &work).await?;
            if let Some(done) = done {
                return Ok(done);
            }
            tracing::info!(%room_id, "the states of a room are costly to resolve");
            let mut slow_rooms = self.slow_rooms.lock();
            if slow_rooms.len() >= SLOW_ROOMS {
                // All rather than the oldest: who belongs here comes back by itself.
                slow_rooms.clear();
            }
            slow_rooms.insert(room_id.to_owned());
        }
        let (done, steps) = attempt(&self.slow, self.slow_steps, &work).await?;
        // It would have been done on the quick lane.
        if done.is_some() && steps <= self.quick_steps {
            self.slow_rooms.lock().remove(room_id);
        }
        done.ok_or_else(|| {
            Error::broken(format!("the states of {room_id} can't be resolved in {} steps", self.slow_steps))
        })
    }

    /// Keeps the slow lane from being used until what is returned is dropped.
    #[cfg(test)]
    pub(in crate::room) async fn close_slow_lane(&self) -> tokio::sync::OwnedSemaphorePermit {
        Arc::clone(&self.slow).acquire_owned().await.unwrap()
    }

    /// How many rooms are known to be slow.
    #[cfg(test)]
    pub(in crate::room) fn slow_rooms(&self) -> usize {
        self.slow_rooms.lock().len()
    }
}

/// Does the work on a lane once it is free: what came out, unless it took too many steps, and how many it took. The lane
/// is not free before the work has ended, even if nobody waits for it any more.
async fn attempt<T: Send + 'static>(
    lane: &Arc<Semaphore>,
    limit: u64,
    work: &Arc<impl Fn(&StepBudget) -> Result<T> + Send + Sync + 'static>,
) -> Result<(Option<T>, u64)> {
    let place = Arc::clone(lane).acquire_owned().await.map_err(Error::broken)?;
    let work = Arc::clone(work);
    let working = tokio::task::spawn_blocking(move || {
        // Moved into the work, which can't be broken off: a caller who goes away must not let another in before it
        // ends.
        let _place = place;
        let steps = StepBudget { taken: AtomicU64::new(0), limit };
        let done = work(&steps);
        let exceeded = steps.are_exceeded();
        (if exceeded { Ok(None) } else { done.map(Some) }, steps.taken.into_inner())
    });
    let (done, steps) = working.await.map_err(Error::broken)?;
    Ok((done?, steps))
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    /// Takes so many steps.
    fn walk(count: u64) -> impl Fn(&StepBudget) -> Result<u64> + Send + Sync + 'static {
        move |steps| Ok((0..count).filter(|_| steps.take()).count() as u64)
    }

    #[tokio::test]
    async fn a_costly_room_goes_to_the_slow_lane_until_it_is_quick_again() {
        let lanes = Lanes::new(10, 100);
        let (costly, other) = (room_id!("!costly:here"), room_id!("!other:here"));
        assert_eq!(lanes.run(other, walk(10)).await.unwrap(), 10);
        assert_eq!(lanes.slow_rooms(), 0);
        assert_eq!(lanes.run(costly, walk(11)).await.unwrap(), 11);
        assert_eq!(lanes.slow_rooms(), 1);
        assert!(lanes.run(costly, walk(101)).await.is_err(), "too much even there");
        assert_eq!(lanes.run(costly, walk(3)).await.unwrap(), 3);
        assert_eq!(lanes.slow_rooms(), 0);
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "whoever waits for a lane is a task of its own")]
    async fn who_waits_for_the_slow_lane_is_in_nobodys_way() {
        let lanes = Arc::new(Lanes::new(10, 100));
        let closed = lanes.close_slow_lane().await;
        let mut costly = Vec::new();
        for number in 0..2 * QUICK_THREADS {
            let room_id = RoomId::parse(format!("!costly{number}:here")).unwrap();
            let lanes = Arc::clone(&lanes);
            costly.push(tokio::spawn(async move { lanes.run(&room_id, walk(50)).await }));
        }
        while lanes.slow_rooms() < costly.len() {
            tokio::task::yield_now().await;
        }
        assert_eq!(lanes.run(room_id!("!other:here"), walk(10)).await.unwrap(), 10);
        assert!(costly.iter().all(|waiting| !waiting.is_finished()));
        drop(closed);
        for done in costly {
            assert_eq!(done.await.unwrap().unwrap(), 50);
        }
    }
}
