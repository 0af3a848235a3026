//! Devices and people with keys, for tests of this module.

use ruma::{
    CanonicalJsonObject,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, KeyPair as _, sign_json},
};
use serde_json::{Value, json};

/// A key pair of ed25519.
pub(crate) struct Pair(Ed25519KeyPair);

impl Pair {
    /// A new one. `name` is what its identifier has after `ed25519:`.
    pub(crate) fn new(name: &str) -> Self {
        Self(Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), name.to_owned()).unwrap())
    }

    /// A new one that is called by its public key, as cross-signing keys are.
    pub(crate) fn cross_signing() -> Self {
        let document = Ed25519KeyPair::generate();
        let name = Self(Ed25519KeyPair::from_der(&document, String::new()).unwrap()).public_key();
        Self(Ed25519KeyPair::from_der(&document, name).unwrap())
    }

    pub(crate) fn public_key(&self) -> String {
        Base64::<Standard, _>::new(self.0.public_key()).encode()
    }

    pub(crate) fn sign_text(&self, text: &str) -> String {
        self.0.sign(text.as_bytes()).base64()
    }

    /// With one more signature.
    pub(crate) fn sign(&self, user_id: &str, value: &Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(value.clone()).unwrap();
        sign_json(user_id, &self.0, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// What the device of this key uploads, which has a curve25519 key as well.
    pub(crate) fn device_keys(&self, user_id: &str) -> Value {
        let (device_id, key) = (self.0.version(), self.public_key());
        let unsigned = json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { format!("curve25519:{device_id}"): key, format!("ed25519:{device_id}"): key },
        });
        self.sign(user_id, &unsigned)
    }

    /// A one-time key of the device of this key.
    pub(crate) fn one_time_key(&self, user_id: &str) -> Value {
        self.sign(user_id, &json!({ "key": Pair::new("").public_key() }))
    }

    /// This as a cross-signing key, signed by another unless it is the master key.
    pub(crate) fn cross_signing_key(&self, user_id: &str, usage: &str, master: Option<&Self>) -> Value {
        let key = self.public_key();
        let unsigned = json!({ "user_id": user_id, "usage": [usage], "keys": { format!("ed25519:{key}"): key } });
        master.map_or(unsigned.clone(), |master| master.sign(user_id, &unsigned))
    }
}
