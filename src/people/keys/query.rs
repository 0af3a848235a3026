//! Somebody asks for the identity keys of others, and sees of their signatures what they may see.
//!
//! The number of statements does not depend on how many users are asked for, up to [`TOGETHER`]. Signatures by other
//! users' user-signing keys are shown to nobody but these: they would tell who knows whom.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery> and
//! <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>

use std::collections::BTreeMap;

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::{Keys, signed::assemble};
use crate::{
    db::Tx,
    error::Result,
    store::{
        cross_signing::{self, CrossSigningKey, Usage},
        device_key::{self, ListedDevice, ListedKeys},
    },
};

/// How many users are read by one set of statements.
const TOGETHER: usize = 1_000;

/// An answer, written as the specification has it.
#[derive(Default, Serialize)]
pub(crate) struct QueriedKeys {
    failures: Map<String, Value>,
    device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Box<RawValue>>>,
    master_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    self_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    user_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
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

impl Keys {
    /// The keys of these users, each with the devices that are asked for, or none for all of them.
    ///
    /// Whoever has no account is left out. Servers of remote users are among the failures.
    pub(crate) async fn query(
        &self,
        reader: &UserId,
        asked: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<QueriedKeys> {
        let mut answer = QueriedKeys { failures: self.failures(asked.keys()), ..QueriedKeys::default() };
        let local: Vec<&str> = asked.keys().filter(|user| self.is_local(user)).map(|user| user.as_str()).collect();
        for users in local.chunks(TOGETHER) {
            // One state of the data: a key and its signatures fit each other.
            let mut snapshot = self.0.db.snapshot().await?;
            add_devices(&mut snapshot, users, asked, &mut answer).await?;
            add_cross_signing(&mut snapshot, users, reader, &mut answer).await?;
        }
        Ok(answer)
    }
}

async fn add_devices(
    snapshot: &mut Tx,
    users: &[&str],
    asked: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    answer: &mut QueriedKeys,
) -> Result<()> {
    let mut devices: BTreeMap<(OwnedUserId, OwnedDeviceId), SignedKeys> = BTreeMap::new();
    for ListedDevice { user_id, keys } in device_key::list(snapshot, users).await? {
        // Without devices, too: the user is known, and a client need not ask again.
        answer.device_keys.entry(user_id.clone()).or_default();
        let Some(mut keys) = keys else { continue };
        let is_asked_for = |ids: &Vec<OwnedDeviceId>| ids.is_empty() || ids.contains(&keys.device_id);
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

async fn add_cross_signing(snapshot: &mut Tx, users: &[&str], reader: &UserId, answer: &mut QueriedKeys) -> Result<()> {
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
