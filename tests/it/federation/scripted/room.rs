//! Rooms as a scripted server knows them: its own, and those of others that it is in. It checks nothing.
//!
//! <https://spec.matrix.org/v1.19/rooms/>

use std::collections::{BTreeMap, BTreeSet};

use hearth::event::SigningKey;
use ruma::{
    CanonicalJsonObject, RoomVersionId,
    room_version_rules::RoomVersionRules,
    signatures::{hash_and_sign_event, reference_hash},
};
use serde_json::{Value, json};

use super::{Scripted, request::federation};
use crate::world::Reply;

/// Events by type and state key.
pub(super) type RoomState = BTreeMap<(String, String), String>;

/// What there is of a room.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub(super) version: String,
    pub(super) events: BTreeMap<String, Value>,
    /// In the order in which they came.
    pub(super) order: Vec<String>,
    /// The state before each event.
    pub(super) before: BTreeMap<String, RoomState>,
    pub(super) state: RoomState,
    pub(super) ends: Vec<String>,
}

/// A room, by the eyes of a server. Clones are the same room.
#[derive(Clone)]
pub(crate) struct FarRoom {
    server: Scripted,
    pub(crate) id: String,
    pub(crate) version: String,
}

pub(super) fn rules(version: &str) -> RoomVersionRules {
    RoomVersionId::try_from(version).unwrap().rules().unwrap()
}

/// What an event is called.
pub(crate) fn event_id(version: &str, event: &Value) -> String {
    let object: CanonicalJsonObject = serde_json::from_value(event.clone()).unwrap();
    format!("${}", reference_hash(&object, &rules(version)).unwrap())
}

/// An event with its hash and this signature. Those of others stay.
pub(crate) fn sign_event(server: &str, key: &SigningKey, version: &str, event: &Value) -> Value {
    let mut object: CanonicalJsonObject = serde_json::from_value(event.clone()).unwrap();
    hash_and_sign_event(server, key, &mut object, &rules(version).redaction).unwrap();
    serde_json::to_value(object).unwrap()
}

fn strings(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(ToOwned::to_owned).collect()
}

impl Shared {
    fn has_create_in_auth_events(&self) -> bool {
        rules(&self.version).event_format.allow_room_create_in_auth_events
    }

    /// Takes an event as the newest one. One that is known stays where it is.
    pub(super) fn add(&mut self, event: &Value) -> String {
        let id = event_id(&self.version, event);
        if self.events.insert(id.clone(), event.clone()).is_some() {
            return id;
        }
        self.order.push(id.clone());
        self.before.insert(id.clone(), self.state.clone());
        if let Some(key) = event["state_key"].as_str() {
            self.state.insert((event["type"].as_str().unwrap_or_default().to_owned(), key.to_owned()), id.clone());
        }
        let followed = strings(&event["prev_events"]);
        self.ends.retain(|end| !followed.contains(end));
        self.ends.push(id.clone());
        id
    }

    pub(super) fn find(&self, kind: &str, key: &str) -> Option<&Value> {
        self.events.get(self.state.get(&(kind.to_owned(), key.to_owned()))?)
    }

    /// What an event of this kind has to cite.
    fn auth_events(&self, sender: &str, kind: &str, key: Option<&str>, content: &Value) -> Vec<String> {
        let mut wanted = vec![("m.room.power_levels", ""), ("m.room.member", sender)];
        if self.has_create_in_auth_events() {
            wanted.push(("m.room.create", ""));
        }
        if kind == "m.room.member" {
            wanted.push(("m.room.member", key.unwrap_or_default()));
            if ["join", "invite", "knock"].contains(&content["membership"].as_str().unwrap_or_default()) {
                wanted.push(("m.room.join_rules", ""));
            }
            if let Some(authorising) = content["join_authorised_via_users_server"].as_str() {
                wanted.push(("m.room.member", authorising));
            }
        }
        let of_state = |(kind, key): (&str, &str)| self.state.get(&(kind.to_owned(), key.to_owned())).cloned();
        wanted.into_iter().filter_map(of_state).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The next event, without hash and signature.
    pub(super) fn draft(&self, room: &str, sender: &str, kind: &str, key: Option<&str>, content: Value) -> Value {
        let depth = self.ends.iter().filter_map(|end| self.events[end]["depth"].as_u64()).max().unwrap_or(0) + 1;
        let mut draft = json!({
            "room_id": room,
            "sender": sender,
            "type": kind,
            "auth_events": self.auth_events(sender, kind, key, &content),
            "prev_events": self.ends,
            "depth": depth,
        });
        draft["content"] = content;
        if let Some(key) = key {
            draft["state_key"] = key.into();
        }
        draft
    }

    /// Everything that these events cite, directly or not.
    pub(super) fn chain(&self, of: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let (mut chain, mut todo) = (BTreeSet::new(), of.into_iter().collect::<Vec<_>>());
        while let Some(id) = todo.pop() {
            let cited = self.events.get(&id).map(|event| strings(&event["auth_events"])).unwrap_or_default();
            todo.extend(cited.into_iter().filter(|id| self.events.contains_key(id) && chain.insert(id.clone())));
        }
        chain
    }

    /// These events, and what they follow over others: the newest first. Not those of `but`.
    pub(super) fn walk(&self, from: &[String], but: &[String], limit: usize) -> Vec<String> {
        let mut seen: BTreeSet<String> = but.iter().cloned().collect();
        let mut todo: Vec<String> = from.to_vec();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                todo.extend(self.events.get(&id).map(|event| strings(&event["prev_events"])).unwrap_or_default());
            }
        }
        let reached = self.order.iter().rev().filter(|id| seen.contains(*id) && !but.contains(*id));
        reached.take(limit).cloned().collect()
    }

    pub(super) fn list<'a>(&'a self, ids: impl IntoIterator<Item = &'a String>) -> Vec<Value> {
        ids.into_iter().filter_map(|id| self.events.get(id)).cloned().collect()
    }
}

impl Scripted {
    /// A room of its Mallory's.
    pub(crate) fn create_room(&self, version: &str, join_rules: Value) -> FarRoom {
        self.create_room_saying(version, join_rules, json!({}))
    }

    /// A room of whose create event it says something more.
    pub(crate) fn create_room_saying(&self, version: &str, join_rules: Value, more: Value) -> FarRoom {
        let mallory = self.user("mallory");
        let format = rules(version);
        let mut content = json!({ "room_version": version, "org.example.number": self.number() });
        if let (Some(content), Value::Object(more)) = (content.as_object_mut(), more) {
            content.extend(more);
        }
        if !format.authorization.use_room_create_sender {
            content["creator"] = mallory.as_str().into();
        }
        let named = format!("!r{}:{}", self.number(), self.name());
        let mut room = Shared { version: version.to_owned(), ..Shared::default() };
        let mut create = room.draft(&named, &mallory, "m.room.create", Some(""), content);
        create["origin_server_ts"] = self.now().into();
        let is_nameless = !format.event_format.require_room_create_room_id;
        if is_nameless {
            create.as_object_mut().unwrap().remove("room_id");
        }
        let create = sign_event(self.name(), self.key(), version, &create);
        let id = room.add(&create);
        let id = if is_nameless { id.replacen('$', "!", 1) } else { named };
        self.0.rooms.lock().insert(id.clone(), room);
        let room = FarRoom { server: self.clone(), id, version: version.to_owned() };
        room.send(&mallory, "m.room.member", Some(&mallory), json!({ "membership": "join" }));
        let users = if is_nameless { json!({}) } else { json!({ mallory.as_str(): 100 }) };
        room.send(&mallory, "m.room.power_levels", Some(""), json!({ "users": users }));
        room.send(&mallory, "m.room.join_rules", Some(""), join_rules);
        room
    }

    /// What another server proposes: `make_join`, `make_leave` or `make_knock`.
    pub(crate) async fn template(&self, to: &str, make: &str, room: &str, user: &str) -> Reply {
        let versions = (6..=12).fold(String::new(), |query, version| query + "&ver=" + &version.to_string());
        let path = federation(&format!("v1/{make}"), &[room, user]);
        self.get(to, &format!("{path}?{}", versions.trim_start_matches('&'))).await
    }

    /// What becomes of a proposal: the event, and what it is called.
    pub(crate) fn complete(&self, template: &Value, version: &str) -> (String, Value) {
        let mut event = template["event"].clone();
        event.as_object_mut().unwrap().remove("origin");
        let event = sign_event(self.name(), self.key(), version, &event);
        (event_id(version, &event), event)
    }

    /// Brings one of its users into a room of another server.
    pub(crate) async fn join(&self, to: &str, room: &str, user: &str) -> FarRoom {
        let template = self.template(to, "make_join", room, user).await.ok();
        let version = template["room_version"].as_str().unwrap().to_owned();
        let (id, join) = self.complete(&template, &version);
        let joined = self.put(to, &federation("v2/send_join", &[room, &id]), &join).await.ok();
        let mut shared = Shared { version: version.clone(), ..Shared::default() };
        for event in joined["auth_chain"].as_array().unwrap().iter().chain(joined["state"].as_array().unwrap()) {
            let id = event_id(&version, event);
            shared.events.insert(id.clone(), event.clone());
            if !shared.order.contains(&id) {
                shared.order.push(id);
            }
        }
        for event in joined["state"].as_array().unwrap() {
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            shared.state.insert((text("type"), text("state_key")), event_id(&version, event));
        }
        shared.add(&joined["event"]);
        self.0.rooms.lock().insert(room.to_owned(), shared);
        FarRoom { server: self.clone(), id: room.to_owned(), version }
    }

    /// Takes one of its users out of a room of another server.
    pub(crate) async fn leave(&self, to: &str, room: &FarRoom, user: &str) {
        let template = self.template(to, "make_leave", &room.id, user).await.ok();
        let (id, leave) = self.complete(&template, &room.version);
        self.put(to, &federation("v2/send_leave", &[&room.id, &id]), &leave).await.ok();
        room.add(&leave);
    }

    /// Invites a user of another server into a room of Mallory's.
    pub(crate) async fn invite(&self, to: &str, room: &FarRoom, user: &str) -> Reply {
        let content = json!({ "membership": "invite" });
        let event = room.send(&self.user("mallory"), "m.room.member", Some(user), content);
        let path = federation("v2/invite", &[&room.id, &room.id_of(&event)]);
        self.put(to, &path, &room.invitation(&event)).await
    }
}

impl FarRoom {
    fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(self.server.0.rooms.lock().get_mut(&self.id).unwrap())
    }

    /// The next event of one of the server's users, signed. It is not a part of the room yet.
    pub(crate) fn event(&self, sender: &str, kind: &str, key: Option<&str>, content: Value) -> Value {
        let mut event = self.with(|room| room.draft(&self.id, sender, kind, key, content));
        event["origin_server_ts"] = self.server.now().into();
        self.sign(&event)
    }

    /// A message of Mallory's.
    pub(crate) fn message(&self, text: &str) -> Value {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.event(&self.server.user("mallory"), "m.room.message", None, content)
    }

    /// An event with something of it changed, signed anew.
    pub(crate) fn changed(&self, event: &Value, change: impl FnOnce(&mut Value)) -> Value {
        let mut event = event.clone();
        change(&mut event);
        self.sign(&event)
    }

    fn sign(&self, event: &Value) -> Value {
        let mut event = event.clone();
        let fields = event.as_object_mut().unwrap();
        fields.remove("signatures");
        fields.remove("hashes");
        sign_event(self.server.name(), self.server.key(), &self.version, &event)
    }

    /// Makes an event a part of the room, and returns what it is called.
    pub(crate) fn add(&self, event: &Value) -> String {
        self.with(|room| room.add(event))
    }

    /// The next event, which is a part of the room at once.
    pub(crate) fn send(&self, sender: &str, kind: &str, key: Option<&str>, content: Value) -> Value {
        let event = self.event(sender, kind, key, content);
        self.add(&event);
        event
    }

    /// A message of Mallory's that is a part of the room at once.
    pub(crate) fn say(&self, text: &str) -> Value {
        let message = self.message(text);
        self.add(&message);
        message
    }

    pub(crate) fn id_of(&self, event: &Value) -> String {
        event_id(&self.version, event)
    }

    /// An event of the room's state.
    pub(crate) fn state(&self, kind: &str, key: &str) -> Option<Value> {
        self.with(|room| room.find(kind, key).cloned())
    }

    /// All of the room's state.
    pub(crate) fn whole_state(&self) -> Vec<Value> {
        self.with(|room| room.list(room.state.values()))
    }

    /// The body of an invitation, with what the room is known by.
    pub(crate) fn invitation(&self, event: &Value) -> Value {
        let shown = ["m.room.create", "m.room.join_rules"].map(|kind| self.state(kind, "").unwrap());
        json!({ "room_version": self.version, "event": event, "invite_room_state": shown })
    }
}
