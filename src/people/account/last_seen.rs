//! When and from where each device was last seen: noted in memory, written now and then.
//!
//! It is the only thing that a request writes about itself, so it is not written with the request. A crash loses the
//! last minute of it, which nobody relies on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices>

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde_json::json;

use crate::{
    db::{Db, DbResult},
    ground::{
        sizes::CacheSizes,
        weighed::{CacheWeight, Weighed},
    },
    store::device,
};

/// A device is written at most once in so many milliseconds.
const INTERVAL: i64 = 60 * 1000;

/// What a device takes beside its names, in bytes.
const DEVICE_BYTES: usize = 128;

/// So many devices go into one statement.
const BATCH: usize = 500;

/// What has not been written yet: of each device when and from where it was last seen, in milliseconds since the Unix
/// epoch.
pub(super) struct LastSeen {
    pending: Mutex<SeenDevices>,
    /// More than this does not wait to be written: the rest is noted with their next request.
    limit: u64,
}

#[derive(Default)]
struct SeenDevices {
    devices: HashMap<(OwnedUserId, OwnedDeviceId), (i64, IpAddr)>,
    bytes: u64,
}

impl Weighed for LastSeen {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "last_seen", bytes: self.pending.lock().bytes, limit: self.limit }
    }
}

impl LastSeen {
    pub(super) fn new(sizes: &CacheSizes) -> Self {
        Self { pending: Mutex::default(), limit: sizes.last_seen }
    }

    /// Notes that a device was here, for [`LastSeen::flush`] to write. `noted_ts`: when that was last done with its
    /// token.
    pub(super) fn note(
        &self,
        (user_id, device_id): (&UserId, &DeviceId),
        noted_ts: &AtomicI64,
        now: i64,
        address: IpAddr,
    ) {
        if now.saturating_sub(noted_ts.load(Ordering::Relaxed)) < INTERVAL {
            return;
        }
        let mut pending = self.pending.lock();
        let SeenDevices { devices, bytes } = &mut *pending;
        match devices.entry((user_id.to_owned(), device_id.to_owned())) {
            Entry::Occupied(mut seen) => drop(seen.insert((now, address))),
            Entry::Vacant(_) if *bytes >= self.limit => return,
            Entry::Vacant(new) => {
                new.insert((now, address));
                *bytes += (DEVICE_BYTES + user_id.as_str().len() + device_id.as_str().len()) as u64;
            }
        }
        noted_ts.store(now, Ordering::Relaxed);
    }

    /// Writes which devices were seen since the last time.
    pub(super) async fn flush(&self, db: &Db) -> DbResult<()> {
        let seen = std::mem::take(&mut *self.pending.lock()).devices;
        let seen: Vec<_> = seen
            .iter()
            .map(|((user_id, device_id), (ts, ip))| {
                json!({ "user_id": user_id, "device_id": device_id, "ts": ts, "ip": ip })
            })
            .collect();
        for batch in seen.chunks(BATCH) {
            let mut tx = db.begin().await?;
            device::set_last_seen(&mut tx, &json!(batch).to_string()).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
