//! Somebody uploads the keys by which they vouch for their devices and for others.
//!
//! The first keys are taken as they come, and the same keys again. To replace any takes a password, because whoever can
//! do it can be that user to everybody. What a key that is replaced has signed goes with it, and with a master key those
//! that it has signed.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use std::collections::BTreeSet;

use ruma::{
    DeviceId, UserId, api::client::keys::upload_signing_keys::v3::Request, api::error::ErrorKind,
    encryption::CrossSigningKey as RumaKey, serde::Raw,
};

use super::{
    Keys,
    device_keys::StoredDeviceKeys,
    signed::{PublicKey, SignedJson, invalid_signature, read_public_key, signing_key_name, verifies},
    upload::device_list_changed,
};
use crate::{
    db::Tx,
    error::{Error, Result},
    people::account::{User, hold_account},
    store::{
        cross_signing::{self, CrossSigningKey, KeySignature, Usage},
        device, device_key,
    },
};

/// In bytes. A key that was signed by every device of somebody who has many.
const MAX_KEY: usize = 64 * 1024;
/// How much of that is signed, in bytes: it is shown with each answer. What clients sign has about 200.
const MAX_SIGNED: usize = 4 * 1024;
/// How many signatures of devices a master key may come with.
const MAX_SIGNATURES: usize = 500;

/// Cross-signing keys as somebody uploads them: each by itself is in order.
#[derive(Clone, Debug)]
pub(crate) struct NewCrossSigning {
    master: Option<NewKey>,
    self_signing: Option<NewKey>,
    user_signing: Option<NewKey>,
}

/// Whether a user has shown once more that it is them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    Missing,
    Given,
}

/// What came of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Nothing was changed: it takes a confirmation.
    Unconfirmed,
}

#[derive(Clone, Debug)]
struct NewKey {
    public_key: String,
    bytes: PublicKey,
    signed: SignedJson,
}

impl NewCrossSigning {
    /// `M_INVALID_PARAM` or `M_BAD_JSON` for what is no key of this user for this purpose.
    pub(crate) fn read(user_id: &UserId, request: &Request) -> Result<Self> {
        let read = |raw: Option<&Raw<RumaKey>>, usage| raw.map(|raw| NewKey::read(raw, user_id, usage)).transpose();
        Ok(Self {
            master: read(request.master_key.as_ref(), Usage::Master)?,
            self_signing: read(request.self_signing_key.as_ref(), Usage::SelfSigning)?,
            user_signing: read(request.user_signing_key.as_ref(), Usage::UserSigning)?,
        })
    }

    /// Those that there are.
    fn all(&self) -> impl Iterator<Item = (Usage, &NewKey)> {
        let all = [
            (Usage::Master, &self.master),
            (Usage::SelfSigning, &self.self_signing),
            (Usage::UserSigning, &self.user_signing),
        ];
        all.into_iter().filter_map(|(usage, key)| Some((usage, key.as_ref()?)))
    }
}

impl NewKey {
    fn read(raw: &Raw<RumaKey>, user_id: &UserId, usage: Usage) -> Result<Self> {
        let signed = SignedJson::read(raw.json(), MAX_KEY)?;
        if signed.text.len() > MAX_SIGNED {
            return Err(Error::invalid_param(format!("A key without its signatures has at most {MAX_SIGNED} bytes")));
        }
        if signed.text_of("user_id")? != user_id.as_str() {
            return Err(Error::invalid_param(format!("This is not a key of {user_id}")));
        }
        if signed.texts_of("usage")? != [usage.as_str()] {
            return Err(Error::invalid_param(format!("This key is to be used as {} and nothing else", usage.as_str())));
        }
        let keys = signed.keys()?;
        let (id, key) = match keys.iter().next() {
            Some((id, key)) if keys.len() == 1 => (*id, *key),
            _ => return Err(Error::invalid_param("A cross-signing key has exactly one public key")),
        };
        let bytes = read_public_key(key).filter(|_| id.strip_prefix("ed25519:") == Some(key));
        let message = "A cross-signing key is 32 bytes of ed25519 in unpadded base64, by which it is called as well";
        let bytes = bytes.ok_or_else(|| Error::invalid_param(message))?;
        Ok(Self { public_key: key.to_owned(), bytes, signed })
    }

    /// The signature of the master key on this one. `M_INVALID_SIGNATURE` where it is missing or wrong.
    fn check_signed_by(&self, user_id: &UserId, master: &str, bytes: &PublicKey) -> Result<String> {
        let signature = self.signed.signature_by(user_id.as_str(), &format!("ed25519:{master}"));
        let signature = signature.filter(|signature| verifies(&self.signed.text, bytes, signature));
        let message = "The self-signing and the user-signing key have to be signed by the master key";
        signature.map(ToOwned::to_owned).ok_or_else(|| invalid_signature(message))
    }
}

impl Keys {
    /// Keeps cross-signing keys, where that is confirmed or need not be.
    ///
    /// `M_MISSING_PARAM` without a master key, `M_INVALID_SIGNATURE` for keys that it has not signed, `M_INVALID_PARAM`
    /// for one key in two places, `M_FORBIDDEN` for a key that is called as a device is, and those of [`hold_account`].
    pub(crate) async fn upload_cross_signing(
        &self,
        user: &User,
        new: &NewCrossSigning,
        confirmation: Confirmation,
    ) -> Result<Outcome> {
        let user_id = &*user.user_id;
        let mut tx = self.0.db.begin().await?;
        hold_account(&mut tx, user).await?;
        // Nobody signs a key that is about to be replaced.
        cross_signing::lock_master(&mut tx, user_id).await?;
        let stored = cross_signing::list(&mut tx, user_id).await?;
        let of = |usage| stored.iter().find(|key| key.usage == usage);
        let old_master = of(Usage::Master);
        let replaces_master = match (&new.master, old_master) {
            (Some(new), Some(old)) => new.public_key != old.public_key,
            _ => false,
        };
        // What another master key has signed is new, also where it is called as before.
        let is_new =
            |usage, key: &NewKey| replaces_master || of(usage).is_none_or(|stored| stored.json != key.signed.text);
        let changed: Vec<(Usage, &NewKey)> = new.all().filter(|(usage, key)| is_new(*usage, key)).collect();
        if changed.is_empty() {
            // Asked of a user without any key, this is a request for nothing.
            return if old_master.is_some() { Ok(Outcome::Done) } else { Err(no_master_key()) };
        }
        let (master, bytes) = match (&new.master, old_master) {
            (Some(new), _) => (new.public_key.clone(), new.bytes),
            (None, Some(old)) => {
                let unreadable = || Error::broken(format!("the master key of {user_id} that is kept can't be read"));
                (old.public_key.clone(), read_public_key(&old.public_key).ok_or_else(unreadable)?)
            }
            (None, None) => return Err(no_master_key()),
        };
        let mut rows = Vec::with_capacity(changed.len());
        for (usage, key) in &changed {
            let signature = match usage {
                Usage::Master => None,
                _ => Some(key.check_signed_by(user_id, &master, &bytes)?),
            };
            let (public_key, json) = (key.public_key.clone(), key.signed.text.clone());
            rows.push(CrossSigningKey { usage: *usage, public_key, json, signature });
        }
        // Those that stay are told from the new ones as well.
        let is_replaced = |key: &CrossSigningKey| replaces_master || rows.iter().any(|row| row.usage == key.usage);
        let staying = stored.iter().filter(|key| !is_replaced(key)).map(|key| key.public_key.as_str());
        check_distinct(staying.chain(rows.iter().map(|row| row.public_key.as_str())))?;
        check_no_device(&mut tx, user_id, &rows).await?;
        if old_master.is_some() && confirmation == Confirmation::Missing {
            return Ok(Outcome::Unconfirmed);
        }

        let is_kept =
            |old: &CrossSigningKey| rows.iter().any(|row| row.public_key == old.public_key && row.json == old.json);
        let gone = stored.iter().filter(|key| is_replaced(key) && !is_kept(key));
        let gone: Vec<&str> = gone.map(|key| key.public_key.as_str()).collect();
        cross_signing::delete_signatures(&mut tx, user_id, &gone).await?;
        for old in stored.iter().filter(|key| is_replaced(key)) {
            cross_signing::delete(&mut tx, user_id, old.usage).await?;
        }
        for row in &rows {
            cross_signing::upsert(&mut tx, user_id, row).await?;
        }
        if let Some(master) = new.master.as_ref().filter(|_| rows.iter().any(|row| row.usage == Usage::Master)) {
            store_signatures_of_devices(&mut tx, user_id, master).await?;
        }
        self.0.log.commit(tx, vec![device_list_changed(user_id, None)]).await?;
        Ok(Outcome::Done)
    }
}

/// Keeps what the user's devices have signed of a master key that is uploaded. A device without keys, or that is not
/// there, has signed nothing. `M_INVALID_SIGNATURE` for what is wrong.
async fn store_signatures_of_devices(tx: &mut Tx, user_id: &UserId, master: &NewKey) -> Result<()> {
    let Some(signatures) = master.signed.signatures.get(user_id.as_str()) else { return Ok(()) };
    if signatures.len() > MAX_SIGNATURES {
        return Err(Error::invalid_param(format!("A key comes with at most {MAX_SIGNATURES} signatures")));
    }
    for (key_id, signature) in signatures {
        let Some(device_id) = signing_key_name(key_id).map(<&DeviceId>::from) else { continue };
        let Some(json) = device_key::find(tx, user_id, device_id).await? else { continue };
        let device = StoredDeviceKeys::read(&json, device_id)?;
        if !verifies(&master.signed.text, &device.ed25519, signature) {
            return Err(invalid_signature(format!("The master key was signed otherwise than {key_id} signs it")));
        }
        let signature = KeySignature {
            target_user_id: user_id.to_owned(),
            target: master.public_key.clone(),
            signer_user_id: user_id.to_owned(),
            signer_key_id: key_id.clone(),
            signature: signature.clone(),
        };
        cross_signing::insert_signature(tx, &signature).await?;
    }
    Ok(())
}

fn check_distinct<'a>(keys: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut known = BTreeSet::new();
    for key in keys {
        if !known.insert(key) {
            return Err(Error::invalid_param("The three cross-signing keys have to be different from each other"));
        }
    }
    Ok(())
}

/// Devices and cross-signing keys are called alike, and clients tell them by that.
async fn check_no_device(tx: &mut Tx, user_id: &UserId, keys: &[CrossSigningKey]) -> Result<()> {
    for key in keys {
        if device::find(tx, user_id, key.public_key.as_str().into()).await?.is_some() {
            return Err(Error::forbidden("One of the keys is called as one of your devices is: make another key"));
        }
    }
    Ok(())
}

fn no_master_key() -> Error {
    Error::refused(ErrorKind::MissingParam, "There is no master key: upload one with the others")
}
