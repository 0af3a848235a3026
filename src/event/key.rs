//! The key that a server signs its events with.
//!
//! Signing is the most expensive thing that happens between a request and the log: AWS-LC does it in half
//! the time that ed25519-dalek takes, with which ruma verifies what others have signed.
//!
//! <https://spec.matrix.org/v1.19/appendices/#signing-json>

use std::fmt;

use aws_lc_rs::{
    digest,
    error::KeyRejected,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use ruma::{
    AnyKeyName, OwnedSigningKeyId, SigningKeyId,
    signatures::{KeyPair, Signature},
};

/// An ed25519 key with the identifier that others find it by.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    secret: digest::Digest,
    id: OwnedSigningKeyId<AnyKeyName>,
}

/// Why a key can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("{0} is not the identifier of a key: {1}")]
    Id(String, ruma::IdParseError),
    #[error("not an ed25519 key in PKCS#8: {0}")]
    Pair(#[from] KeyRejected),
}

impl SigningKey {
    /// A new private key as a PKCS#8 document.
    pub fn generate() -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        Ok(Ed25519KeyPair::generate()?.to_pkcs8()?.as_ref().to_vec())
    }

    /// Reads a PKCS#8 document. `id` is the algorithm and a name: `ed25519:a_1`.
    pub fn from_pkcs8(document: &[u8], id: &str) -> Result<Self, SigningKeyError> {
        let id = SigningKeyId::parse(id).map_err(|e| SigningKeyError::Id(id.to_owned(), e))?;
        let secret = digest::digest(&digest::SHA256, document);
        Ok(Self { pair: Ed25519KeyPair::from_pkcs8(document)?, secret, id })
    }

    pub fn id(&self) -> &SigningKeyId<AnyKeyName> {
        &self.id
    }

    /// A secret that whoever has the key has, and nobody else. Not the key itself.
    pub fn shared_secret(&self) -> &[u8] {
        self.secret.as_ref()
    }

    /// The 32 bytes that others verify with.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

impl KeyPair for SigningKey {
    fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.id.clone(), self.pair.sign(message).as_ref().to_vec())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ruma::signatures::Ed25519KeyPair as DalekKeyPair;

    use super::*;

    #[test]
    fn signs_as_ruma_does_with_keys_of_either_make() {
        for document in [SigningKey::generate().unwrap(), DalekKeyPair::generate().to_vec()] {
            let ours = SigningKey::from_pkcs8(&document, "ed25519:a_1").unwrap();
            let theirs = DalekKeyPair::from_der(&document, "a_1".to_owned()).unwrap();
            assert_eq!(ours.public_key(), theirs.public_key());
            assert_eq!(ours.sign(b"{}"), theirs.sign(b"{}"));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let document = SigningKey::generate().unwrap();
        assert!(matches!(SigningKey::from_pkcs8(&document, "nothing"), Err(SigningKeyError::Id(..))));
        assert!(matches!(SigningKey::from_pkcs8(b"nothing", "ed25519:a"), Err(SigningKeyError::Pair(_))));
    }

    #[test]
    fn the_private_key_does_not_reach_a_log() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { id: \"ed25519:a\", .. }");
    }
}
