//! Somebody uploads signatures, one for each key that they vouch for.
//!
//! Kept is what verifies, and between keys that vouch for each other: a device by its user's self-signing key, a master
//! key by its user's devices, somebody else's master key by the user-signing key. Whatever else stands beside these in
//! the uploaded object is left out, because clients send back what they were shown. Of each key all of it is kept or
//! nothing, and what is refused of one says nothing of the others.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::collections::BTreeMap;

use ruma::{DeviceId, OwnedUserId, UserId, api::client::keys::upload_signatures::v3::SignedKeys};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Keys,
    device_keys::StoredDeviceKeys,
    signed::{PublicKey, SignedJson, invalid_signature, read_public_key, signing_key_name, verifies},
    upload::device_list_changed,
};
use crate::{
    db::Tx,
    error::{Error, Result},
    event::fact::{DeviceListChange, Fact},
    people::account::{User, hold_account},
    store::{
        cross_signing::{self, CrossSigningKey, KeySignature, Usage},
        device_key,
    },
};

/// How many keys are signed in one request. Each is verified, which takes time.
const MAX_KEYS: usize = 500;
/// In bytes.
const MAX_KEY: usize = 64 * 1024;
/// How many signatures on one key are looked at.
const MAX_SIGNATURES: usize = 100;
/// How many keys are judged in a row.
const AT_ONCE: usize = 16;

/// Why a key's signatures were not kept, as the specification has it.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    errcode: String,
    error: String,
}

/// Failures by users and their keys.
pub(crate) type Failures = BTreeMap<OwnedUserId, BTreeMap<String, Failure>>;

/// Those who may sign, and what they sign.
struct Target {
    /// What is signed, as it is kept.
    text: String,
    signers: Signers,
}

/// By whose signatures a key becomes what its user says it is.
enum Signers {
    /// One cross-signing key.
    Key(CrossSigningKey),
    /// The signer's own devices.
    Devices,
}

impl Keys {
    /// Keeps signatures, and returns what of them was not.
    ///
    /// `M_INVALID_PARAM` for too many, and the errors of [`hold_account`].
    pub(crate) async fn upload_signatures(
        &self,
        user: &User,
        signed_keys: &BTreeMap<OwnedUserId, SignedKeys>,
    ) -> Result<Failures> {
        let keys = signed_keys.iter().flat_map(|(owner, keys)| keys.iter().map(move |(id, raw)| (owner, id, raw)));
        let keys: Vec<(&OwnedUserId, &str, &RawValue)> = keys.collect();
        if keys.len() > MAX_KEYS {
            return Err(Error::invalid_param(format!("At most {MAX_KEYS} keys are signed in one request")));
        }
        let mut failures = Failures::new();
        let mut facts: Vec<Fact> = Vec::new();
        let mut tx = self.0.db.begin().await?;
        hold_account(&mut tx, user).await?;
        let signer = &*user.user_id;
        let own = cross_signing::list(&mut tx, signer).await?;
        // In the order of owners and keys, in which rows are locked.
        for (number, (owner, id, raw)) in keys.into_iter().enumerate() {
            match store(&mut tx, signer, &own, (owner, id), raw).await {
                Ok(true) => facts.push(signed(signer, &own, (owner, id))),
                Ok(false) => {}
                Err(Error::Refused { kind, message }) => {
                    let failure = Failure { errcode: kind.errcode().to_string(), error: message };
                    failures.entry(owner.clone()).or_default().insert(id.to_owned(), failure);
                }
                Err(error) => return Err(error),
            }
            if number % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        if !facts.is_empty() {
            self.0.log.commit(tx, facts).await?;
        }
        Ok(failures)
    }
}

/// The entry by which those hear of a new signature who are shown it. One on somebody else's key is shown to the signer
/// alone, whose other devices have to ask for that key again.
fn signed(signer: &UserId, own: &[CrossSigningKey], (owner, id): (&UserId, &str)) -> Fact {
    if owner != signer {
        let seen_by = Some(signer.to_owned());
        return Fact::DeviceList(DeviceListChange { user_id: owner.to_owned(), device_id: None, seen_by });
    }
    let is_device = !own.iter().any(|key| key.public_key == id);
    device_list_changed(owner, is_device.then(|| id.into()))
}

/// Keeps the signatures on one key. Whether any of them is new.
///
/// Nothing is written before all of them are known to be right.
async fn store(
    tx: &mut Tx,
    signer: &UserId,
    own: &[CrossSigningKey],
    (owner, id): (&UserId, &str),
    raw: &RawValue,
) -> Result<bool> {
    let uploaded = SignedJson::read(raw, MAX_KEY)?;
    let target = find_target(tx, signer, own, (owner, id)).await?;
    let target = target.ok_or_else(|| Error::not_found(format!("{owner} has no device or master key {id}")))?;
    if uploaded.text != target.text {
        return Err(Error::invalid_param(format!("{id} is not what {owner} has uploaded: ask for it again")));
    }
    let signatures = uploaded.signatures.get(signer.as_str());
    let signatures = signatures.into_iter().flatten().take(MAX_SIGNATURES);
    let mut kept = Vec::new();
    for (key_id, signature) in signatures {
        let Some(key) = find_signing_key(tx, signer, &target.signers, key_id).await? else { continue };
        if !verifies(&target.text, &key, signature) {
            return Err(invalid_signature(format!("{id} was signed otherwise than {key_id} signs it")));
        }
        kept.push(KeySignature {
            target_user_id: owner.to_owned(),
            target: id.to_owned(),
            signer_user_id: signer.to_owned(),
            signer_key_id: key_id.clone(),
            signature: signature.clone(),
        });
    }
    if kept.is_empty() {
        return Err(invalid_signature(format!("{id} is signed by none of your keys that vouch for such a key")));
    }
    let mut is_new = false;
    for signature in &kept {
        is_new |= cross_signing::insert_signature(tx, signature).await?;
    }
    Ok(is_new)
}

/// The key of this name that `signer` may vouch for.
async fn find_target(
    tx: &mut Tx,
    signer: &UserId,
    own: &[CrossSigningKey],
    (owner, id): (&UserId, &str),
) -> Result<Option<Target>> {
    let of = |usage| own.iter().find(|key| key.usage == usage);
    if id.contains('\0') {
        // Nothing is called so, and `PostgreSQL` takes no such text.
        return Ok(None);
    }
    if owner != signer {
        // Its owner may be about to replace it.
        let master = cross_signing::lock_master(tx, owner).await?.filter(|key| key.public_key == id);
        let Some(master) = master else { return Ok(None) };
        let key = of(Usage::UserSigning).ok_or_else(|| invalid_signature("You have no user-signing key"))?;
        return Ok(Some(Target { text: master.json, signers: Signers::Key(key.clone()) }));
    }
    if let Some(master) = of(Usage::Master).filter(|key| key.public_key == id) {
        return Ok(Some(Target { text: master.json.clone(), signers: Signers::Devices }));
    }
    let Some(text) = device_key::find(tx, owner, id.into()).await? else { return Ok(None) };
    let key = of(Usage::SelfSigning).ok_or_else(|| invalid_signature("You have no self-signing key"))?;
    Ok(Some(Target { text, signers: Signers::Key(key.clone()) }))
}

/// The key of this identifier, if it is one that may have signed.
async fn find_signing_key(tx: &mut Tx, signer: &UserId, signers: &Signers, key_id: &str) -> Result<Option<PublicKey>> {
    let Some(name) = signing_key_name(key_id) else { return Ok(None) };
    match signers {
        Signers::Key(key) if key.public_key == name => Ok(read_public_key(name)),
        Signers::Key(_) => Ok(None),
        Signers::Devices => {
            let device_id = <&DeviceId>::from(name);
            let json = device_key::find(tx, signer, device_id).await?;
            json.map(|json| StoredDeviceKeys::read(&json, device_id))
                .transpose()
                .map(|keys| keys.map(|keys| keys.ed25519))
        }
    }
}
