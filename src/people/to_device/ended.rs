//! Removing what nobody asks for any more: requests of long ago, and what is left of devices that have ended.
//!
//! There may be hundreds of megabytes of it, and on SQLite nobody else writes meanwhile. So it goes in steps, each of which
//! stays done, and nobody waits for the last of them.

use std::time::Duration;

use super::ToDeviceMessages;
use crate::{error::Result, ground::clock::millis, store};

/// For how long a repeated request is recognised. Clients keep what they could not send over a restart.
pub(super) const REQUESTS_KEPT: Duration = Duration::from_hours(7 * 24);
/// How many rows are deleted in one transaction. The largest messages are 32 MiB then.
const DELETED_AT_ONCE: u32 = 500;
/// How many devices that have ended are looked at in one go.
const DEVICES_AT_ONCE: u32 = 1_000;

impl ToDeviceMessages {
    /// Forgets requests that nobody repeats any more. To be called now and then.
    pub(crate) async fn clear_expired(&self) -> Result<()> {
        let time = self.now() - millis(REQUESTS_KEPT);
        loop {
            let mut tx = self.0.db.begin().await?;
            let deleted = store::to_device::delete_some_requests_until(&mut tx, time, DELETED_AT_ONCE).await?;
            tx.commit().await?;
            if deleted < u64::from(DELETED_AT_ONCE) {
                return Ok(());
            }
        }
    }

    /// Removes what was sent to and by devices that have ended. To be called now and then. May be broken off.
    pub(crate) async fn clear_ended(&self) -> Result<()> {
        let all = store::to_device::list_ended(&mut self.0.db.read().await?, DEVICES_AT_ONCE).await?;
        for ended in all {
            loop {
                let mut tx = self.0.db.begin().await?;
                let has_more = store::to_device::delete_some_ended(&mut tx, &ended, DELETED_AT_ONCE).await?;
                tx.commit().await?;
                if !has_more {
                    break;
                }
            }
        }
        Ok(())
    }
}
