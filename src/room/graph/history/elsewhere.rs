//! A room that began elsewhere, as the servers have it that are in it, for tests.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, UserId, owned_server_name};
use serde_json::{Value, json};

use crate::{
    event::{Draft, GraphPlace, Pdu, SigningKey, Standing},
    ground::room_version::rules,
    room::{Entry, graph::receive::model::Model, world::json as content},
};

/// A room as the servers have it that are in it, all of whom know everything.
pub(in crate::room::graph) struct Elsewhere {
    pub(in crate::room::graph) model: Model,
    pub(in crate::room::graph) room_id: OwnedRoomId,
    rules: &'static ruma::room_version_rules::RoomVersionRules,
    key: SigningKey,
    /// In an order in which they may have happened.
    pub(in crate::room::graph) events: Vec<Arc<Pdu>>,
}

pub(in crate::room::graph) fn alice() -> OwnedUserId {
    "@alice:elsewhere".try_into().unwrap()
}

impl Elsewhere {
    pub(in crate::room::graph) fn new(visibility: &str) -> Self {
        let rules = rules(&RoomVersionId::V11).unwrap();
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        let room_id = "!room:elsewhere".try_into().unwrap();
        let mut room = Self { model: Model::new(rules), room_id, rules, key, events: Vec::new() };
        room.add(&alice(), "m.room.create", Some(""), json!({ "room_version": "11" }), &[]);
        room.say_next(&alice(), "m.room.member", Some("@alice:elsewhere"), json!({ "membership": "join" }));
        let powers = json!({ "users": { "@alice:elsewhere": 100 } });
        room.say_next(&alice(), "m.room.power_levels", Some(""), powers);
        room.say_next(&alice(), "m.room.join_rules", Some(""), json!({ "join_rule": "public" }));
        room.say_next(&alice(), "m.room.history_visibility", Some(""), json!({ "history_visibility": visibility }));
        room
    }

    /// Somebody does something after some events.
    pub(in crate::room::graph) fn add(
        &mut self,
        sender: &UserId,
        kind: &str,
        state_key: Option<&str>,
        value: Value,
        prev: &[OwnedEventId],
    ) {
        let mut draft = Draft::message(sender.to_owned(), kind.into(), content(value));
        draft.state_key = state_key.map(ToOwned::to_owned);
        self.add_draft(draft, prev);
    }

    /// Somebody redacts one of the events, after everything else. Returns which event that is.
    pub(in crate::room::graph) fn redact(&mut self, sender: &UserId, target: usize) -> usize {
        let prev: Vec<OwnedEventId> = self.model.extremities.iter().cloned().collect();
        self.redact_after(sender, target, &prev)
    }

    pub(in crate::room::graph) fn redact_after(
        &mut self,
        sender: &UserId,
        target: usize,
        prev: &[OwnedEventId],
    ) -> usize {
        let draft = Draft::message(sender.to_owned(), "m.room.redaction".into(), content(json!({})));
        self.add_draft(Draft { redacts: Some(self.events[target].event_id().to_owned()), ..draft }, prev);
        self.events.len() - 1
    }

    pub(in crate::room::graph) fn add_draft(&mut self, draft: Draft, prev: &[OwnedEventId]) {
        let auth_events = self.model.auth_events(&draft, &self.model.after_all(prev));
        let depth = prev.iter().map(|id| self.model.events[id].pdu.depth()).max().unwrap_or(0) + 1;
        let place = GraphPlace { room_id: Some(self.room_id.clone()), depth, prev_events: prev.to_vec(), auth_events };
        let now = ruma::MilliSecondsSinceUnixEpoch(ruma::UInt::try_from(self.events.len() + 1).unwrap());
        let pdu = draft.sign(&place, now, &owned_server_name!("elsewhere"), &self.key, self.rules).unwrap();
        let pdu = Arc::new(pdu);
        assert_eq!(self.model.add(Arc::clone(&pdu)), Standing::Accepted, "{}", pdu.json());
        self.events.push(pdu);
    }

    /// Alice says something after some of the events. Returns which event that is.
    pub(in crate::room::graph) fn say_after(&mut self, prev: &[usize]) -> usize {
        let content = json!({ "msgtype": "m.text", "body": format!("apple {}", self.events.len()) });
        let prev: Vec<OwnedEventId> = prev.iter().map(|place| self.events[*place].event_id().to_owned()).collect();
        self.add(&alice(), "m.room.message", None, content, &prev);
        self.events.len() - 1
    }

    /// So many messages, one after the other. Returns the last.
    pub(in crate::room::graph) fn say_many_after(&mut self, prev: usize, count: usize) -> usize {
        (0..count).fold(prev, |prev, _| self.say_after(&[prev]))
    }

    pub(in crate::room::graph) fn say_next(
        &mut self,
        sender: &UserId,
        kind: &str,
        state_key: Option<&str>,
        value: Value,
    ) {
        let prev: Vec<OwnedEventId> = self.model.extremities.iter().cloned().collect();
        self.add(sender, kind, state_key, value, &prev);
    }

    pub(in crate::room::graph) fn ids_before(&self, event_id: &EventId) -> Vec<OwnedEventId> {
        self.model.events[event_id].before.values().cloned().collect()
    }

    pub(in crate::room::graph) fn place_of(&self, event_id: &EventId) -> usize {
        self.events.iter().position(|pdu| pdu.event_id() == event_id).unwrap()
    }

    /// What another server answers to somebody whose joining is an event of the room.
    pub(in crate::room::graph) fn entry(&self, join: usize) -> Entry {
        let join = &self.events[join];
        let state = self.ids_before(join.event_id());
        let ends: Vec<OwnedEventId> = state.iter().cloned().chain([join.event_id().to_owned()]).collect();
        let pdu = |id: &OwnedEventId| Arc::clone(&self.model.events[id].pdu);
        Entry {
            version: RoomVersionId::V11,
            state: state.iter().map(pdu).collect(),
            auth_chain: self.model.chain(ends.iter()).iter().map(pdu).collect(),
            join: Pdu::clone(join),
        }
    }

    /// A membership of somebody whom the room's servers have forgotten to tell of: it is no event of the room.
    pub(in crate::room::graph) fn stray_member(&self, user_id: &UserId, membership: &str) -> Arc<Pdu> {
        let value = content(json!({ "membership": membership }));
        let draft = Draft::state(user_id.to_owned(), "m.room.member".into(), user_id.as_str(), value);
        let auth_events = self.model.auth_events(&draft, &self.model.current);
        let prev_events = self.model.extremities.iter().cloned().collect();
        let place = GraphPlace { room_id: Some(self.room_id.clone()), depth: 9, prev_events, auth_events };
        let now = ruma::MilliSecondsSinceUnixEpoch(ruma::UInt::from(9_u32));
        Arc::new(draft.sign(&place, now, user_id.server_name(), &self.key, self.rules).unwrap())
    }

    /// Chunks as another server gives them: so many events before some, the newest, oldest first.
    pub(in crate::room::graph) fn chunk_before(
        &self,
        missing: &[OwnedEventId],
        known: &BTreeSet<OwnedEventId>,
        most: usize,
    ) -> Vec<&Arc<Pdu>> {
        let mut found = BTreeSet::new();
        let mut todo: BTreeSet<usize> = missing.iter().map(|id| self.place_of(id)).collect();
        while let Some(newest) = todo.pop_last().filter(|_| found.len() < most) {
            let pdu = &self.events[newest];
            if !known.contains(pdu.event_id()) && found.insert(newest) {
                todo.extend(pdu.prev_events().iter().map(|id| self.place_of(id)));
            }
        }
        found.into_iter().map(|place| &self.events[place]).collect()
    }
}
