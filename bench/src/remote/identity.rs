//! Who a homeserver is: its name and its key, with which it signs requests, events, and what it says of the key.
//!
//! What is signed is canonical JSON (<https://spec.matrix.org/v1.19/appendices/#canonical-json>). A map of `serde_json` is
//! written in the order of its keys, and there is neither a fraction nor anything to be escaped in it here.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hyper::Method;
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};

use super::event::{Event, now};
use crate::keys::SigningKey;

/// How long the key is said to be good.
const VALIDITY: Duration = Duration::from_hours(24);
/// Characters of the public key in the key's own name, by which those of two runs differ.
const NAME_LENGTH: usize = 8;

/// A homeserver's name and key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    key: SigningKey,
    key_id: String,
}

impl Identity {
    /// A homeserver with a new key.
    pub(crate) fn new(name: String) -> Result<Self> {
        let key = SigningKey::generate()?;
        let tag: String = key.public.chars().filter(char::is_ascii_alphanumeric).take(NAME_LENGTH).collect();
        Ok(Self { name, key_id: format!("ed25519:{tag}"), key })
    }

    /// A user of this homeserver.
    pub(crate) fn user_id(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.name)
    }

    /// The answer to `GET /_matrix/key/v2/server`
    /// (<https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>).
    pub(super) fn key_document(&self) -> Result<String> {
        let valid_until = now() + u64::try_from(VALIDITY.as_millis())?;
        let mut document = json!({
            "server_name": self.name,
            "valid_until_ts": valid_until,
            "verify_keys": { &self.key_id: { "key": self.key.public } },
            "old_verify_keys": {},
        });
        let signature = self.key.sign(document.to_string().as_bytes());
        let document_fields = document.as_object_mut().context("the document is an object")?;
        document_fields.insert("signatures".to_owned(), self.signatures(&signature));
        Ok(document.to_string())
    }

    /// Hashes and signs an event (<https://spec.matrix.org/v1.19/server-server-api/#signing-events>). Its identifier is
    /// that of room versions from 4 on, and of what it says nothing but a message's text is redacted.
    pub(crate) fn sign_event(&self, mut event: Map<String, Value>) -> Result<Event> {
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        let keeps_content = match kind {
            "m.room.create" | "m.room.member" | "m.room.power_levels" | "m.room.join_rules" => true,
            "m.room.message" => false,
            _ => bail!("what redaction leaves of {kind} is not known here"),
        };
        let hash = digest(&SHA256, &serde_json::to_vec(&event)?);
        event.insert("hashes".to_owned(), json!({ "sha256": STANDARD_NO_PAD.encode(hash) }));
        let content = event.get("content").cloned().unwrap_or_default();
        if !keeps_content {
            event.insert("content".to_owned(), json!({}));
        }
        let redacted = serde_json::to_vec(&event)?;
        event.insert("content".to_owned(), content);
        event.insert("signatures".to_owned(), self.signatures(&self.key.sign(&redacted)));
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, &redacted));
        Ok(Event { hash, json: serde_json::to_string(&event)? })
    }

    /// The `Authorization` of a request with this body, which is canonical JSON or empty
    /// (<https://spec.matrix.org/v1.19/server-server-api/#request-authentication>).
    pub(super) fn authorization(
        &self,
        destination: &str,
        method: &Method,
        path: &str,
        body: &str,
    ) -> Result<HeaderValue> {
        let Self { name, key_id, .. } = self;
        let content = if body.is_empty() { String::new() } else { format!(r#""content":{body},"#) };
        let signed = format!(
            r#"{{{content}"destination":"{destination}","method":"{method}","origin":"{name}","uri":"{path}"}}"#
        );
        let signature = self.key.sign(signed.as_bytes());
        let header =
            format!(r#"X-Matrix origin="{name}",destination="{destination}",key="{key_id}",sig="{signature}""#);
        HeaderValue::from_str(&header).context("a signature does not fit into a header")
    }

    fn signatures(&self, signature: &str) -> Value {
        json!({ &self.name: { &self.key_id: signature } })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn verify(identity: &Identity, signed: &[u8], signature: &Value) {
        let public = UnparsedPublicKey::new(&ED25519, STANDARD_NO_PAD.decode(&identity.key.public).unwrap());
        public.verify(signed, &STANDARD_NO_PAD.decode(signature.as_str().unwrap()).unwrap()).unwrap();
    }

    #[test]
    fn a_homeserver_signs_what_it_says_of_its_key() {
        let identity = Identity::new("127.0.0.1:1".to_owned()).unwrap();
        let mut document: Value = serde_json::from_str(&identity.key_document().unwrap()).unwrap();
        let signatures = document.as_object_mut().unwrap().remove("signatures").unwrap();
        verify(&identity, document.to_string().as_bytes(), &signatures["127.0.0.1:1"][&identity.key_id]);
        assert_eq!(document["verify_keys"][&identity.key_id]["key"], identity.key.public);
    }

    #[test]
    fn a_signature_of_an_event_is_of_what_redaction_leaves() {
        let identity = Identity::new("127.0.0.1:1".to_owned()).unwrap();
        let event = json!({ "type": "m.room.message", "content": { "body": "x" }, "depth": 1 });
        let signed = identity.sign_event(event.as_object().unwrap().clone()).unwrap();
        let mut event: Value = serde_json::from_str(&signed.json).unwrap();
        assert_eq!(event["content"]["body"], "x");
        let signatures = event.as_object_mut().unwrap().remove("signatures").unwrap();
        event["content"] = json!({});
        verify(&identity, event.to_string().as_bytes(), &signatures["127.0.0.1:1"][&identity.key_id]);
        assert!(identity.sign_event(Map::new()).is_err());
    }
}
