//! Servers with keys, whose answers a test decides.

use std::collections::HashMap;

use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    serde::Base64,
    signatures::{hash_and_sign_event, sign_json},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::source::{KeyServers, WantedKeys};
use crate::{
    edge::federation_client::RemoteError,
    event::{ReceivedPdu, SigningKey},
    ground::room_version::rules,
};

/// Another server, as a test plays it.
pub(super) struct Peer {
    pub(super) name: OwnedServerName,
    pub(super) key: SigningKey,
}

impl Peer {
    /// `key`: the name of its key.
    pub(super) fn new(name: &str, key: &str) -> Self {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), &format!("ed25519:{key}")).unwrap();
        Self { name: ServerName::parse(name).unwrap(), key }
    }

    pub(super) fn public_key(&self) -> String {
        public_key(&self.key)
    }

    /// What it says of its keys: that it signs with its own until `valid_until`, and does not with others any more.
    pub(super) fn document(&self, valid_until: i64, old: &[(&SigningKey, i64)]) -> CanonicalJsonObject {
        let old: serde_json::Map<String, Value> = old
            .iter()
            .map(|(key, expired_ts)| {
                (key.id().to_string(), json!({ "key": public_key(key), "expired_ts": expired_ts }))
            })
            .collect();
        let document = json!({
            "server_name": self.name,
            "verify_keys": { self.key.id().as_str(): { "key": self.public_key() } },
            "old_verify_keys": old,
            "valid_until_ts": valid_until,
        });
        self.sign(serde_json::from_value(document).unwrap())
    }

    pub(super) fn sign(&self, mut object: CanonicalJsonObject) -> CanonicalJsonObject {
        sign_json(self.name.as_str(), &self.key, &mut object).unwrap();
        object
    }

    /// A message of somebody there, sent at this time.
    pub(super) fn event(&self, at: i64) -> ReceivedPdu {
        self.event_by(&self.key, at)
    }

    /// A message of somebody there, signed with another key.
    pub(super) fn event_by(&self, key: &SigningKey, at: i64) -> ReceivedPdu {
        let event = json!({
            "room_id": "!room:there",
            "sender": format!("@bob:{}", self.name),
            "type": "m.room.message",
            "content": { "body": "hello" },
            "origin_server_ts": at,
            "depth": 5,
            "prev_events": ["$before"],
            "auth_events": ["$create"],
        });
        let rules = rules(&ruma::RoomVersionId::V11).unwrap();
        let mut event: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        hash_and_sign_event(self.name.as_str(), key, &mut event, &rules.redaction).unwrap();
        ReceivedPdu::read(&to_raw_value(&event).unwrap(), rules).unwrap()
    }
}

fn public_key(key: &SigningKey) -> String {
    let key: Base64 = Base64::new(key.public_key().to_vec());
    key.encode()
}

/// What every server answers. Who is not here can't be reached.
#[derive(Default)]
pub(super) struct ScriptedServers {
    own: Mutex<HashMap<OwnedServerName, CanonicalJsonObject>>,
    as_notary: Mutex<HashMap<OwnedServerName, Vec<CanonicalJsonObject>>>,
    asked: Mutex<Vec<String>>,
}

impl ScriptedServers {
    /// What a server says of its own keys from now on.
    pub(super) fn say(&self, server: &ServerName, document: CanonicalJsonObject) {
        self.own.lock().insert(server.to_owned(), document);
    }

    /// What a notary says from now on, whatever it is asked.
    pub(super) fn notarise(&self, notary: &ServerName, documents: Vec<CanonicalJsonObject>) {
        self.as_notary.lock().insert(notary.to_owned(), documents);
    }

    pub(super) fn silence(&self, server: &ServerName) {
        self.own.lock().remove(server);
    }

    /// Who was asked since the last time, in order: a server, or a notary and behind it whom it was asked about.
    pub(super) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

fn unreachable() -> RemoteError {
    RemoteError::Unreachable("it is not there".to_owned())
}

impl KeyServers for ScriptedServers {
    fn keys_of<'a>(&'a self, server: &'a ServerName) -> BoxFuture<'a, Result<Box<RawValue>, RemoteError>> {
        async move {
            self.asked.lock().push(server.to_string());
            // Others come meanwhile.
            tokio::task::yield_now().await;
            self.own.lock().get(server).map(|document| to_raw_value(document).unwrap()).ok_or_else(unreachable)
        }
        .boxed()
    }

    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        wanted: &'a WantedKeys,
    ) -> BoxFuture<'a, Result<Vec<Box<RawValue>>, RemoteError>> {
        async move {
            let servers: Vec<&str> = wanted.keys().map(|server| server.as_str()).collect();
            self.asked.lock().push(format!("{notary} about {}", servers.join(" ")));
            let said = self.as_notary.lock();
            let documents = said.get(notary).ok_or_else(unreachable)?;
            Ok(documents.iter().map(|document| to_raw_value(document).unwrap()).collect())
        }
        .boxed()
    }
}
