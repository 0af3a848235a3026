//! Claims that wait for each other, so that many become one transaction: each takes the log's lock and a disk's time, and
//! a room in which a hundred people write after a pause makes a hundred claims at once.

use std::{collections::BTreeMap, mem};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, MutexGuard, oneshot};

use crate::{
    error::Result,
    store::one_time_key::{IssuedKey, Wanted},
};

/// How many keys are claimed in one transaction at most, unless one claim is for more.
const TOGETHER: usize = 1_000;

/// What came of a claim: the keys that there were.
pub(super) type Issued = BTreeMap<Wanted, IssuedKey>;

/// A claim that nobody has taken up yet.
pub(super) struct WaitingClaim {
    /// No two the same.
    pub(super) wanted: Vec<Wanted>,
    pub(super) answer: oneshot::Sender<Result<Issued>>,
}

/// Claims on their way, on this node.
#[derive(Default)]
pub(super) struct ClaimQueue {
    waiting: Mutex<Vec<WaitingClaim>>,
    turn: Turn<()>,
}

impl ClaimQueue {
    pub(super) fn push(&self, claim: WaitingClaim) {
        self.waiting.lock().push(claim);
    }

    /// Waits for the transaction before, and takes the claims that have come until then, the oldest first. There are none
    /// where somebody else has taken all of them. The turn lasts until it is dropped.
    pub(super) async fn take_turn(&self) -> (MutexGuard<'_, ()>, Vec<WaitingClaim>) {
        let turn = self.turn.lock().await;
        (turn, self.take())
    }

    fn take(&self) -> Vec<WaitingClaim> {
        let mut waiting = self.waiting.lock();
        let mut size = 0;
        let fits = |claim: &&WaitingClaim| {
            let is_first = size == 0;
            size += claim.wanted.len();
            is_first || size <= TOGETHER
        };
        let count = waiting.iter().take_while(fits).count();
        let rest = waiting.split_off(count);
        mem::replace(&mut *waiting, rest)
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn claim(size: usize) -> WaitingClaim {
        let wanted = |n: usize| Wanted {
            user_id: user_id!("@alice:here").to_owned(),
            device_id: n.to_string().into(),
            algorithm: "a".to_owned(),
        };
        WaitingClaim { wanted: (0..size).map(wanted).collect(), answer: oneshot::channel().0 }
    }

    #[test]
    fn claims_are_taken_together_in_their_order_and_not_without_end() {
        let queue = ClaimQueue::default();
        for size in [600, 400, 1, 5_000, 1] {
            queue.push(claim(size));
        }
        let sizes = || queue.take().iter().map(|claim| claim.wanted.len()).collect::<Vec<_>>();
        assert_eq!(sizes(), [600, 400]);
        assert_eq!(sizes(), [1]);
        assert_eq!(sizes(), [5_000]);
        assert_eq!(sizes(), [1]);
        assert!(sizes().is_empty());
    }
}
