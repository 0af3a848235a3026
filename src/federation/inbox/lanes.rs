//! Two lanes for rooms in which something is to be taken in: one for those where it goes quickly, and one for those that
//! wait for other servers, so that nobody waits behind those.

use std::{pin::Pin, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

/// How many rooms are worked on at once that have not been for long.
const QUICK: usize = 32;
/// How many of the others.
const PATIENT: usize = 128;
/// For how long a room is in the quick lane.
const SOON: Duration = Duration::from_millis(500);

pub(super) struct Lanes {
    quick: Semaphore,
    patient: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { quick: Semaphore::new(QUICK), patient: Semaphore::new(PATIENT) }
    }
}

impl Lanes {
    /// Does some work, in the quick lane at first. While it waits for a place in the other lane it stands still.
    pub(super) async fn run<T>(&self, mut work: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> T {
        // Neither is ever closed, and without a place the work is done all the same.
        let quick = self.quick.acquire().await.ok();
        if let Ok(done) = timeout(SOON, &mut work).await {
            return done;
        }
        drop(quick);
        let patient = self.patient.acquire().await.ok();
        let done = work.await;
        drop(patient);
        done
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    #[tokio::test]
    async fn who_waits_for_others_makes_way() {
        let lanes = Lanes::default();
        let slow = join_all((0..QUICK).map(|_| lanes.run(Box::pin(std::future::pending::<()>()))));
        let quick = lanes.run(Box::pin(async { 1 }));
        let mut slow = Box::pin(slow);
        assert!((&mut slow).now_or_never().is_none());
        let done = tokio::select! {
            _ = slow => None,
            done = quick => Some(done),
        };
        assert_eq!(done, Some(1));
    }
}
