//! Signed JSON of clients: read, compared and shown without ever being written anew.
//!
//! What is signed is everything but `signatures` and `unsigned`, as canonical JSON. It is kept as that text, so that a
//! signature that was good stays good.
//!
//! <https://spec.matrix.org/v1.19/appendices/#signing-json>

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonValue, SigningKeyAlgorithm,
    serde::{Base64, base64::Standard},
    signatures::verify_canonical_json_bytes,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{Error, Result},
    event::{Content, parse_content},
};

/// By whom, by which key, and the signature.
pub(super) type Signatures = BTreeMap<String, BTreeMap<String, String>>;

/// A public key of ed25519 or curve25519.
pub(super) type PublicKey = [u8; 32];

/// JSON that may be signed, taken apart.
#[derive(Clone, Debug)]
pub(super) struct SignedJson {
    /// What is signed.
    pub(super) content: Content,
    /// It as canonical JSON.
    pub(super) text: String,
    pub(super) signatures: Signatures,
}

impl SignedJson {
    /// `M_BAD_JSON` for what is no canonical JSON object or has signatures of another shape, `M_INVALID_PARAM` for what
    /// is larger than `limit`, in bytes.
    pub(super) fn read(raw: &RawValue, limit: usize) -> Result<Self> {
        if raw.get().len() > limit {
            return Err(Error::invalid_param(format!("A key has at most {limit} bytes")));
        }
        let content = parse_content(raw).map_err(|e| Error::bad_json(format!("A key can't be read: {e}")))?;
        Self::of(content)
    }

    /// Takes an object apart.
    pub(super) fn of(mut content: Content) -> Result<Self> {
        let signatures = match content.remove("signatures") {
            Some(signatures) => read_signatures(signatures)?,
            None => Signatures::new(),
        };
        content.remove("unsigned");
        let text = serde_json::to_string(&content).map_err(Error::broken)?;
        Ok(Self { content, text, signatures })
    }

    /// A field that has to be a text. `M_BAD_JSON` otherwise.
    pub(super) fn text_of(&self, field: &str) -> Result<&str> {
        let text = self.content.get(field).and_then(CanonicalJsonValue::as_str);
        text.ok_or_else(|| Error::bad_json(format!("A key has a text `{field}`")))
    }

    /// A field that has to be a list of texts. `M_BAD_JSON` otherwise.
    pub(super) fn texts_of(&self, field: &str) -> Result<Vec<&str>> {
        let values = self.content.get(field).and_then(CanonicalJsonValue::as_array);
        let texts = values.and_then(|values| values.iter().map(CanonicalJsonValue::as_str).collect());
        texts.ok_or_else(|| Error::bad_json(format!("A key has a list of texts `{field}`")))
    }

    /// The public keys in it, by their identifiers. `M_BAD_JSON` where these are no texts.
    pub(super) fn keys(&self) -> Result<BTreeMap<&str, &str>> {
        let keys = self.content.get("keys").and_then(CanonicalJsonValue::as_object);
        let keys = keys.ok_or_else(|| Error::bad_json("A key has an object `keys`"))?;
        let texts: Option<BTreeMap<_, _>> = keys.iter().map(|(id, key)| Some((id.as_str(), key.as_str()?))).collect();
        texts.ok_or_else(|| Error::bad_json("The values of `keys` are texts"))
    }

    /// What one key of a user has signed it with, whether or not that is right.
    pub(super) fn signature_by(&self, user_id: &str, key_id: &str) -> Option<&str> {
        self.signatures.get(user_id)?.get(key_id).map(String::as_str)
    }
}

fn read_signatures(signatures: CanonicalJsonValue) -> Result<Signatures> {
    serde_json::from_value(signatures.into())
        .map_err(|_malformed| Error::bad_json("`signatures` has texts by users and keys"))
}

/// A public key in unpadded base64: 32 bytes, written in the one way in which everybody writes them.
pub(super) fn read_public_key(text: &str) -> Option<PublicKey> {
    let key = Base64::<Standard, PublicKey>::parse(text).ok()?;
    (key.encode() == text).then(|| key.into_inner())
}

/// The device or the public key that the identifier of a signing key names. None for another algorithm, and for a name
/// with NUL: nothing is ever called so, and `PostgreSQL` takes no such text.
pub(super) fn signing_key_name(key_id: &str) -> Option<&str> {
    key_id.strip_prefix("ed25519:").filter(|name| !name.contains('\0'))
}

/// Whether this is the signature of a text by a key.
pub(super) fn verifies(text: &str, key: &PublicKey, signature: &str) -> bool {
    let Ok(parsed) = Base64::<Standard, [u8; 64]>::parse(signature) else { return false };
    let is_plain = parsed.encode() == signature;
    is_plain
        && verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, key, parsed.as_bytes(), text.as_bytes()).is_ok()
}

/// Writes the object that was taken apart, with these signatures and what the server has to say of it. `text` is an
/// object that is not empty.
pub(super) fn write_signed(
    out: &mut Vec<u8>,
    text: &str,
    signatures: &BTreeMap<&str, BTreeMap<&str, &str>>,
    unsigned: Option<&impl Serialize>,
) -> Result<()> {
    out.extend_from_slice(text.strip_suffix('}').unwrap_or(text).as_bytes());
    if !signatures.is_empty() {
        out.extend_from_slice(br#","signatures":"#);
        serde_json::to_writer(&mut *out, signatures).map_err(Error::broken)?;
    }
    if let Some(unsigned) = unsigned {
        out.extend_from_slice(br#","unsigned":"#);
        serde_json::to_writer(&mut *out, unsigned).map_err(Error::broken)?;
    }
    out.push(b'}');
    Ok(())
}

/// `M_INVALID_SIGNATURE`.
pub(super) fn invalid_signature(message: impl Into<String>) -> Error {
    Error::named("M_INVALID_SIGNATURE", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::people::keys::testing::Pair;

    fn read(value: &Value) -> Result<SignedJson> {
        SignedJson::read(&to_raw_value(value).unwrap(), 1_000)
    }

    #[test]
    fn what_was_taken_apart_is_put_together_again() {
        let key = json!({ "b": 1, "a": ["ä", "\n"], "signatures": { "@a:b": { "ed25519:C": "x" } }, "unsigned": 5 });
        let signed = read(&key).unwrap();
        assert_eq!(signed.text, "{\"a\":[\"ä\",\"\\n\"],\"b\":1}");
        let signatures = BTreeMap::from([("@a:b", BTreeMap::from([("ed25519:C", "x")]))]);
        let unsigned = json!({ "device_display_name": "\"" });
        let mut shown = Vec::new();
        write_signed(&mut shown, &signed.text, &signatures, Some(&unsigned)).unwrap();
        let mut expected = key;
        expected["unsigned"] = unsigned;
        assert_eq!(serde_json::from_slice::<Value>(&shown).unwrap(), expected);
    }

    #[test]
    fn what_is_no_signed_json_is_refused() {
        for odd in [json!([]), json!("x"), json!({ "a": 1.5 }), json!({ "signatures": [] })] {
            assert!(read(&odd).is_err(), "{odd}");
        }
        for odd in [json!({ "signatures": { "@a:b": 1 } }), json!({ "signatures": { "@a:b": { "ed25519:C": 1 } } })] {
            assert!(read(&odd).is_err(), "{odd}");
        }
        assert!(read(&json!({ "a": "x".repeat(1_000) })).is_err());
    }

    #[test]
    fn a_public_key_is_written_in_one_way() {
        let key = "SogYyrkTldLz0BXP+GYWs0qaYacUI0RleEqNT8J3riQ";
        assert!(read_public_key(key).is_some());
        let others = [format!("{key}="), format!(" {key}"), key.replace('+', "-"), key.replace("riQ", "riR")];
        for odd in others.iter().map(String::as_str).chain(["", "AAAA"]) {
            assert!(read_public_key(odd).is_none(), "{odd}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_but_what_was_signed_verifies(byte in 0_usize..64, flip in 1_u8..=255, text in "[ -~]{0,40}") {
            let pair = Pair::new("A");
            let text = json!({ "text": text }).to_string();
            let signature = pair.sign_text(&text);
            let (key, other) = (read_public_key(&pair.public_key()).unwrap(), Pair::new("B"));
            prop_assert!(verifies(&text, &key, &signature));
            prop_assert!(!verifies(&text, &read_public_key(&other.public_key()).unwrap(), &signature));
            prop_assert!(!verifies(&(text.clone() + " "), &key, &signature));
            let mut bytes = Base64::<Standard, [u8; 64]>::parse(&signature).unwrap().into_inner();
            bytes[byte] ^= flip;
            prop_assert!(!verifies(&text, &key, &Base64::<Standard, _>::new(bytes).encode()));
        }
    }
}
