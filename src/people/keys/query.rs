//! Somebody asks for the identity keys of others, and sees of their signatures what they may see.
//!
//! The number of statements does not depend on how many users are asked for at once. Signatures by other users'
//! user-signing keys are shown to nobody but these: they would tell who knows whom.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery> and
//! <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::signed::assemble;
use crate::{
    db::Tx,
    error::Result,
    store::{
        cross_signing::{self, CrossSigningKey, Usage},
        device_key::{self, ListedDevice, ListedKeys},
    },
};

/// An answer, written as the specification has it.
#[derive(Default, Serialize)]
pub(super) struct QueriedKeys {
    pub(super) failures: Map<String, Value>,
    pub(super) device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Box<RawValue>>>,
    pub(super) master_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    pub(super) self_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    pub(super) user_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_display_name: Option<&'a str>,
}

/// The keys of a device with the signatures of its user's other keys: by which, and the signature.
type SignedKeys = (ListedKeys, Vec<(String, String)>);

/// Who has signed a master key, by which key, and the signature, by whose master key it is.
type SignaturesOnMasters = BTreeMap<OwnedUserId, Vec<(OwnedUserId, String, String)>>;

/// Who is asked for, and which of their devices, or none for all of them.
pub(super) type Asked = BTreeMap<OwnedUserId, BTreeSet<OwnedDeviceId>>;

/// Everybody who has an account, and those of their devices that are asked for.
pub(super) async fn add_devices(
    snapshot: &mut Tx,
    users: &[&str],
    asked: &Asked,
    answer: &mut QueriedKeys,
) -> Result<()> {
    add_listed(device_key::list(snapshot, users).await?, asked, answer)
}

pub(super) fn add_listed(listed: Vec<ListedDevice>, asked: &Asked, answer: &mut QueriedKeys) -> Result<()> {
    let mut devices: BTreeMap<(OwnedUserId, OwnedDeviceId), SignedKeys> = BTreeMap::new();
    for ListedDevice { user_id, keys } in listed {
        // Without devices, too: the user is known, and a client need not ask again.
        answer.device_keys.entry(user_id.clone()).or_default();
        let Some(mut keys) = keys else { continue };
        let is_asked_for = |ids: &BTreeSet<OwnedDeviceId>| ids.is_empty() || ids.contains(&keys.device_id);
        if asked.get(&user_id).is_some_and(is_asked_for) {
            let signed_by = keys.signed_by.take();
            let key = (user_id, keys.device_id.clone());
            devices.entry(key).or_insert_with(|| (keys, Vec::new())).1.extend(signed_by);
        }
    }
    for ((user_id, device_id), (keys, signed_by)) in devices {
        let own_key_id = format!("ed25519:{device_id}");
        let mut signatures = BTreeMap::from([(own_key_id.as_str(), keys.signature.as_str())]);
        signatures.extend(signed_by.iter().map(|(key_id, signature)| (key_id.as_str(), signature.as_str())));
        let signatures = BTreeMap::from([(user_id.as_str(), signatures)]);
        let unsigned = Unsigned { device_display_name: keys.display_name.as_deref() };
        let shown = assemble(&keys.json, &signatures, Some(&unsigned))?;
        answer.device_keys.entry(user_id).or_default().insert(device_id, shown);
    }
    Ok(())
}

pub(super) async fn add_cross_signing(
    snapshot: &mut Tx,
    users: &[&str],
    reader: &UserId,
    answer: &mut QueriedKeys,
) -> Result<()> {
    let keys = cross_signing::list_visible(snapshot, users, reader).await?;
    let mut on_masters = SignaturesOnMasters::new();
    if keys.iter().any(|(_, key)| key.usage == Usage::Master) {
        for (owner, signer, key_id, signature) in
            cross_signing::list_visible_signatures(snapshot, users, reader).await?
        {
            on_masters.entry(owner).or_default().push((signer, key_id, signature));
        }
    }
    let masters: BTreeMap<OwnedUserId, String> = keys
        .iter()
        .filter(|(_, key)| key.usage == Usage::Master)
        .map(|(user_id, key)| (user_id.clone(), format!("ed25519:{}", key.public_key)))
        .collect();
    for (user_id, key) in keys {
        let master = masters.get(&user_id).map(String::as_str);
        let on_master = on_masters.get(&user_id).map_or(&[][..], Vec::as_slice);
        let shown = show(&user_id, &key, master, on_master)?;
        match key.usage {
            Usage::Master => answer.master_keys.insert(user_id, shown),
            Usage::SelfSigning => answer.self_signing_keys.insert(user_id, shown),
            Usage::UserSigning => answer.user_signing_keys.insert(user_id, shown),
        };
    }
    Ok(())
}

/// A cross-signing key with the signatures on it: of the master key, unless it is that itself.
fn show(
    user_id: &UserId,
    key: &CrossSigningKey,
    master: Option<&str>,
    on_master: &[(OwnedUserId, String, String)],
) -> Result<Box<RawValue>> {
    let mut signatures: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    if let (Some(master), Some(signature)) = (master, &key.signature) {
        signatures.entry(user_id.as_str()).or_default().insert(master, signature);
    }
    if key.usage == Usage::Master {
        for (signer, key_id, signature) in on_master {
            signatures.entry(signer.as_str()).or_default().insert(key_id, signature);
        }
    }
    assemble(&key.json, &signatures, None::<&Unsigned<'_>>)
}
