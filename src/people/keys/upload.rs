//! A device uploads its keys.
//!
//! All of an upload is stored or nothing. It can be repeated: what is there already is passed over, also if it was
//! claimed since, so that a key whose upload was answered too late for its client is not handed out twice.
//!
//! A device that comes with other identity keys than it had is another one under the old name: what it has uploaded
//! before is of no use to anybody.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    DeviceId, OwnedOneTimeKeyId, UserId, api::client::keys::upload_keys::v3::Request, encryption::OneTimeKey,
    serde::Raw,
};

use super::{
    Keys,
    device_keys::{DeviceKeys, StoredDeviceKeys},
    one_time::{self, Signer},
    signed::{PublicKey, read_public_key, verifies},
};
use crate::{
    db::{Conn, Tx},
    error::{Error, Result},
    event::fact::{DeviceListChange, Fact, KeyCountChange},
    people::account::{User, hold_account},
    store::{
        cross_signing::{self, KeySignature, Usage},
        device_key,
        one_time_key::{self, KeyCounts, NewKey},
    },
};

/// Of one algorithm and device.
const MAX_ONE_TIME_KEYS: i64 = 500;
/// Of one device.
const MAX_ALGORITHMS: usize = 10;
/// How many of the newest keys are remembered when they have been claimed: several uploads of any client.
const REMEMBERED: i64 = 200;
/// How often an upload is judged that others of the same device overtake.
const TRIES: usize = 3;
/// How many signatures are verified in a row: about a millisecond.
const AT_ONCE: usize = 16;

/// An upload of a device that was judged and may be stored.
pub(crate) struct JudgedKeys {
    device_keys: Option<DeviceKeys>,
    one_time_keys: Vec<NewKey>,
    fallback_keys: Vec<NewKey>,
    /// By which signatures were verified, if the device has such a key.
    ed25519: Option<PublicKey>,
}

impl Keys {
    /// Keeps the keys that a device uploads, and returns what it then has to hand out.
    ///
    /// Errors are those of [`Keys::read_upload`] and [`Keys::store_upload`], and `M_UNKNOWN_TOKEN` where the device has
    /// been logged out meanwhile.
    pub(crate) async fn upload(&self, user: &User, request: &Request) -> Result<KeyCounts> {
        let mut tries = 1;
        loop {
            match self.try_upload(user, request).await {
                Err(Error::Conflict) if tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    /// `Error::Conflict` where the device has uploaded another key by which it signs since the request was judged.
    async fn try_upload(&self, user: &User, request: &Request) -> Result<KeyCounts> {
        let User { user_id, device_id, .. } = user;
        let judged = self.read_upload(user_id, device_id, request).await?;
        let mut tx = self.0.db.begin().await?;
        hold_account(&mut tx, user).await?;
        let facts = self.store_upload(&mut tx, user_id, device_id, judged).await?;
        let counts = one_time_key::count(&mut tx, user_id, device_id).await?;
        if !facts.is_empty() {
            self.0.log.commit(tx, facts).await?;
        }
        Ok(counts)
    }

    /// Judges what a device uploads by itself and by the keys that the device has.
    ///
    /// `M_INVALID_PARAM` for keys that are none; further codes as [`DeviceKeys::read`] and [`one_time::read`] give them.
    pub(crate) async fn read_upload(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        request: &Request,
    ) -> Result<JudgedKeys> {
        let device_keys = request.device_keys.as_ref();
        let device_keys = device_keys.map(|raw| DeviceKeys::read(raw.json(), user_id, device_id)).transpose()?;
        let ed25519 = match &device_keys {
            Some(keys) => Some(keys.ed25519),
            None => find_ed25519(&mut self.0.db.read().await?, user_id, device_id).await?,
        };
        let signer = Signer { user_id, device_id, ed25519 };
        let one_time_keys = read_all(&request.one_time_keys, signer).await?;
        let fallback_keys = read_all(&request.fallback_keys, signer).await?;
        let mut algorithms = BTreeSet::new();
        if !fallback_keys.iter().all(|key| algorithms.insert(key.algorithm.as_str())) {
            return Err(Error::invalid_param("There is one fallback key for each algorithm"));
        }
        Ok(JudgedKeys { device_keys, one_time_keys, fallback_keys, ed25519 })
    }

    /// Stores what was judged, in a transaction that holds the account and the device, and returns the entries that belong
    /// to it: none where nothing is new.
    ///
    /// `M_INVALID_PARAM` for too many keys, or for one that is called as another of the device is.
    pub(crate) async fn store_upload(
        &self,
        tx: &mut Tx,
        user_id: &UserId,
        device_id: &DeviceId,
        judged: JudgedKeys,
    ) -> Result<Vec<Fact>> {
        debug_assert!(self.is_local(user_id), "nobody uploads keys for {user_id} here");
        let (mut is_other_list, mut is_other_count) = (false, false);
        if let Some(keys) = &judged.device_keys {
            (is_other_list, is_other_count) = store_device_keys(tx, user_id, device_id, keys).await?;
        } else if find_ed25519(tx, user_id, device_id).await? != judged.ed25519 {
            // Signatures were verified by the key of before.
            return Err(Error::Conflict);
        }
        is_other_count |= store_one_time_keys(tx, user_id, device_id, judged.one_time_keys).await?;
        is_other_count |= store_fallback_keys(tx, user_id, device_id, judged.fallback_keys).await?;
        let list = is_other_list.then(|| device_list_changed(user_id, Some(device_id)));
        let count = is_other_count.then(|| key_count_changed(user_id, device_id));
        Ok(list.into_iter().chain(count).collect())
    }
}

/// The entry by which others hear that a user's devices or keys are not what they were.
pub(super) fn device_list_changed(user_id: &UserId, device_id: Option<&DeviceId>) -> Fact {
    let (user_id, device_id) = (user_id.to_owned(), device_id.map(ToOwned::to_owned));
    Fact::DeviceList(DeviceListChange { user_id, device_id, seen_by: None })
}

/// The entry by which a device hears how many keys it has left.
pub(super) fn key_count_changed(user_id: &UserId, device_id: &DeviceId) -> Fact {
    Fact::KeyCount(KeyCountChange { user_id: user_id.to_owned(), device_id: device_id.to_owned() })
}

/// Verifying many signatures takes tens of milliseconds, in which others get their turn.
async fn read_all(keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>, signer: Signer<'_>) -> Result<Vec<NewKey>> {
    let mut read = Vec::with_capacity(keys.len());
    for (id, key) in keys {
        read.push(one_time::read(id.as_str(), key.json(), signer)?);
        if read.len().is_multiple_of(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    Ok(read)
}

/// The key by which a device signs, if it has uploaded any.
async fn find_ed25519(conn: &mut Conn, user_id: &UserId, device_id: &DeviceId) -> Result<Option<PublicKey>> {
    let json = device_key::find(conn, user_id, device_id).await?;
    Ok(json.map(|json| StoredDeviceKeys::read(&json, device_id)).transpose()?.map(|keys| keys.ed25519))
}

/// Keeps a device's identity keys. Whether they are new, and whether the device has lost the keys that it handed out
/// because of that.
async fn store_device_keys(
    tx: &mut Tx,
    user_id: &UserId,
    device_id: &DeviceId,
    keys: &DeviceKeys,
) -> Result<(bool, bool)> {
    let before = device_key::find(tx, user_id, device_id).await?;
    let is_same = before.as_deref() == Some(keys.signed.text.as_str());
    let mut has_lost_keys = false;
    if !is_same {
        let before = before.map(|before| StoredDeviceKeys::read(&before, device_id)).transpose()?;
        let is_same_device =
            before.as_ref().is_some_and(|before| before.signed.content.get("keys") == keys.signed.content.get("keys"));
        if is_same_device {
            cross_signing::delete_signatures_of_device(tx, user_id, device_id).await?;
        } else {
            cross_signing::delete_signatures(tx, user_id, &[device_id.as_str()]).await?;
            // Also those from before any identity keys: nobody could say whether this device had signed them.
            has_lost_keys = one_time_key::delete(tx, user_id, &[device_id.as_str()]).await?;
        }
        device_key::upsert(tx, user_id, device_id, &keys.signed.text, &keys.signature).await?;
    }
    let is_signed = store_own_signature(tx, user_id, device_id, keys).await?;
    Ok((!is_same || is_signed, has_lost_keys))
}

/// Keeps the signature of the user's self-signing key, where it comes with the device's keys and is right. Whether it is
/// new.
async fn store_own_signature(tx: &mut Tx, user_id: &UserId, device_id: &DeviceId, keys: &DeviceKeys) -> Result<bool> {
    // Most devices come with their own signature alone.
    if keys.signed.signatures.get(user_id.as_str()).is_none_or(|signatures| signatures.len() < 2) {
        return Ok(false);
    }
    let own = cross_signing::list(tx, user_id).await?;
    let Some(own) = own.iter().find(|key| key.usage == Usage::SelfSigning) else { return Ok(false) };
    let signer_key_id = format!("ed25519:{}", own.public_key);
    let Some(signature) = keys.signed.signature_by(user_id.as_str(), &signer_key_id) else { return Ok(false) };
    let is_right = read_public_key(&own.public_key).is_some_and(|key| verifies(&keys.signed.text, &key, signature));
    if !is_right {
        return Ok(false);
    }
    let signature = KeySignature {
        target_user_id: user_id.to_owned(),
        target: device_id.as_str().to_owned(),
        signer_user_id: user_id.to_owned(),
        signature: signature.to_owned(),
        signer_key_id,
    };
    Ok(cross_signing::insert_signature(tx, &signature).await?)
}

/// Keeps one-time keys behind those that are there. Whether there were any that are new.
async fn store_one_time_keys(
    tx: &mut Tx,
    user_id: &UserId,
    device_id: &DeviceId,
    mut keys: Vec<NewKey>,
) -> Result<bool> {
    if keys.is_empty() {
        return Ok(false);
    }
    let key_ids: Vec<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
    let there = one_time_key::list_by_id(tx, user_id, device_id, &key_ids).await?;
    let there: BTreeMap<(&str, &str), (&str, bool)> = there
        .iter()
        .map(|(key, claimed)| ((key.algorithm.as_str(), key.key_id.as_str()), (key.json.as_str(), *claimed)))
        .collect();
    let mut reused = Vec::new();
    let mut conflict = None;
    keys.retain(|key| match there.get(&(key.algorithm.as_str(), key.key_id.as_str())) {
        None => true,
        Some((json, _)) if *json == key.json => false,
        // It was handed out: whoever has it knows it by itself, and not by its name.
        Some((_, true)) => {
            reused.push(key.clone());
            true
        }
        Some((_, false)) => {
            conflict = Some(format!("{}:{}", key.algorithm, key.key_id));
            true
        }
    });
    if let Some(id) = conflict {
        return Err(Error::invalid_param(format!("There is another one-time key {id} already")));
    }
    for key in &reused {
        one_time_key::delete_claimed(tx, user_id, device_id, key).await?;
    }
    let mut held = one_time_key::list_held(tx, user_id, device_id).await?;
    let mut numbered = Vec::with_capacity(keys.len());
    for key in &keys {
        let held = held.entry(key.algorithm.clone()).or_default();
        held.newest += 1;
        held.unclaimed += 1;
        if held.unclaimed > MAX_ONE_TIME_KEYS {
            let message = format!("A device has at most {MAX_ONE_TIME_KEYS} one-time keys of {}", key.algorithm);
            return Err(Error::invalid_param(message));
        }
        numbered.push((held.newest, key));
    }
    check_algorithms(held.len())?;
    one_time_key::insert(tx, user_id, device_id, &numbered).await?;
    let algorithms: BTreeSet<&str> = keys.iter().map(|key| key.algorithm.as_str()).collect();
    for (algorithm, held) in held.iter().filter(|(algorithm, _)| algorithms.contains(algorithm.as_str())) {
        one_time_key::delete_old_claimed(tx, user_id, device_id, algorithm, held.newest - REMEMBERED).await?;
    }
    Ok(!keys.is_empty())
}

/// Keeps fallback keys in place of those of their algorithms. Whether any of them is new.
async fn store_fallback_keys(
    tx: &mut Tx,
    user_id: &UserId,
    device_id: &DeviceId,
    mut keys: Vec<NewKey>,
) -> Result<bool> {
    if keys.is_empty() {
        return Ok(false);
    }
    let mut algorithms: BTreeSet<String> =
        one_time_key::list_fallback_algorithms(tx, user_id, device_id).await?.into_iter().collect();
    algorithms.extend(keys.iter().map(|key| key.algorithm.clone()));
    check_algorithms(algorithms.len())?;
    let mut is_new = false;
    // In the order of their algorithms, as claims lock them, which is not that of their whole identifiers.
    keys.sort_unstable_by(|a, b| a.algorithm.cmp(&b.algorithm));
    for key in &keys {
        is_new |= one_time_key::upsert_fallback(tx, user_id, device_id, key).await?;
    }
    Ok(is_new)
}

fn check_algorithms(count: usize) -> Result<()> {
    if count > MAX_ALGORITHMS {
        return Err(Error::invalid_param(format!("A device has keys of at most {MAX_ALGORITHMS} algorithms")));
    }
    Ok(())
}
