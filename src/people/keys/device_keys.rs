//! What a device says of its identity keys.
//!
//! It is judged strictly: other servers take over what they get of it, and one that refuses it would refuse all that
//! comes with it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#device-keys>

use std::collections::BTreeMap;

use ruma::{DeviceId, UserId};
use serde_json::value::RawValue;

use super::signed::{PublicKey, SignedJson, invalid_signature, read_public_key, verifies};
use crate::error::{Error, Result};

/// In bytes. What clients upload has about 700, and keys that withstand quantum computers some thousands.
const MAX_DEVICE_KEYS: usize = 16 * 1024;
const MAX_ALGORITHMS: usize = 50;
const MAX_KEYS: usize = 50;
/// In bytes.
const MAX_NAME: usize = 255;

/// The keys of a device, as they are kept.
#[derive(Clone, Debug)]
pub(super) struct DeviceKeys {
    pub(super) signed: SignedJson,
    /// The device's own, which is right.
    pub(super) signature: String,
    pub(super) ed25519: PublicKey,
}

impl DeviceKeys {
    /// `M_BAD_JSON` for another shape, `M_INVALID_PARAM` for what is of another device or too large or is no key,
    /// `M_INVALID_SIGNATURE` for what the device has not signed.
    pub(super) fn read(raw: &RawValue, user_id: &UserId, device_id: &DeviceId) -> Result<Self> {
        let signed = SignedJson::read(raw, MAX_DEVICE_KEYS)?;
        if signed.text_of("user_id")? != user_id.as_str() || signed.text_of("device_id")? != device_id.as_str() {
            return Err(Error::invalid_param(format!("These are not the keys of {user_id} on {device_id}")));
        }
        let algorithms = signed.texts_of("algorithms")?;
        if algorithms.len() > MAX_ALGORITHMS || algorithms.iter().any(|algorithm| algorithm.len() > MAX_NAME) {
            let message = format!("A device has at most {MAX_ALGORITHMS} algorithms, each of at most {MAX_NAME} bytes");
            return Err(Error::invalid_param(message));
        }
        check_keys(&signed.keys()?, device_id)?;
        let key_id = format!("ed25519:{device_id}");
        let ed25519 = find_ed25519(&signed, device_id)
            .ok_or_else(|| Error::invalid_param(format!("A device has a key {key_id}")))?;
        let signature = signed.signature_by(user_id.as_str(), &key_id).unwrap_or_default().to_owned();
        if !verifies(&signed.text, &ed25519, &signature) {
            return Err(invalid_signature(format!("The keys are not signed by {key_id}, or not as they are here")));
        }
        Ok(Self { signed, signature, ed25519 })
    }
}

/// Those of algorithms that nobody knows yet are texts, of which no more is known.
fn check_keys(keys: &BTreeMap<&str, &str>, device_id: &DeviceId) -> Result<()> {
    if keys.len() > MAX_KEYS {
        return Err(Error::invalid_param(format!("A device has at most {MAX_KEYS} keys")));
    }
    for (id, key) in keys {
        let algorithm =
            id.split_once(':').filter(|(_, name)| *name == device_id.as_str()).map(|(algorithm, _)| algorithm);
        let algorithm = algorithm.filter(|algorithm| !algorithm.is_empty() && algorithm.len() <= MAX_NAME);
        let algorithm = algorithm
            .ok_or_else(|| Error::invalid_param(format!("Keys are called by algorithm and device, unlike {id}")))?;
        if matches!(algorithm, "ed25519" | "curve25519") && read_public_key(key).is_none() {
            return Err(Error::invalid_param(format!("{id} is not 32 bytes in unpadded base64")));
        }
    }
    Ok(())
}

/// The key by which a device signs.
fn find_ed25519(signed: &SignedJson, device_id: &DeviceId) -> Option<PublicKey> {
    let keys = signed.keys().ok()?;
    read_public_key(keys.get(format!("ed25519:{device_id}").as_str())?)
}

/// What is kept of a device's keys, taken apart again.
#[derive(Clone, Debug)]
pub(super) struct StoredDeviceKeys {
    pub(super) signed: SignedJson,
    pub(super) ed25519: PublicKey,
}

impl StoredDeviceKeys {
    /// From the text that is kept.
    pub(super) fn read(json: &str, device_id: &DeviceId) -> Result<Self> {
        let signed = SignedJson::of(serde_json::from_str(json).map_err(Error::broken)?)?;
        let ed25519 = find_ed25519(&signed, device_id);
        let ed25519 =
            ed25519.ok_or_else(|| Error::broken(format!("the keys of {device_id} that are kept lack one")))?;
        Ok(Self { signed, ed25519 })
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::people::keys::testing::Pair;

    const ALICE: &str = "@alice:example.org";

    fn read(keys: &Value) -> Result<DeviceKeys> {
        DeviceKeys::read(&to_raw_value(keys).unwrap(), user_id!("@alice:example.org"), device_id!("PHONE"))
    }

    #[test]
    fn keys_are_kept_as_they_were_signed() {
        let phone = Pair::new("PHONE");
        let mut uploaded = phone.device_keys(ALICE);
        uploaded["unsigned"] = json!({ "device_display_name": "what clients say here does not count" });
        let keys = read(&uploaded).unwrap();
        assert_eq!(uploaded["signatures"][ALICE]["ed25519:PHONE"], keys.signature);
        let stored = StoredDeviceKeys::read(&keys.signed.text, device_id!("PHONE")).unwrap();
        assert_eq!((&stored.signed.text, stored.ed25519), (&keys.signed.text, keys.ed25519));
        assert!(!keys.signed.text.contains("unsigned") && !keys.signed.text.contains("signatures"));
    }

    #[test]
    fn what_the_specification_does_not_know_is_kept_with_the_rest() {
        let phone = Pair::new("PHONE");
        let mut keys = phone.device_keys(ALICE);
        keys["dehydrated"] = true.into();
        keys["keys"]["kyber:PHONE"] = "anything".into();
        keys["algorithms"] = json!(["org.example.new"]);
        let kept = read(&phone.sign(ALICE, &keys)).unwrap();
        assert!(kept.signed.text.contains("dehydrated") && kept.signed.text.contains("kyber:PHONE"));
    }

    /// Trap: malformed device keys stall federation (CVE-2025-61672).
    #[test]
    fn malformed_keys_are_refused() {
        let phone = Pair::new("PHONE");
        let key = phone.public_key();
        let odd = [
            ("user_id", json!("@bob:example.org")),
            ("user_id", json!(1)),
            ("user_id", Value::Null),
            ("device_id", json!("LAPTOP")),
            ("algorithms", json!("m.olm")),
            ("algorithms", json!([1])),
            ("algorithms", json!(vec!["a"; 51])),
            ("algorithms", json!(["a".repeat(256)])),
            ("keys", json!([])),
            ("keys", json!({})),
            ("keys", json!({ "ed25519:PHONE": 1 })),
            ("keys", json!({ "ed25519:LAPTOP": key })),
            ("keys", json!({ "curve25519:PHONE": key })),
            ("keys", json!({ "ed25519:PHONE": format!("{key}=") })),
            ("keys", json!({ "ed25519:PHONE": key, "curve25519:PHONE": "AAAA" })),
            ("keys", json!({ "ed25519:PHONE": key, ":PHONE": "x" })),
            ("keys", json!({ "ed25519:PHONE": key, "nothing": "x" })),
            ("more", json!("x".repeat(16 * 1024))),
            ("more", json!(0.5)),
        ];
        for (field, value) in odd {
            let mut keys = phone.device_keys(ALICE);
            keys[field] = value.clone();
            // Numbers that are none of canonical JSON can't be signed.
            let keys = if value.is_f64() { keys } else { phone.sign(ALICE, &keys) };
            assert!(read(&keys).is_err(), "{field}: {value}");
        }
        for lacking in ["user_id", "device_id", "algorithms", "keys", "signatures"] {
            let mut keys = phone.device_keys(ALICE);
            keys.as_object_mut().unwrap().remove(lacking);
            assert!(read(&keys).is_err(), "{lacking}");
        }
        let mut changed = phone.device_keys(ALICE);
        changed["algorithms"] = json!([]);
        assert!(read(&changed).is_err(), "its signature is of something else");
        assert!(read(&Pair::new("PHONE").sign(ALICE, &phone.device_keys(ALICE))).is_err(), "another key has signed it");
    }
}
