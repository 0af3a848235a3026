//! What is shown of those who are asked for: from memory, and what is not there from the database, in the same few
//! statements however many users that are.
//!
//! Somebody may have hundreds of devices with large keys, and may be asked for with a thousand like them. So what keys
//! take is counted before they are read, and no more than [`PART`] is read at once. Who has more than that alone is not
//! remembered either.
//!
//! All that is shown of a user is of one state of the data: a key and its signatures fit each other. What a reader has
//! signed may be read a moment later, and is shown where it is of the key that is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedUserId, UserId};

use super::{
    Keys,
    shown::{ShownCrossSigning, ShownKeys, cross_signing_of, devices_of},
};
use crate::{
    db::Conn,
    error::Result,
    store::{
        cross_signing::{self, MasterSignature, Usage},
        device_key,
    },
};

/// How much is read at once, in bytes.
const PART: usize = 4 * 1024 * 1024;
/// How many users are remembered in a row: the log stands still meanwhile.
const REMEMBERED_AT_ONCE: usize = 64;

/// What there is of somebody who is asked for.
pub(super) enum Found {
    /// Nobody has such an account.
    Nobody,
    Keys(Arc<ShownKeys>),
    /// More than is read at once.
    Large,
}

/// What a reader has signed of the master keys of others.
pub(super) type SignedMasters = BTreeMap<OwnedUserId, Vec<MasterSignature>>;

impl Keys {
    /// What is shown of the first of these users, of so many as are not too much at once, and of one at least. After
    /// one who is too much alone there are no more.
    pub(super) async fn gather<'a>(&self, users: &'a [OwnedUserId]) -> Result<Vec<(&'a OwnedUserId, Found)>> {
        let (mut gathered, mut bytes, mut is_complete) = (Vec::new(), 0, true);
        for user_id in users {
            let known = self.0.cache.find(user_id);
            bytes += known.as_ref().map_or(0, |shown| shown.bytes);
            if bytes > PART && !gathered.is_empty() {
                break;
            }
            is_complete &= known.is_some();
            gathered.push((user_id, known.map_or(Found::Nobody, Found::Keys)));
        }
        if !is_complete {
            self.load_missing(&mut gathered).await?;
        }
        Ok(gathered)
    }

    /// Reads what is shown of those of whom nothing is known yet. Leaves out who would be too much with those before.
    async fn load_missing(&self, gathered: &mut Vec<(&OwnedUserId, Found)>) -> Result<()> {
        let mut snapshot = self.0.log.tail().snapshot(&self.0.db).await?;
        let missing = gathered.iter().filter(|(_, found)| matches!(found, Found::Nobody));
        let missing: Vec<&str> = missing.map(|(user_id, _)| user_id.as_str()).collect();
        let sizes = device_key::list_sizes(&mut snapshot, &missing).await?;
        let (mut fitting, mut bytes, mut to_load) = (0, 0, Vec::new());
        for (user_id, found) in gathered.iter_mut() {
            let user_id = *user_id;
            let size = match found {
                Found::Keys(shown) => shown.bytes,
                _ => sizes.get(user_id).map_or(0, |size| usize::try_from(*size).unwrap_or(usize::MAX)),
            };
            let is_large = size > PART && matches!(found, Found::Nobody);
            bytes += if is_large { 0 } else { size };
            if bytes > PART && fitting > 0 {
                break;
            }
            fitting += 1;
            if is_large {
                *found = Found::Large;
                break;
            }
            if matches!(found, Found::Nobody) {
                to_load.push(user_id.as_str());
            }
        }
        gathered.truncate(fitting);
        let loaded = if to_load.is_empty() { Vec::new() } else { load(&mut snapshot, &to_load).await? };
        let position = snapshot.close().await;
        for some in loaded.chunks(REMEMBERED_AT_ONCE) {
            // If so much was written meanwhile that nobody can say what has changed, they are read again the next time.
            self.0.log.tail().catch_up(position, |missed| self.0.cache.remember(some, missed));
        }
        let loaded: BTreeMap<OwnedUserId, Arc<ShownKeys>> = loaded.into_iter().collect();
        for (user_id, found) in gathered {
            if let Some(shown) = loaded.get(*user_id) {
                *found = Found::Keys(Arc::clone(shown));
            }
        }
        Ok(())
    }

    /// The cross-signing keys of somebody who has too much else. Nobody has too many of these.
    pub(super) async fn load_cross_signing(&self, user_id: &UserId) -> Result<ShownKeys> {
        let mut snapshot = self.0.db.snapshot().await?;
        let keys = load_cross_signing(&mut snapshot, &[user_id.as_str()]).await?.remove(user_id);
        Ok(ShownKeys::new(Vec::new(), keys.unwrap_or_default()))
    }

    /// What a reader has signed of these master keys: nobody else is shown that.
    pub(super) async fn find_signed(
        &self,
        reader: &UserId,
        gathered: &[(&OwnedUserId, Found)],
    ) -> Result<SignedMasters> {
        let has_master = |found: &Found| matches!(found, Found::Keys(shown) if shown.cross_signing.master.is_some());
        let others = gathered.iter().filter(|(user_id, found)| **user_id != reader && has_master(found));
        let others: Vec<&str> = others.map(|(user_id, _)| user_id.as_str()).collect();
        let mut signed = SignedMasters::new();
        if !others.is_empty() {
            let mut conn = self.0.db.read().await?;
            for (user_id, signature) in cross_signing::list_master_signatures(&mut conn, reader, &others).await? {
                signed.entry(user_id).or_default().push(signature);
            }
        }
        Ok(signed)
    }
}

/// What the database has of these users, but for those who have no account.
async fn load(snapshot: &mut Conn, users: &[&str]) -> Result<Vec<(OwnedUserId, Arc<ShownKeys>)>> {
    let devices = devices_of(device_key::list(snapshot, users).await?)?;
    let mut cross_signing = load_cross_signing(snapshot, users).await?;
    let loaded = devices.into_iter().map(|(user_id, devices)| {
        let cross_signing = cross_signing.remove(&user_id).unwrap_or_default();
        (user_id, Arc::new(ShownKeys::new(devices, cross_signing)))
    });
    Ok(loaded.collect())
}

async fn load_cross_signing(snapshot: &mut Conn, users: &[&str]) -> Result<BTreeMap<OwnedUserId, ShownCrossSigning>> {
    let keys = cross_signing::list_of_users(snapshot, users).await?;
    let mut on_masters = Vec::new();
    if keys.iter().any(|(_, key)| key.usage == Usage::Master) {
        on_masters = cross_signing::list_own_signatures(snapshot, users).await?;
    }
    cross_signing_of(keys, on_masters)
}
