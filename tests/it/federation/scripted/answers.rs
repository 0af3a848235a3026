//! What a scripted server answers by itself: as a server should, as far as tests need it. It refuses nobody.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/>

use serde_json::{Value, json};

use super::{
    Scripted,
    request::Asked,
    room::{RoomState, Shared, sign_event},
};

type Usual = (u16, Value);

/// For what nobody knows.
fn not_found() -> Usual {
    (404, json!({ "errcode": "M_NOT_FOUND", "error": "There is no such thing" }))
}

fn unrecognized() -> Usual {
    (404, json!({ "errcode": "M_UNRECOGNIZED", "error": "A script does not go so far" }))
}

impl Scripted {
    /// Status and body.
    pub(super) fn usual(&self, asked: &Asked) -> Usual {
        let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        match (&*asked.endpoint, &*path) {
            ("key/server", _) => (200, self.key_document()),
            ("key/query", _) => (200, json!({ "server_keys": [] })),
            ("version", _) => (200, json!({ "server": { "name": "Script", "version": "1" } })),
            ("make_join", [room, user]) => self.propose(room, user, "join"),
            ("make_leave", [room, user]) => self.propose(room, user, "leave"),
            ("make_knock", [room, user]) => self.propose(room, user, "knock"),
            ("send_join", [room, _]) => self.take_join(room, &asked.body),
            ("send_leave", [room, _]) => self.of_room(room, |shared| {
                shared.add(&asked.body);
                (200, json!({}))
            }),
            ("send_knock", [room, _]) => self.of_room(room, |shared| {
                shared.add(&asked.body);
                let shown = ["m.room.create", "m.room.join_rules"].map(|kind| shared.find(kind, "").cloned());
                (200, json!({ "knock_room_state": shown }))
            }),
            ("invite", _) if asked.uri.contains("/v2/") => self.take_invite(&asked.body),
            ("send", _) => self.take(&asked.pdus()),
            ("event", [id]) => self.find_event(id),
            ("state", [room]) => self.state_of(room, &asked.all("event_id"), true),
            ("state_ids", [room]) => self.state_of(room, &asked.all("event_id"), false),
            ("event_auth", [room, id]) => self
                .of_room(room, |shared| (200, json!({ "auth_chain": shared.list(&shared.chain([(*id).to_owned()])) }))),
            ("get_missing_events", [room]) => self.find_missing(room, &asked.body),
            ("backfill", [room]) => {
                let limit = asked.all("limit").first().and_then(|limit| limit.parse().ok()).unwrap_or(10);
                let (name, now) = (self.name().to_owned(), self.now());
                self.of_room(room, |shared| {
                    let pdus = shared.list(&shared.walk(&asked.all("v"), &[], limit));
                    (200, json!({ "origin": name, "origin_server_ts": now, "pdus": pdus }))
                })
            }
            ("publicRooms", _) => (200, json!({ "chunk": [], "total_room_count_estimate": 0 })),
            ("query", ["profile"]) => (200, json!({ "displayname": "Far" })),
            ("query", ["directory"]) => {
                let first = self.0.rooms.lock().keys().next().cloned();
                first.map_or_else(not_found, |room| (200, json!({ "room_id": room, "servers": [self.name()] })))
            }
            ("hierarchy" | "timestamp_to_event", _) => not_found(),
            _ => unrecognized(),
        }
    }

    fn of_room(&self, room: &str, work: impl FnOnce(&mut Shared) -> Usual) -> Usual {
        self.0.rooms.lock().get_mut(room).map_or_else(not_found, work)
    }

    fn propose(&self, room: &str, user: &str, membership: &str) -> Usual {
        let (now, mallory) = (self.now(), self.user("mallory"));
        self.of_room(room, |shared| {
            let mut content = json!({ "membership": membership });
            let is_restricted = shared.find("m.room.join_rules", "").is_some_and(|event| {
                ["restricted", "knock_restricted"].contains(&event["content"]["join_rule"].as_str().unwrap_or_default())
            });
            if membership == "join" && is_restricted {
                content["join_authorised_via_users_server"] = mallory.into();
            }
            let mut event = shared.draft(room, user, "m.room.member", Some(user), content);
            event["origin_server_ts"] = now.into();
            (200, json!({ "room_version": shared.version, "event": event }))
        })
    }

    fn take_join(&self, room: &str, join: &Value) -> Usual {
        let (name, key) = (self.name().to_owned(), &self.0.key);
        self.of_room(room, |shared| {
            let mut join = join.clone();
            if join["content"]["join_authorised_via_users_server"].is_string() {
                join = sign_event(&name, key, &shared.version, &join);
            }
            let id = shared.add(&join);
            let state: Vec<String> = shared.before[&id].values().cloned().collect();
            let chain = shared.chain(state.iter().cloned().chain([id]));
            let answer = json!({
                "origin": name,
                "state": shared.list(&state),
                "auth_chain": shared.list(&chain),
                "event": join,
                "members_omitted": false,
            });
            (200, answer)
        })
    }

    fn take_invite(&self, body: &Value) -> Usual {
        let version = body["room_version"].as_str().unwrap_or_default();
        (200, json!({ "event": sign_event(self.name(), &self.0.key, version, &body["event"]) }))
    }

    /// Takes the events of a transaction, those of other rooms too.
    fn take(&self, pdus: &[Value]) -> Usual {
        let mut taken = serde_json::Map::new();
        let mut rooms = self.0.rooms.lock();
        for pdu in pdus {
            if let Some(room) = rooms.get_mut(pdu["room_id"].as_str().unwrap_or_default()) {
                taken.insert(room.add(pdu), json!({}));
            }
        }
        (200, json!({ "pdus": taken }))
    }

    fn find_event(&self, id: &str) -> Usual {
        let found = self.0.rooms.lock().values().find_map(|room| room.events.get(id)).cloned();
        let (name, now) = (self.name(), self.now());
        found.map_or_else(not_found, |event| (200, json!({ "origin": name, "origin_server_ts": now, "pdus": [event] })))
    }

    fn state_of(&self, room: &str, at: &[String], is_whole: bool) -> Usual {
        self.of_room(room, |shared| {
            let state: Option<RoomState> = at.first().and_then(|id| shared.before.get(id)).cloned();
            let Some(state) = state else { return not_found() };
            let state: Vec<String> = state.into_values().collect();
            let chain = shared.chain(state.iter().cloned());
            if is_whole {
                (200, json!({ "pdus": shared.list(&state), "auth_chain": shared.list(&chain) }))
            } else {
                (200, json!({ "pdu_ids": state, "auth_chain_ids": chain }))
            }
        })
    }

    fn find_missing(&self, room: &str, body: &Value) -> Usual {
        let ids = |field: &str| -> Vec<String> {
            let ids = body[field].as_array().into_iter().flatten();
            ids.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        let limit = body["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10);
        let (earliest, latest) = (ids("earliest_events"), ids("latest_events"));
        self.of_room(room, |shared| {
            let mut between = shared.walk(&latest, &earliest, limit + latest.len());
            between.retain(|id| !latest.contains(id));
            between.truncate(limit);
            between.reverse();
            (200, json!({ "events": shared.list(&between) }))
        })
    }
}
