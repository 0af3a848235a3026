//! What tests let happen in a room, said briefly.

use std::sync::Arc;

use ruma::{OwnedRoomId, RoomId, RoomVersionId};
use serde_json::{Value, json};

use super::{
    Rooms,
    graph::{
        append::{Appended, NewRoomEvents, Plan, Proposal},
        head::Head,
    },
    world::{RoomWorld, json as content, user},
};
use crate::{
    error::{Error, Result},
    event::{Draft, Pdu, Standing},
    ground::room_version::rules,
};

impl RoomWorld {
    /// A room of alice that anybody can join and in which everybody may set state.
    pub(super) async fn create_room(&self, version: RoomVersionId, visibility: &str) -> OwnedRoomId {
        let alice = user("alice");
        let state = |kind: &str, key: &str, value: Value| {
            Proposal::from(Draft::state(alice.clone(), kind.into(), key, content(value)))
        };
        let privileged = rules(&version).unwrap().authorization.explicitly_privilege_room_creators;
        let users = if privileged { json!({}) } else { json!({ alice.as_str(): 100 }) };
        let proposals = vec![
            state("m.room.create", "", json!({ "room_version": version, "creator": alice })),
            state("m.room.member", alice.as_str(), json!({ "membership": "join" })),
            state("m.room.power_levels", "", json!({ "users": users, "state_default": 0 })),
            state("m.room.join_rules", "", json!({ "join_rule": "public" })),
            state("m.room.history_visibility", "", json!({ "history_visibility": visibility })),
        ];
        self.rooms.create_room(NewRoomEvents { version, proposals }).await.unwrap()
    }

    /// Appends an event; None if the room refuses it.
    pub(super) async fn append(&self, room_id: &RoomId, draft: &Draft) -> Option<Arc<Pdu>> {
        match self.rooms.append(room_id, |_| Ok(Plan::of(draft.clone()))).await {
            Ok(Appended::Done(events)) => events.into_iter().next(),
            Ok(Appended::Before(_)) | Err(Error::Refused { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sets a piece of state.
    pub(super) async fn set(&self, room_id: &RoomId, sender: &str, kind: &str, key: &str, value: Value) -> Arc<Pdu> {
        let draft = Draft::state(user(sender), kind.into(), key, content(value));
        self.append(room_id, &draft).await.expect("the room allows it")
    }

    /// Changes the membership of `target`.
    pub(super) async fn member(&self, room_id: &RoomId, sender: &str, target: &str, membership: &str) -> Arc<Pdu> {
        let value = json!({ "membership": membership });
        self.set(room_id, sender, "m.room.member", user(target).as_str(), value).await
    }

    /// Sends messages, all in one write.
    pub(super) async fn say(&self, room_id: &RoomId, sender: &str, bodies: &[&str]) -> Vec<Arc<Pdu>> {
        let plan = |_: &Head| {
            let proposals = bodies.iter().map(|body| Proposal::from(text(sender, body))).collect();
            Ok(Plan { proposals, ..Plan::default() })
        };
        match self.rooms.append(room_id, plan).await.unwrap() {
            Appended::Done(events) => events,
            Appended::Before(_) => Vec::new(),
        }
    }
}

impl Rooms {
    /// Takes in an event of another server, as if somebody of this one were in its room. Signatures and hashes are not
    /// asked for.
    pub(super) async fn take_in(&self, pdu: Pdu) -> Result<Standing> {
        let room = self.get_held(pdu.room_id()).await?.into_resident();
        self.append_remote(&room, pdu).await
    }
}

/// A message on its way.
pub(super) fn text(sender: &str, body: &str) -> Draft {
    Draft::message(user(sender), "m.room.message".into(), content(json!({ "msgtype": "m.text", "body": body })))
}

/// An event with these fields, of no real room and signed by nobody. `fields` take the place of the defaults here.
pub(super) fn pdu_of(fields: &Value) -> Pdu {
    let mut event = json!({
        "room_id": "!room:here",
        "sender": "@alice:here",
        "type": "m.room.message",
        "content": {},
        "origin_server_ts": 1,
        "depth": 1,
        "prev_events": [],
        "auth_events": [],
    });
    event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let canonical = serde_json::from_value(event).unwrap();
    Pdu::from_canonical(&canonical, rules(&RoomVersionId::V11).unwrap()).unwrap()
}
