//! What a server says of its keys: read, and believed only as far as the server itself has signed it.
//!
//! One that is handed on by a notary has the server's signatures as well, and the notary's, which is checked apart: the
//! server's own proves no more than that whoever wrote it has the keys that stand in it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, ServerSigningKeyId, SigningKeyAlgorithm,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet, VerificationError, verify_json},
};
use serde_json::value::RawValue;

use crate::{ground::clock::millis, store::server_key::NewServerKey};

/// In bytes.
const MAX_LENGTH: usize = 64 * 1024;
/// How many keys one server has, good and old ones.
const MAX_KEYS: usize = 100;
/// Of a key of ed25519, in bytes.
const KEY_LENGTH: usize = 32;
/// Nothing that a server says of its keys is believed for longer.
const LONGEST: Duration = Duration::from_hours(7 * 24);

/// What a server has published of its keys.
#[derive(Clone, Debug)]
pub(super) struct KeyDocument {
    server_name: OwnedServerName,
    keys: Vec<DocumentKey>,
    /// With all its signatures.
    object: CanonicalJsonObject,
    /// With the server's own signatures alone.
    json: String,
}

#[derive(Clone, Debug)]
struct DocumentKey {
    key_id: String,
    public_key: Base64,
    expired: bool,
    /// In milliseconds since the Unix epoch.
    valid_until: i64,
}

/// What a server says of the keys that it signs with.
#[derive(Clone, Debug)]
pub(crate) struct PublishedKeys {
    pub(crate) server_name: OwnedServerName,
    /// By their identifiers, in unpadded base64.
    pub(crate) keys: BTreeMap<String, String>,
    /// In milliseconds since the Unix epoch.
    pub(crate) valid_until: i64,
}

/// Why some JSON says nothing of a server's keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("it is {0} bytes long")]
    TooLong(usize),
    #[error("it has more than 100 keys")]
    TooMany,
    #[error("it can't be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its `{0}` is missing or malformed")]
    Field(&'static str),
    #[error("{0} has not signed it")]
    Unsigned(OwnedServerName),
    #[error("a signature is wrong: {0}")]
    Signature(#[from] VerificationError),
}

impl KeyDocument {
    /// Reads a document that has come at this time (milliseconds since the Unix epoch), and checks that the server has
    /// signed it with the keys that it says it signs with.
    pub(super) fn read(json: &RawValue, now: i64) -> Result<Self, DocumentError> {
        let text = json.get();
        if text.len() > MAX_LENGTH {
            return Err(DocumentError::TooLong(text.len()));
        }
        let object: CanonicalJsonObject = serde_json::from_str(text)?;
        let server_name = object.get("server_name").and_then(CanonicalJsonValue::as_str);
        let server_name = server_name.and_then(|name| ServerName::parse(name).ok());
        let server_name = server_name.ok_or(DocumentError::Field("server_name"))?;
        let latest = now.saturating_add(millis(LONGEST));
        let valid_until = integer(&object, "valid_until_ts").ok_or(DocumentError::Field("valid_until_ts"))?.min(latest);
        let current = object.get("verify_keys").and_then(CanonicalJsonValue::as_object);
        let current = current.ok_or(DocumentError::Field("verify_keys"))?;
        let old = object.get("old_verify_keys").and_then(CanonicalJsonValue::as_object);
        if current.len().saturating_add(old.map_or(0, CanonicalJsonObject::len)) > MAX_KEYS {
            return Err(DocumentError::TooMany);
        }
        let mut keys: Vec<_> = current.iter().filter_map(|(id, key)| current_key(id, key, valid_until)).collect();
        // What is old is not good for anything that is made from now on, whatever is said of it.
        let old = old.into_iter().flatten().filter_map(|(id, key)| old_key(id, key, now.saturating_sub(1)));
        let old: Vec<_> = old.filter(|old| !keys.iter().any(|key| key.key_id == old.key_id)).collect();
        keys.extend(old);
        let json = serde_json::to_string(&signed_by(&object, &server_name)?)?;
        let document = Self { server_name, keys, object, json };
        let own = document.keys.iter().filter(|key| !key.expired);
        let own = own.map(|key| (key.key_id.clone(), key.public_key.clone())).collect();
        document.check_signed_by(&document.server_name, own)?;
        Ok(document)
    }

    pub(super) fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The keys as the database takes them.
    pub(super) fn new_keys(&self) -> impl Iterator<Item = NewServerKey<'_>> {
        self.keys.iter().map(|key| NewServerKey {
            server_name: &self.server_name,
            key_id: &key.key_id,
            public_key: key.public_key.encode(),
            expired: key.expired,
            valid_until: key.valid_until,
            document: &self.json,
        })
    }

    /// With which keys somebody says that they have signed it.
    pub(super) fn key_ids_of(&self, server: &ServerName) -> impl Iterator<Item = &str> {
        let signatures = self.object.get("signatures").and_then(CanonicalJsonValue::as_object);
        let signed = signatures.and_then(|all| all.get(server.as_str())).and_then(CanonicalJsonValue::as_object);
        signed.into_iter().flat_map(|signed| signed.keys().map(String::as_str))
    }

    /// Whether somebody has signed it with one of these keys. Signatures by other keys are ignored.
    pub(super) fn check_signed_by(&self, server: &ServerName, keys: PublicKeySet) -> Result<(), DocumentError> {
        let object = signed_by(&self.object, server)?;
        let keys: PublicKeyMap = [(server.to_string(), keys)].into();
        Ok(verify_json(&keys, &object)?)
    }
}

/// The keys of a document that has come at this time (milliseconds since the Unix epoch), or what is wrong with it. For who
/// only looks at them.
pub(crate) fn read_published(json: &RawValue, now: i64) -> Result<PublishedKeys, String> {
    let document = KeyDocument::read(json, now).map_err(|error| error.to_string())?;
    let current = document.keys.iter().filter(|key| !key.expired);
    Ok(PublishedKeys {
        server_name: document.server_name.clone(),
        valid_until: current.clone().map(|key| key.valid_until).max().unwrap_or(now),
        keys: current.map(|key| (key.key_id.clone(), key.public_key.encode())).collect(),
    })
}

/// The object with no signatures but those of one server. It must have some.
fn signed_by(object: &CanonicalJsonObject, server: &ServerName) -> Result<CanonicalJsonObject, DocumentError> {
    let signatures = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let signed = signatures.and_then(|all| all.get(server.as_str()));
    let signed = signed.ok_or_else(|| DocumentError::Unsigned(server.to_owned()))?.clone();
    let mut object = object.clone();
    let signatures = CanonicalJsonObject::from([(server.to_string(), signed)]);
    object.insert("signatures".to_owned(), CanonicalJsonValue::Object(signatures));
    Ok(object)
}

fn current_key(key_id: &str, key: &CanonicalJsonValue, valid_until: i64) -> Option<DocumentKey> {
    let (key_id, public_key) = read_key(key_id, key)?;
    Some(DocumentKey { key_id, public_key, expired: false, valid_until })
}

fn old_key(key_id: &str, key: &CanonicalJsonValue, latest: i64) -> Option<DocumentKey> {
    let expired_ts = integer(key.as_object()?, "expired_ts")?;
    let (key_id, public_key) = read_key(key_id, key)?;
    Some(DocumentKey { key_id, public_key, expired: true, valid_until: expired_ts.min(latest) })
}

/// None of what is no key that anything could be verified with: the others count all the same.
fn read_key(key_id: &str, key: &CanonicalJsonValue) -> Option<(String, Base64)> {
    let id = <&ServerSigningKeyId>::try_from(key_id).ok()?;
    let public_key: Base64 = Base64::parse(key.as_object()?.get("key")?.as_str()?).ok()?;
    let fits = id.algorithm() == SigningKeyAlgorithm::Ed25519 && public_key.as_bytes().len() == KEY_LENGTH;
    fits.then(|| (key_id.to_owned(), public_key))
}

fn integer(object: &CanonicalJsonObject, field: &str) -> Option<i64> {
    object.get(field)?.as_integer().map(i64::from)
}
