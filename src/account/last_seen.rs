//! When and from where each device was last seen: noted in memory, written now and then.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices>

use std::{collections::HashMap, net::IpAddr, sync::atomic::Ordering};

use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde_json::json;

use super::{Accounts, bearer::Bearer};
use crate::{error::Result, store::device};

/// A device is written at most once in so many milliseconds.
const INTERVAL: i64 = 60 * 1000;

/// More than this many devices don't wait to be written: the rest is noted with their next request.
const MAX_PENDING: usize = 20_000;

/// So many devices go into one statement.
const BATCH: usize = 500;

#[derive(Default)]
pub(super) struct LastSeen(Mutex<HashMap<(OwnedUserId, OwnedDeviceId), (i64, IpAddr)>>);

impl LastSeen {
    /// Notes that a device was here, for [`Accounts::flush_last_seen`] to write.
    pub(super) fn note(&self, bearer: &Bearer, now: i64, address: IpAddr) {
        if now.saturating_sub(bearer.noted_ts.load(Ordering::Relaxed)) < INTERVAL {
            return;
        }
        bearer.noted_ts.store(now, Ordering::Relaxed);
        let mut pending = self.0.lock();
        if pending.len() < MAX_PENDING {
            pending.insert((bearer.caller.user_id.clone(), bearer.caller.device_id.clone()), (now, address));
        }
    }
}

impl Accounts {
    /// Writes which devices were seen since the last time. To be called about once a minute, and at the end.
    pub(crate) async fn flush_last_seen(&self) -> Result<()> {
        let seen = std::mem::take(&mut *self.0.last_seen.0.lock());
        let seen: Vec<_> = seen
            .iter()
            .map(|((user_id, device_id), (ts, ip))| {
                json!({ "user_id": user_id, "device_id": device_id, "ts": ts, "ip": ip })
            })
            .collect();
        for batch in seen.chunks(BATCH) {
            let mut tx = self.0.db.begin().await?;
            device::set_last_seen(&mut tx, &json!(batch).to_string()).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
