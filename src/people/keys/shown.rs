//! What others are shown of a user's keys, as it is written into their answers.
//!
//! Each reader is shown the same, but for signatures by other users' user-signing keys: these are shown to nobody but
//! whose they are, because they would tell who knows whom. They are written into a master key for its reader, if they
//! are of what that key says.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>

use std::collections::BTreeMap;

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Serialize;

use super::signed::write_signed;
use crate::{
    error::{Error, Result},
    store::{
        cross_signing::{CrossSigningKey, MasterSignature, Usage},
        device_key::{ListedDevice, ListedKeys},
    },
};

/// What a device takes beside its name and its text, in bytes.
const DEVICE_BYTES: usize = 64;
/// What is set aside to write the text of a device, in bytes.
const DEVICE_TEXT: usize = 1_024;

/// All that there is of a user's keys.
#[derive(Debug, Default)]
pub(super) struct ShownKeys {
    /// In the order of their identifiers.
    pub(super) devices: Vec<ShownDevice>,
    pub(super) cross_signing: ShownCrossSigning,
    /// What all of it takes, about.
    pub(super) bytes: usize,
}

/// The keys of a device.
#[derive(Debug)]
pub(super) struct ShownDevice {
    pub(super) id: OwnedDeviceId,
    /// As an entry of an object: the identifier and the keys.
    pub(super) text: Box<[u8]>,
}

/// The keys by which a user vouches for their devices and for others.
#[derive(Debug, Default)]
pub(super) struct ShownCrossSigning {
    pub(super) master: Option<ShownMaster>,
    pub(super) self_signing: Option<Box<[u8]>>,
    /// Shown to the user alone.
    pub(super) user_signing: Option<Box<[u8]>>,
}

/// A master key with the signatures of its user's devices.
#[derive(Debug)]
pub(super) struct ShownMaster {
    text: Box<[u8]>,
    /// How many bytes of JSON are signed: all of the text, where there is no signature.
    signed: usize,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_display_name: Option<&'a str>,
}

/// The keys of a device with the signatures of its user's other keys: by which, and the signature.
type SignedKeys = (ListedKeys, Vec<(String, String)>);

/// The devices of everybody who is listed, also of those who have none.
pub(super) fn devices_of(listed: Vec<ListedDevice>) -> Result<BTreeMap<OwnedUserId, Vec<ShownDevice>>> {
    let mut devices: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, SignedKeys>> = BTreeMap::new();
    for ListedDevice { user_id, keys } in listed {
        // Without devices, too: the user is known, and a client need not ask again.
        let of_user = devices.entry(user_id).or_default();
        let Some(mut keys) = keys else { continue };
        let signed_by = keys.signed_by.take();
        let device = of_user.entry(keys.device_id.clone()).or_insert_with(|| (keys, Vec::new()));
        device.1.extend(signed_by);
    }
    let mut shown = BTreeMap::new();
    for (user_id, of_user) in devices {
        let of_user = of_user.into_iter().map(|(id, keys)| ShownDevice::new(&user_id, id, &keys));
        let of_user = of_user.collect::<Result<Vec<_>>>()?;
        shown.insert(user_id, of_user);
    }
    Ok(shown)
}

/// The cross-signing keys of those who have any. With each signature on a master key stands whose that is, and the key
/// that has signed it, which is of the same user.
pub(super) fn cross_signing_of(
    keys: Vec<(OwnedUserId, CrossSigningKey)>,
    on_masters: Vec<(OwnedUserId, String, String)>,
) -> Result<BTreeMap<OwnedUserId, ShownCrossSigning>> {
    let mut of_users: BTreeMap<OwnedUserId, Vec<CrossSigningKey>> = BTreeMap::new();
    for (user_id, key) in keys {
        of_users.entry(user_id).or_default().push(key);
    }
    let mut signatures: BTreeMap<OwnedUserId, BTreeMap<String, String>> = BTreeMap::new();
    for (user_id, key_id, signature) in on_masters {
        signatures.entry(user_id).or_default().insert(key_id, signature);
    }
    let mut shown = BTreeMap::new();
    for (user_id, keys) in of_users {
        let on_master = signatures.remove(&user_id).unwrap_or_default();
        let of_user = ShownCrossSigning::new(&user_id, &keys, &on_master)?;
        shown.insert(user_id, of_user);
    }
    Ok(shown)
}

impl ShownKeys {
    pub(super) fn new(devices: Vec<ShownDevice>, cross_signing: ShownCrossSigning) -> Self {
        let of_devices = devices.iter().map(|device| DEVICE_BYTES + device.id.as_str().len() + device.text.len());
        let bytes = of_devices.sum::<usize>() + cross_signing.bytes();
        Self { devices, cross_signing, bytes }
    }
}

impl ShownDevice {
    fn new(user_id: &UserId, id: OwnedDeviceId, (keys, signed_by): &SignedKeys) -> Result<Self> {
        let own_key_id = format!("ed25519:{id}");
        let mut signatures = BTreeMap::from([(own_key_id.as_str(), keys.signature.as_str())]);
        signatures.extend(signed_by.iter().map(|(key_id, signature)| (key_id.as_str(), signature.as_str())));
        let signatures = BTreeMap::from([(user_id.as_str(), signatures)]);
        let unsigned = Unsigned { device_display_name: keys.display_name.as_deref() };
        let mut text = Vec::with_capacity(DEVICE_TEXT);
        serde_json::to_writer(&mut text, id.as_str()).map_err(Error::broken)?;
        text.push(b':');
        write_signed(&mut text, &keys.json, &signatures, Some(&unsigned))?;
        Ok(Self { id, text: text.into_boxed_slice() })
    }
}

impl ShownCrossSigning {
    fn new(user_id: &UserId, keys: &[CrossSigningKey], on_master: &BTreeMap<String, String>) -> Result<Self> {
        let master = keys.iter().find(|key| key.usage == Usage::Master);
        let master_id = master.map(|key| format!("ed25519:{}", key.public_key));
        let mut shown = Self::default();
        for key in keys {
            let by_keys: BTreeMap<&str, &str> = match (key.usage, &master_id, &key.signature) {
                (Usage::Master, ..) => on_master.iter().map(|(id, made)| (id.as_str(), made.as_str())).collect(),
                (_, Some(master_id), Some(signature)) => BTreeMap::from([(master_id.as_str(), signature.as_str())]),
                _ => BTreeMap::new(),
            };
            let mut signatures = BTreeMap::new();
            if !by_keys.is_empty() {
                signatures.insert(user_id.as_str(), by_keys);
            }
            let mut text = Vec::new();
            write_signed(&mut text, &key.json, &signatures, None::<&Unsigned<'_>>)?;
            let text = text.into_boxed_slice();
            match key.usage {
                Usage::Master => shown.master = Some(ShownMaster { text, signed: key.json.len() }),
                Usage::SelfSigning => shown.self_signing = Some(text),
                Usage::UserSigning => shown.user_signing = Some(text),
            }
        }
        Ok(shown)
    }

    fn bytes(&self) -> usize {
        let master = self.master.as_ref().map_or(0, |master| master.text.len());
        let others = [&self.self_signing, &self.user_signing].into_iter().flatten();
        master + others.map(|text| text.len()).sum::<usize>()
    }
}

impl ShownMaster {
    /// Writes the key with the signatures of whoever reads it, as far as they are of this key.
    pub(super) fn write(&self, reader: &UserId, by_reader: &[MasterSignature], out: &mut Vec<u8>) -> Result<()> {
        let of_this = by_reader.iter().filter(|signature| self.says(&signature.json));
        let by_keys: BTreeMap<&str, &str> =
            of_this.map(|made| (made.signer_key_id.as_str(), made.signature.as_str())).collect();
        if by_keys.is_empty() {
            out.extend_from_slice(&self.text);
            return Ok(());
        }
        let is_signed = self.text.len() > self.signed;
        let end: &[u8] = if is_signed { b"}}" } else { b"}" };
        let begin: &[u8] = if is_signed { b"," } else { br#","signatures":{"# };
        out.extend_from_slice(self.text.strip_suffix(end).unwrap_or(&self.text));
        out.extend_from_slice(begin);
        serde_json::to_writer(&mut *out, reader.as_str()).map_err(Error::broken)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, &by_keys).map_err(Error::broken)?;
        out.extend_from_slice(b"}}");
        Ok(())
    }

    /// Whether this is the key of which these are the signed bytes. Another may have the same name, and say something
    /// else.
    fn says(&self, json: &str) -> bool {
        let open = json.strip_suffix('}').unwrap_or(json);
        json.len() == self.signed && self.text.starts_with(open.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::user;

    fn master(json: &str, signatures: &[(&str, &str)]) -> ShownMaster {
        let key = CrossSigningKey {
            usage: Usage::Master,
            public_key: "KEY".to_owned(),
            json: json.to_owned(),
            signature: None,
        };
        let on_master = signatures.iter().map(|(id, made)| ((*id).to_owned(), (*made).to_owned())).collect();
        ShownCrossSigning::new(&user("alice"), &[key], &on_master).unwrap().master.unwrap()
    }

    fn signature_of(json: &str) -> MasterSignature {
        MasterSignature { json: json.to_owned(), signer_key_id: "ed25519:B".to_owned(), signature: "b".to_owned() }
    }

    fn written(master: &ShownMaster, by_reader: &[MasterSignature]) -> Value {
        let mut text = Vec::new();
        master.write(&user("bob"), by_reader, &mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_reader_sees_their_own_signature_where_it_is_of_the_key() {
        let (alice, bob) = ("@alice:localhost", "@bob:localhost");
        let json = r#"{"a":{"b":"}}"}}"#;
        let (bare, signed) = (master(json, &[]), master(json, &[("ed25519:PHONE", "a")]));
        assert_eq!(written(&bare, &[]), json!({ "a": { "b": "}}" } }));
        let by_bob = json!({ "a": { "b": "}}" }, "signatures": { bob: { "ed25519:B": "b" } } });
        assert_eq!(written(&bare, &[signature_of(json)]), by_bob);
        let by_alice = json!({ "ed25519:PHONE": "a" });
        let alone = json!({ "a": { "b": "}}" }, "signatures": { alice: by_alice } });
        assert_eq!(written(&signed, &[]), alone);
        let by_both = json!({ "a": { "b": "}}" }, "signatures": { alice: by_alice, bob: { "ed25519:B": "b" } } });
        assert_eq!(written(&signed, &[signature_of(json)]), by_both);
        // The key was replaced, before or after it was remembered, by one that is called as it was.
        for other in [r#"{"a":{"b":"}}"},"c":1}"#, r#"{"a":{"b":"}"}}"#, r#"{"a":{"b":"x}"}}"#] {
            assert_eq!(written(&signed, &[signature_of(other)]), alone);
            assert_eq!(written(&signed, &[signature_of(other), signature_of(json)]), by_both);
        }
    }
}
