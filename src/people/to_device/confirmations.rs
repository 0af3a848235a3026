//! Deleting what devices have confirmed, for many devices in one transaction.
//!
//! Each sync that follows one with messages confirms some, so this happens as often as messages are given out. Whoever
//! comes while a transaction is under way waits for its end, and one of those who wait then does it for all of them.
//!
//! What is confirmed is a page, but for a client that makes up its token: so no more than a few pages of an inbox go in one
//! transaction.

use std::mem;

use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use tokio::sync::oneshot;

use crate::{
    db::{Db, DbResult, Tx},
    ground::position::Position,
    store,
};

/// How many messages of one inbox are deleted in one transaction.
const DELETED_AT_ONCE: u32 = 500;

/// What is to be deleted.
#[derive(Default)]
pub(super) struct Confirmations {
    waiting: Mutex<Vec<Confirmation>>,
    /// Held by who deletes.
    turn: tokio::sync::Mutex<()>,
}

/// A device has everything up to a place.
struct Confirmation {
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    until: Position,
    /// Who waits for it.
    done: Option<oneshot::Sender<()>>,
}

impl Confirmation {
    fn new(user_id: &UserId, device_id: &DeviceId, until: Position, done: Option<oneshot::Sender<()>>) -> Self {
        Self { user_id: user_id.to_owned(), device_id: device_id.to_owned(), until, done }
    }

    /// Returns whether there may be more.
    async fn delete_some(&self, tx: &mut Tx) -> DbResult<bool> {
        let inbox = (&*self.user_id, &*self.device_id);
        let deleted = store::to_device::delete_some_until(tx, inbox, self.until, DELETED_AT_ONCE).await?;
        Ok(deleted >= u64::from(DELETED_AT_ONCE))
    }
}

async fn delete(db: &Db, confirmations: &[Confirmation]) -> DbResult<()> {
    let mut rest: Vec<&Confirmation> = confirmations.iter().collect();
    while !rest.is_empty() {
        let mut tx = db.begin().await?;
        let mut more = Vec::new();
        for confirmation in rest {
            if confirmation.delete_some(&mut tx).await? {
                more.push(confirmation);
            }
        }
        tx.commit().await?;
        rest = more;
    }
    Ok(())
}

impl Confirmations {
    /// Deletes what waits for a device up to a place, and returns once that is durable.
    pub(super) async fn confirm(
        &self,
        db: &Db,
        user_id: &UserId,
        device_id: &DeviceId,
        until: Position,
    ) -> DbResult<()> {
        let (done, mut is_done) = oneshot::channel();
        self.waiting.lock().push(Confirmation::new(user_id, device_id, until, Some(done)));
        let _turn = self.turn.lock().await;
        if is_done.try_recv().is_ok() {
            return Ok(());
        }
        let mut all = mem::take(&mut *self.waiting.lock());
        // Once more, as whoever took it along may have failed.
        all.push(Confirmation::new(user_id, device_id, until, None));
        // On every node in one order, so that two that delete for the same devices don't wait for each other.
        all.sort_by(|one, other| {
            (&one.user_id, &one.device_id, one.until).cmp(&(&other.user_id, &other.device_id, other.until))
        });
        delete(db, &all).await?;
        for done in all.into_iter().filter_map(|confirmation| confirmation.done) {
            if done.send(()).is_err() {
                tracing::debug!("nobody waits for this confirmation any more");
            }
        }
        Ok(())
    }
}
