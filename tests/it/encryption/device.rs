//! A client that encrypts: as little of one as holds a conversation. It believes what the server says of whom it shares
//! a room with and whose devices are news, and asks for nothing else.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#messaging-algorithms>

use std::collections::{BTreeMap, BTreeSet};

use ruma::CanonicalJsonObject;
use serde_json::{Map, Value, json};
use vodozemac::{
    Curve25519PublicKey, Ed25519PublicKey, Ed25519Signature,
    megolm::{
        ExportedSessionKey, GroupSession, InboundGroupSession, MegolmMessage, SessionConfig as MegolmConfig, SessionKey,
    },
    olm::{Account, OlmMessage, Session, SessionConfig},
};

use crate::world::{Client, World, at, escape, next};

/// With fewer one-time keys than this on the server, a device uploads [`MORE`].
const FEW: i64 = 5;
const MORE: usize = 10;

/// A device as others know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) user_id: String,
    pub(super) device_id: String,
    pub(super) ed25519: String,
    pub(super) curve25519: String,
}

/// What signs is the object without its signatures, as canonical JSON.
fn signed_text(value: &Value) -> String {
    let mut object: CanonicalJsonObject = serde_json::from_value(value.clone()).unwrap();
    object.remove("signatures");
    object.remove("unsigned");
    serde_json::to_string(&object).unwrap()
}

impl Identity {
    /// From what `/keys/query` says of a device, which has to be signed by itself.
    fn read(user_id: &str, device_id: &str, keys: &Value) -> Self {
        assert_eq!((keys["user_id"].as_str(), keys["device_id"].as_str()), (Some(user_id), Some(device_id)));
        let key = |name: &str| keys["keys"][format!("{name}:{device_id}")].as_str().unwrap().to_owned();
        let identity = Self {
            user_id: user_id.to_owned(),
            device_id: device_id.to_owned(),
            ed25519: key("ed25519"),
            curve25519: key("curve25519"),
        };
        identity.verify(keys);
        identity
    }

    fn verify(&self, value: &Value) {
        let signature = &value["signatures"][&self.user_id][format!("ed25519:{}", self.device_id)];
        let signature = Ed25519Signature::from_base64(signature.as_str().unwrap()).unwrap();
        let key = Ed25519PublicKey::from_base64(&self.ed25519).unwrap();
        key.verify(signed_text(value).as_bytes(), &signature).unwrap();
    }

    fn identity_key(&self) -> Curve25519PublicKey {
        Curve25519PublicKey::from_base64(&self.curve25519).unwrap()
    }
}

/// How a device encrypts what it says in its room, and who can decrypt it.
struct Outbound {
    session: GroupSession,
    shared_with: BTreeSet<Identity>,
}

/// A device that encrypts, in one room at most.
pub(super) struct Device {
    pub(super) client: Client,
    pub(super) identity: Identity,
    account: Account,
    /// By the key of the other device.
    sessions: BTreeMap<String, Vec<Session>>,
    since: Option<String>,
    /// The devices of users whose devices were asked for and are not news since.
    known: BTreeMap<String, BTreeSet<Identity>>,
    outbound: Option<Outbound>,
    inbound: BTreeMap<String, InboundGroupSession>,
    /// What was said in the room by event: the text, or None if it could not be decrypted when it came.
    heard: BTreeMap<String, Option<String>>,
    /// What was sent to this device, but for keys.
    pub(super) received: Vec<Value>,
    requests: usize,
}

impl Device {
    /// Uploads identity keys, so many one-time keys and a fallback key.
    pub(super) async fn new(client: Client, one_time_keys: usize) -> Self {
        let account = Account::new();
        let identity = Identity {
            user_id: client.user_id.clone(),
            device_id: client.device().await,
            ed25519: account.ed25519_key().to_base64(),
            curve25519: account.curve25519_key().to_base64(),
        };
        let mut device = Self {
            client,
            identity,
            account,
            sessions: BTreeMap::new(),
            since: None,
            known: BTreeMap::new(),
            outbound: None,
            inbound: BTreeMap::new(),
            heard: BTreeMap::new(),
            received: Vec::new(),
            requests: 0,
        };
        device.account.generate_fallback_key();
        let fallback = device.account.fallback_key().into_iter().map(|(id, key)| {
            let key = device.signed(json!({ "key": key.to_base64(), "fallback": true }));
            (format!("signed_curve25519:{}", id.to_base64()), key)
        });
        let fallback: Map<String, Value> = fallback.collect();
        let body = json!({
            "device_keys": device.device_keys(),
            "one_time_keys": device.new_one_time_keys(one_time_keys),
            "fallback_keys": fallback,
        });
        let counts = device.client.upload_keys(body).await.ok();
        assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], one_time_keys);
        device
    }

    /// Speaks to another server on the same data from now on.
    pub(super) fn move_to(&mut self, world: &World) {
        self.client = self.client.clone().at(world);
    }

    fn signed(&self, mut value: Value) -> Value {
        let signature = self.account.sign(signed_text(&value)).to_base64();
        let key_id = format!("ed25519:{}", self.identity.device_id);
        value["signatures"] = json!({ &self.identity.user_id: { key_id: signature } });
        value
    }

    fn device_keys(&self) -> Value {
        let Identity { user_id, device_id, ed25519, curve25519 } = &self.identity;
        self.signed(json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { format!("ed25519:{device_id}"): ed25519, format!("curve25519:{device_id}"): curve25519 },
        }))
    }

    fn new_one_time_keys(&mut self, count: usize) -> Map<String, Value> {
        self.account.generate_one_time_keys(count);
        let keys = self.account.one_time_keys().into_iter().map(|(id, key)| {
            (format!("signed_curve25519:{}", id.to_base64()), self.signed(json!({ "key": key.to_base64() })))
        });
        let keys = keys.collect();
        self.account.mark_keys_as_published();
        keys
    }

    fn next_request(&mut self) -> String {
        self.requests += 1;
        format!("{}-{}", self.identity.device_id, self.requests)
    }

    /// One sync, which waits for so many milliseconds if there is nothing. Messages to the device come first: they hold
    /// the keys to what is in rooms.
    pub(super) async fn sync(&mut self, timeout: u64) -> Value {
        let filter = escape(&json!({ "room": { "timeline": { "limit": 100 } } }).to_string());
        let more = format!("&timeout={timeout}&filter={filter}");
        let sync = self.client.sync_with(self.since.as_deref(), &more).await;
        self.since = Some(next(&sync));
        for list in ["changed", "left"] {
            for user_id in sync["device_lists"][list].as_array().into_iter().flatten() {
                self.known.remove(user_id.as_str().unwrap());
            }
        }
        for event in sync["to_device"]["events"].as_array().into_iter().flatten() {
            self.receive(event);
        }
        for (_, room) in sync["rooms"]["join"].as_object().into_iter().flatten() {
            for event in room["timeline"]["events"].as_array().into_iter().flatten() {
                if event["type"] == "m.room.encrypted" {
                    let text = self.read(&event["content"]);
                    self.heard.entry(event["event_id"].as_str().unwrap().to_owned()).or_insert(text);
                }
            }
        }
        if sync["device_one_time_keys_count"]["signed_curve25519"].as_i64().unwrap() < FEW {
            let keys = self.new_one_time_keys(MORE);
            self.client.upload_keys(json!({ "one_time_keys": keys })).await.ok();
        }
        sync
    }

    /// Syncs until so many more messages of the room were decrypted.
    pub(super) async fn hear(&mut self, count: usize) {
        let enough = self.heard.values().flatten().count() + count;
        for _ in 0..500 {
            if self.heard.values().flatten().count() >= enough {
                return;
            }
            self.sync(10_000).await;
        }
        panic!("{:?} hears nothing that it can decrypt", self.identity);
    }

    /// Whether this was decrypted when it came.
    pub(super) fn has_heard(&self, text: &str) -> bool {
        self.heard.values().flatten().any(|heard| heard == text)
    }

    /// What an encrypted event of the room says, whoever it has come from. None if this device has no key to it.
    pub(super) fn read(&mut self, content: &Value) -> Option<String> {
        let session = self.inbound.get_mut(content["session_id"].as_str().unwrap())?;
        let message = MegolmMessage::from_base64(content["ciphertext"].as_str().unwrap()).unwrap();
        // A key reaches no further back than to when it was shared.
        let decrypted = session.decrypt(&message).ok()?;
        let event: Value = serde_json::from_slice(&decrypted.plaintext).unwrap();
        Some(event["content"]["body"].as_str().unwrap().to_owned())
    }

    /// Decrypts what was sent to this device. Everything that is sent to it here has to be for it.
    fn receive(&mut self, event: &Value) {
        if event["type"] == "m.secret.request" {
            self.received.push(event["content"].clone());
            return;
        }
        assert_eq!(event["type"], "m.room.encrypted");
        let content = &event["content"];
        let message = content["ciphertext"][&self.identity.curve25519].clone();
        let message: OlmMessage = serde_json::from_value(message).unwrap();
        let plain = self.decrypt(content["sender_key"].as_str().unwrap(), &message);
        let plain: Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(plain["sender"], event["sender"]);
        assert_eq!(plain["recipient"], self.identity.user_id);
        assert_eq!(plain["recipient_keys"]["ed25519"], self.identity.ed25519);
        if plain["type"] == "m.room_key" {
            let key = SessionKey::from_base64(plain["content"]["session_key"].as_str().unwrap()).unwrap();
            self.keep(&key);
        } else {
            self.received.push(plain["content"].clone());
        }
    }

    fn keep(&mut self, key: &SessionKey) {
        let session = InboundGroupSession::new(key, MegolmConfig::version_1());
        self.inbound.entry(session.session_id()).or_insert(session);
    }

    /// The keys to all that this device has read in rooms.
    pub(super) fn export_keys(&self) -> Vec<String> {
        self.inbound.values().map(|session| session.export_at_first_known_index().to_base64()).collect()
    }

    /// Takes over what another device has exported.
    pub(super) fn import_keys(&mut self, keys: &Value) {
        for key in keys.as_array().unwrap() {
            let key = ExportedSessionKey::from_base64(key.as_str().unwrap()).unwrap();
            let session = InboundGroupSession::import(&key, MegolmConfig::version_1());
            self.inbound.insert(session.session_id(), session);
        }
    }

    fn decrypt(&mut self, sender_key: &str, message: &OlmMessage) -> Vec<u8> {
        let sessions = self.sessions.entry(sender_key.to_owned()).or_default();
        for session in sessions.iter_mut() {
            if let Ok(plain) = session.decrypt(message) {
                return plain;
            }
        }
        let OlmMessage::PreKey(first) = message else {
            panic!("{:?} has no session for this message of {sender_key}", self.identity)
        };
        let sender_key = Curve25519PublicKey::from_base64(sender_key).unwrap();
        // It fails where another session has used up the key that it begins with.
        let begun = self.account.create_inbound_session(SessionConfig::version_1(), sender_key, first).unwrap();
        sessions.push(begun.session);
        begun.plaintext
    }

    /// Begins a session with a key of another device.
    pub(super) fn begin(&mut self, other: &Identity, one_time_key: &Value) {
        other.verify(one_time_key);
        let key = Curve25519PublicKey::from_base64(one_time_key["key"].as_str().unwrap()).unwrap();
        let session = self.account.create_outbound_session(SessionConfig::version_1(), other.identity_key(), key);
        self.sessions.entry(other.curve25519.clone()).or_default().push(session.unwrap());
    }

    /// Claims keys of those devices with which there is no session. One that is gone has none.
    async fn begin_sessions(&mut self, others: &BTreeSet<Identity>) {
        let strangers: Vec<&Identity> =
            others.iter().filter(|other| !self.sessions.contains_key(&other.curve25519)).collect();
        if strangers.is_empty() {
            return;
        }
        let mut asked = json!({});
        for other in &strangers {
            asked[&other.user_id][&other.device_id] = json!("signed_curve25519");
        }
        let body = json!({ "one_time_keys": asked });
        let claimed = self.client.post("/_matrix/client/v3/keys/claim", body).await.ok();
        for other in strangers {
            let keys = claimed["one_time_keys"][&other.user_id][&other.device_id].as_object();
            if let Some(key) = keys.and_then(|keys| keys.values().next()) {
                self.begin(other, key);
            }
        }
    }

    /// Sends to other devices, encrypted for each.
    pub(super) async fn send(&mut self, others: &BTreeSet<Identity>, kind: &str, content: &Value) {
        self.begin_sessions(others).await;
        let mut messages = json!({});
        for other in others {
            let Some(session) = self.sessions.get_mut(&other.curve25519).and_then(|sessions| sessions.last_mut())
            else {
                continue;
            };
            let plain = json!({
                "type": kind,
                "content": content,
                "sender": self.identity.user_id,
                "keys": { "ed25519": self.identity.ed25519 },
                "recipient": other.user_id,
                "recipient_keys": { "ed25519": other.ed25519 },
            });
            let message = session.encrypt(plain.to_string()).unwrap();
            messages[&other.user_id][&other.device_id] = json!({
                "algorithm": "m.olm.v1.curve25519-aes-sha2",
                "sender_key": self.identity.curve25519,
                "ciphertext": { &other.curve25519: message },
            });
        }
        let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{}", self.next_request());
        self.client.put(&path, json!({ "messages": messages })).await.ok();
    }

    /// Asks all devices of its user for a secret, itself among them.
    pub(super) async fn ask_for_secret(&mut self, content: &Value) {
        let messages = json!({ &self.identity.user_id: { "*": content } });
        let path = format!("/_matrix/client/v3/sendToDevice/m.secret.request/{}", self.next_request());
        self.client.put(&path, json!({ "messages": messages })).await.ok();
    }

    /// The devices of some users, but for this one. Those alone are asked for whose devices are not known, or are news.
    pub(super) async fn devices_of(&mut self, users: &BTreeSet<String>) -> BTreeSet<Identity> {
        let unknown = users.iter().filter(|user_id| !self.known.contains_key(*user_id));
        let unknown: Map<String, Value> = unknown.map(|user_id| (user_id.clone(), json!([]))).collect();
        if !unknown.is_empty() {
            let body = json!({ "device_keys": unknown });
            let shown = self.client.post("/_matrix/client/v3/keys/query", body).await.ok();
            for user_id in unknown.keys() {
                let devices = shown["device_keys"][user_id].as_object().unwrap().iter();
                let devices = devices.map(|(device_id, keys)| Identity::read(user_id, device_id, keys)).collect();
                self.known.insert(user_id.clone(), devices);
            }
        }
        let devices = users.iter().filter_map(|user_id| self.known.get(user_id)).flatten();
        devices.filter(|device| **device != self.identity).cloned().collect()
    }

    /// Says something in the room, encrypted for the devices of all who are in it by now and for nobody else. Returns
    /// what the event holds.
    pub(super) async fn say(&mut self, room: &str, text: &str) -> Value {
        self.sync(0).await;
        let members = self.client.get(&at(room, "/joined_members")).await.ok();
        let members = members["joined"].as_object().unwrap().keys().cloned().collect();
        let devices = self.devices_of(&members).await;
        // Whoever had a key and is not to hear what is said now makes it useless.
        let outbound = self.outbound.take().filter(|outbound| outbound.shared_with.is_subset(&devices));
        let mut outbound = outbound.unwrap_or_else(|| Outbound {
            session: GroupSession::new(MegolmConfig::version_1()),
            shared_with: BTreeSet::new(),
        });
        let (session_id, key) = (outbound.session.session_id(), outbound.session.session_key());
        self.keep(&key);
        let newcomers: BTreeSet<Identity> = devices.difference(&outbound.shared_with).cloned().collect();
        if !newcomers.is_empty() {
            let content = json!({
                "algorithm": "m.megolm.v1.aes-sha2",
                "room_id": room,
                "session_id": session_id,
                "session_key": key.to_base64(),
            });
            self.send(&newcomers, "m.room_key", &content).await;
        }
        outbound.shared_with = devices;
        let plain = json!({
            "type": "m.room.message", "room_id": room, "content": { "msgtype": "m.text", "body": text },
        });
        let content = json!({
            "algorithm": "m.megolm.v1.aes-sha2",
            "ciphertext": outbound.session.encrypt(plain.to_string()).to_base64(),
            "session_id": session_id,
            "sender_key": self.identity.curve25519,
            "device_id": self.identity.device_id,
        });
        self.outbound = Some(outbound);
        let path = at(room, &format!("/send/m.room.encrypted/{}", self.next_request()));
        self.client.put(&path, content.clone()).await.ok();
        content
    }
}
