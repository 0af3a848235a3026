//! One-time and fallback keys, as clients upload them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>

use ruma::{CanonicalJsonValue, DeviceId, UserId};
use serde_json::value::RawValue;

use super::signed::{PublicKey, SignedJson, invalid_signature, read_public_key, verifies};
use crate::{
    error::{Error, Result},
    event::parse_content,
    store::one_time_key::NewKey,
};

/// In bytes.
const MAX_KEY: usize = 4 * 1024;
const MAX_ALGORITHM: usize = 100;
const MAX_KEY_ID: usize = 255;

/// The device that has to have signed a key.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) user_id: &'a UserId,
    pub(super) device_id: &'a DeviceId,
    /// None where it has no keys yet: then nobody can say what it has signed.
    pub(super) ed25519: Option<PublicKey>,
}

/// Reads a key that is called `algorithm:name`. Those of unknown algorithms are kept as they are.
///
/// `M_INVALID_PARAM` for what is no such key or too large, `M_BAD_JSON` for another shape, `M_INVALID_SIGNATURE` for what
/// the device has not signed.
pub(super) fn read(id: &str, raw: &RawValue, signer: Signer<'_>) -> Result<NewKey> {
    let (algorithm, key_id) = id.split_once(':').unwrap_or((id, ""));
    let is_name = |name: &str, most| !name.is_empty() && name.len() <= most && !name.contains(char::is_control);
    if !is_name(algorithm, MAX_ALGORITHM) || !is_name(key_id, MAX_KEY_ID) {
        return Err(Error::invalid_param("A key is called by its algorithm, a colon and a short name"));
    }
    if raw.get().len() > MAX_KEY {
        return Err(Error::invalid_param(format!("{id} has more than {MAX_KEY} bytes")));
    }
    let no_key = || Error::invalid_param(format!("{id} is not 32 bytes in unpadded base64"));
    let unreadable = |error: &dyn std::fmt::Display| Error::bad_json(format!("{id} can't be read: {error}"));
    let json = if algorithm == "signed_curve25519" {
        let content = parse_content(raw).map_err(|e| unreadable(&e))?;
        let json = serde_json::to_string(&content).map_err(Error::broken)?;
        let signed = SignedJson::of(content)?;
        read_public_key(signed.text_of("key")?).ok_or_else(no_key)?;
        check_signature(id, &signed, signer)?;
        json
    } else {
        let value: CanonicalJsonValue = serde_json::from_str(raw.get()).map_err(|e| unreadable(&e))?;
        match &value {
            CanonicalJsonValue::String(key) if algorithm == "curve25519" => {
                read_public_key(key).ok_or_else(no_key)?;
            }
            CanonicalJsonValue::String(_) => {}
            CanonicalJsonValue::Object(_) if algorithm != "curve25519" => {
                parse_content(raw).map_err(|e| unreadable(&e))?;
            }
            _ => return Err(Error::bad_json(format!("{id} is neither a text nor an object that is a key"))),
        }
        serde_json::to_string(&value).map_err(Error::broken)?
    };
    Ok(NewKey { algorithm: algorithm.to_owned(), key_id: key_id.to_owned(), json })
}

fn check_signature(id: &str, signed: &SignedJson, signer: Signer<'_>) -> Result<()> {
    let key_id = format!("ed25519:{}", signer.device_id);
    let signature = signed.signature_by(signer.user_id.as_str(), &key_id);
    let signature = signature.ok_or_else(|| invalid_signature(format!("{id} is not signed by {key_id}")))?;
    match signer.ed25519 {
        Some(ed25519) if !verifies(&signed.text, &ed25519, signature) => {
            Err(invalid_signature(format!("{id} was signed otherwise than {key_id} signs it")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::people::keys::testing::Pair;

    const ALICE: &str = "@alice:example.org";

    fn read_signed_by(id: &str, key: &Value, pair: Option<&Pair>) -> Result<NewKey> {
        let ed25519 = pair.and_then(|pair| read_public_key(&pair.public_key()));
        let signer = Signer { user_id: user_id!("@alice:example.org"), device_id: device_id!("PHONE"), ed25519 };
        read(id, &to_raw_value(key).unwrap(), signer)
    }

    #[test]
    fn a_signed_key_is_kept_whole() {
        let phone = Pair::new("PHONE");
        let key = phone.sign(ALICE, &json!({ "key": phone.public_key(), "fallback": true }));
        let kept = read_signed_by("signed_curve25519:AAAA", &key, Some(&phone)).unwrap();
        assert_eq!((kept.algorithm.as_str(), kept.key_id.as_str()), ("signed_curve25519", "AAAA"));
        assert_eq!(serde_json::from_str::<Value>(&kept.json).unwrap(), key);
        assert!(read_signed_by("signed_curve25519:AAAA", &key, None).is_ok(), "nobody knows the device's key yet");
    }

    #[test]
    fn a_key_that_its_device_has_not_signed_is_refused() {
        let (phone, other) = (Pair::new("PHONE"), Pair::new("PHONE"));
        let key = phone.one_time_key(ALICE);
        assert!(read_signed_by("signed_curve25519:A", &key, Some(&other)).is_err());
        assert!(read_signed_by("signed_curve25519:A", &phone.one_time_key("@bob:example.org"), Some(&phone)).is_err());
        let unsigned = json!({ "key": phone.public_key() });
        assert!(read_signed_by("signed_curve25519:A", &unsigned, None).is_err());
        let short = phone.sign(ALICE, &json!({ "key": "AAAA" }));
        assert!(read_signed_by("signed_curve25519:A", &short, Some(&phone)).is_err());
    }

    #[test]
    fn unknown_algorithms_are_kept_and_nothing_else_that_is_odd() {
        let key = Pair::new("").public_key();
        for (id, value) in [
            ("curve25519:A", json!(key)),
            ("org.example.new:A", json!("anything")),
            ("org.example.new:A:B", json!({ "of": ["any", "shape"] })),
        ] {
            assert!(read_signed_by(id, &value, None).is_ok(), "{id}");
        }
        for (id, value) in [
            ("curve25519:A", json!("AAAA")),
            ("curve25519:A", json!({ "key": key })),
            ("curve25519", json!(key)),
            (":A", json!(key)),
            ("new:", json!(key)),
            ("new:a\u{0}", json!(key)),
            ("new:A", json!(1)),
            ("new:A", json!({ "a": 0.5 })),
            ("new:A", json!("x".repeat(5_000))),
            ("signed_curve25519:A", json!(key)),
        ] {
            assert!(read_signed_by(id, &value, None).is_err(), "{id}: {value}");
        }
    }
}
