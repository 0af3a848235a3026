//! A public key in the configuration: unpadded base64, as everything of Matrix writes it.
//!
//! It is passed on to whoever asks for it and never used here: the policy server is another server.
//!
//! <https://spec.matrix.org/v1.19/appendices/#unpadded-base64>

use ruma::serde::Base64;
use serde::{Deserialize, Serialize, Serializer};

/// An ed25519 key that others check signatures with. 32 bytes; whether they are a point of the curve is not asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicKey(Base64);

impl PublicKey {
    /// In the standard alphabet, whichever it was written in.
    pub fn base64(&self) -> &Base64 {
        &self.0
    }
}

impl TryFrom<String> for PublicKey {
    type Error = String;

    /// The alphabet of URLs is read too: the specification's own example is written in it.
    fn try_from(text: String) -> Result<Self, String> {
        let standard = text.trim().replace('-', "+").replace('_', "/");
        let key: Base64 = Base64::parse(standard).map_err(|error| error.to_string())?;
        match key.as_bytes().len() {
            32 => Ok(Self(key)),
            length => Err(format!("it holds {length} bytes, an ed25519 key has 32")),
        }
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
