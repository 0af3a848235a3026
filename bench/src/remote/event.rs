//! Events of rooms that several homeservers share, as they are sent from one to the other
//! (<https://spec.matrix.org/v1.19/rooms/v12/#event-format>).

use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::identity::Identity;
use crate::client::Room;

/// An event that is signed.
#[derive(Debug)]
pub(crate) struct Event {
    /// Of what redaction leaves of it, in base64 for paths.
    pub(super) hash: String,
    /// Canonical.
    pub(crate) json: String,
}

impl Event {
    pub(crate) fn id(&self) -> String {
        format!("${}", self.hash)
    }
}

/// The end of a room, where its next event comes.
#[derive(Debug)]
pub(super) struct End {
    pub(super) room_id: String,
    pub(super) prev_events: Vec<String>,
    pub(super) depth: u64,
}

impl End {
    /// Signs an event that comes here, behind which the next one comes.
    pub(super) fn append(&mut self, identity: &Identity, new: New<'_>) -> Result<Event> {
        let New { sender, kind, state_key, content, auth_events } = new;
        let event = json!({
            "type": kind,
            "room_id": self.room_id,
            "sender": sender,
            "content": content,
            "auth_events": auth_events,
            "prev_events": self.prev_events,
            "depth": self.depth,
            "origin_server_ts": now(),
        });
        let Value::Object(mut event) = event else { return identity.sign_event(Map::new()) };
        if let Some(state_key) = state_key {
            event.insert("state_key".to_owned(), state_key.into());
        }
        let event = identity.sign_event(event)?;
        self.prev_events = vec![event.id()];
        self.depth += 1;
        Ok(event)
    }
}

/// What is an event's own.
#[derive(Debug)]
pub(super) struct New<'a> {
    pub(super) sender: &'a str,
    pub(super) kind: &'a str,
    pub(super) state_key: Option<&'a str>,
    pub(super) content: Value,
    pub(super) auth_events: &'a [String],
}

/// A room of the server under test that a user of another homeserver has joined, as that homeserver knows it.
#[derive(Debug)]
pub(crate) struct JoinedRoom {
    pub(crate) room: Room,
    pub(super) user_id: String,
    /// What a message of this user cites.
    pub(super) auth_events: Vec<String>,
    pub(super) end: End,
}

impl JoinedRoom {
    /// The next message of the user; `text` needs no escaping.
    pub(crate) fn say(&mut self, identity: &Identity, text: &str) -> Result<Event> {
        let content = json!({ "msgtype": "m.text", "body": text });
        let Self { user_id, auth_events, end, .. } = self;
        let (kind, state_key) = ("m.room.message", None);
        end.append(identity, New { sender: user_id, kind, state_key, content, auth_events })
    }
}

/// In milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "what is signed has to be of today")]
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
