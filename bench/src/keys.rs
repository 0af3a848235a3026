//! Devices and users with keys, really signed: servers verify what they are given.
//!
//! Everything is written as canonical JSON at once, because that is what is signed
//! (<https://spec.matrix.org/v1.19/appendices/#signing-json>); what stands in it needs no escaping. Of the curve25519
//! keys only the shape is right, since nobody encrypts with them.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::{Client, User};

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";
const UPLOAD_CROSS_SIGNING: &str = "/_matrix/client/v3/keys/device_signing/upload";
const UPLOAD_SIGNATURES: &str = "/_matrix/client/v3/keys/signatures/upload";
/// One-time keys in one upload.
const AT_ONCE: usize = 100;

/// One-time keys are called by their number, which is unique in the process.
static ONE_TIME_KEY: AtomicU64 = AtomicU64::new(0);

/// A device whose identity keys are at the server.
#[derive(Debug)]
pub(crate) struct Device {
    user: User,
    key: SigningKey,
    /// Its keys as they are signed.
    keys: String,
}

impl Device {
    /// Makes keys for the device of this client and uploads them.
    pub(crate) async fn upload(client: &mut Client, user: &User) -> Result<Self> {
        let key = SigningKey::generate()?;
        let (user_id, device_id, public) = (&user.id, &user.device_id, &key.public);
        let keys = format!(
            r#"{{"algorithms":["m.olm.v1.curve25519-aes-sha2","m.megolm.v1.aes-sha2"],"device_id":"{device_id}","keys":{{"curve25519:{device_id}":"{public}","ed25519:{device_id}":"{public}"}},"user_id":"{user_id}"}}"#
        );
        let signed = key.signed(&keys, user_id, device_id)?;
        client.call(&Method::POST, UPLOAD, format!(r#"{{"device_keys":{signed}}}"#).into()).await?;
        Ok(Self { user: user.clone(), key, keys })
    }

    /// Uploads so many one-time keys, whose names no two devices have.
    pub(crate) async fn add_one_time_keys(&self, client: &mut Client, count: usize) -> Result<()> {
        for first in (0..count).step_by(AT_ONCE) {
            let mut keys = Vec::with_capacity(AT_ONCE);
            for _ in first..count.min(first + AT_ONCE) {
                let number = ONE_TIME_KEY.fetch_add(1, Ordering::Relaxed);
                let key = format!(r#"{{"key":"{}"}}"#, curve25519(number));
                let signed = self.key.signed(&key, &self.user.id, &self.user.device_id)?;
                keys.push(format!(r#""signed_curve25519:{number}":{signed}"#));
            }
            let body = format!(r#"{{"one_time_keys":{{{}}}}}"#, keys.join(","));
            client.call(&Method::POST, UPLOAD, body.into()).await?;
        }
        Ok(())
    }
}

/// Makes cross-signing keys for a user who has none, and signs all of the user's devices.
pub(crate) async fn cross_sign(client: &mut Client, devices: &[Device]) -> Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        failures: Map<String, Value>,
    }
    let user_id = &devices.first().context("a user has a device")?.user.id;
    let (master, own, others) = (SigningKey::generate()?, SigningKey::generate()?, SigningKey::generate()?);
    let unsigned = |key: &SigningKey, usage: &str| {
        let public = &key.public;
        format!(r#"{{"keys":{{"ed25519:{public}":"{public}"}},"usage":["{usage}"],"user_id":"{user_id}"}}"#)
    };
    let master_key = unsigned(&master, "master");
    let self_signing_key = master.signed(&unsigned(&own, "self_signing"), user_id, &master.public)?;
    let user_signing_key = master.signed(&unsigned(&others, "user_signing"), user_id, &master.public)?;
    let body = format!(
        r#"{{"master_key":{master_key},"self_signing_key":{self_signing_key},"user_signing_key":{user_signing_key}}}"#
    );
    client.call(&Method::POST, UPLOAD_CROSS_SIGNING, body.into()).await?;

    let mut signed = Vec::with_capacity(devices.len());
    for device in devices {
        let keys = own.signed(&device.keys, user_id, &own.public)?;
        signed.push(format!(r#""{}":{keys}"#, device.user.device_id));
    }
    let body = format!(r#"{{"{user_id}":{{{}}}}}"#, signed.join(","));
    let answer = client.call(&Method::POST, UPLOAD_SIGNATURES, body.into()).await?;
    let answer: Answer = serde_json::from_slice(&answer).context("unexpected JSON in answer to signatures")?;
    if !answer.failures.is_empty() {
        bail!("the server did not take the signatures of {user_id}");
    }
    Ok(())
}

/// A key of ed25519.
#[derive(Debug)]
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    /// In unpadded base64.
    pub(crate) public: String,
}

impl SigningKey {
    pub(crate) fn generate() -> Result<Self> {
        let pair = Ed25519KeyPair::generate().ok().context("no key could be made")?;
        let public = STANDARD_NO_PAD.encode(pair.public_key());
        Ok(Self { pair, public })
    }

    /// A signature in unpadded base64.
    pub(crate) fn sign(&self, bytes: &[u8]) -> String {
        STANDARD_NO_PAD.encode(self.pair.sign(bytes))
    }

    /// A JSON object with a signature by this key, which is called `name` here.
    fn signed(&self, object: &str, user_id: &str, name: &str) -> Result<String> {
        let signature = self.sign(object.as_bytes());
        let fields = object.strip_suffix('}').context("only an object can be signed")?;
        Ok(format!(r#"{fields},"signatures":{{"{user_id}":{{"ed25519:{name}":"{signature}"}}}}}}"#))
    }
}

/// 32 bytes that differ from those of every other number.
fn curve25519(number: u64) -> String {
    STANDARD_NO_PAD.encode([number.to_le_bytes(); 4].as_flattened())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_signature_is_of_what_stands_beside_it() {
        let key = SigningKey::generate().unwrap();
        let signed: Value = serde_json::from_str(&key.signed(r#"{"key":"x"}"#, "@a:b", "DEVICE").unwrap()).unwrap();
        let signature =
            STANDARD_NO_PAD.decode(signed["signatures"]["@a:b"]["ed25519:DEVICE"].as_str().unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, STANDARD_NO_PAD.decode(&key.public).unwrap());
        public.verify(br#"{"key":"x"}"#, &signature).unwrap();
        assert_eq!(signed["key"], "x");
    }

    #[test]
    fn one_time_keys_have_the_length_of_keys() {
        assert_eq!(STANDARD_NO_PAD.decode(curve25519(7)).unwrap().len(), 32);
        assert_ne!(curve25519(7), curve25519(8));
    }
}
