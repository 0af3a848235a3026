//! A room as it looks from outside.
//!
//! A room may hold any state, so every field is read by itself, and what is not as the specification has it is left
//! out: one odd event must not hide a room.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, ServerName, UInt,
    events::{StateEventType, room::history_visibility::HistoryVisibility},
    room::RoomType,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    db::{Conn, DbResult},
    event::Pdu,
    ground::{position::Position, words},
    room::{State, read::summary::RoomSummary},
    store,
};

/// The state that a card is made of, members apart.
pub(super) const KINDS: [&str; 11] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.encryption",
    "m.room.server_acl",
    "m.space.child",
];

/// What a card takes beside its texts and events, in bytes.
const CARD_BYTES: usize = 1_024;
/// How many ways to a room of a space are looked at.
const MOST_WAYS: usize = 10;

/// What is shown of a room.
#[derive(Debug)]
pub(crate) struct RoomCard {
    pub(crate) summary: Arc<RoomSummary>,
    /// The rooms of a space, in the order in which clients show them.
    pub(crate) children: Vec<Arc<Pdu>>,
    /// Whether somebody of this server is in the room, so that this is what the room is now.
    pub(super) is_resident: bool,
    /// Whether users of other servers may be in it at all, and which servers' may.
    federates: bool,
    server_acl: Option<Arc<Pdu>>,
    /// Name, topic and alias, folded to be searched in.
    words: String,
    /// What came later is not part of it.
    pub(super) position: Position,
}

/// The text in one field of a piece of state, if there is any: a room may hold anything.
fn text(state: &State, kind: &StateEventType, field: &str) -> Option<String> {
    let mut content: Map<String, Value> = state.content(kind)?;
    match content.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// The rooms that join rules name whose members may join.
fn allowed_rooms(state: &State) -> Vec<OwnedRoomId> {
    let content: Option<Map<String, Value>> = state.content(&StateEventType::RoomJoinRules);
    let conditions = content.as_ref().and_then(|content| content.get("allow")?.as_array());
    let room = |condition: &Value| {
        let is_membership = condition.get("type")?.as_str()? == "m.room_membership";
        OwnedRoomId::try_from(condition.get("room_id")?.as_str()?).ok().filter(|_| is_membership)
    };
    conditions.into_iter().flatten().filter_map(room).collect()
}

/// What an `m.space.child` says, as far as it is looked at.
#[derive(Default, Deserialize)]
struct Child {
    /// A child without servers is one that was taken out.
    #[serde(default)]
    via: Vec<String>,
    #[serde(default)]
    order: Option<serde_json::Value>,
}

impl RoomCard {
    fn new(room_id: OwnedRoomId, state: &State, (joined, is_resident): (i64, bool), position: Position) -> Self {
        // Without the first event there is no version to name.
        let has_create = state.find(&StateEventType::RoomCreate).is_some();
        let version = text(state, &StateEventType::RoomCreate, "room_version");
        // An empty rule is one that nobody knows; none at all is the one that rooms begin with.
        let rules: Option<Map<String, Value>> = state.content(&StateEventType::RoomJoinRules);
        let rule = rules.as_ref().and_then(|rules| rules.get("join_rule")?.as_str()).unwrap_or("invite");
        let summary = RoomSummary {
            room_id,
            canonical_alias: text(state, &StateEventType::RoomCanonicalAlias, "alias")
                .and_then(|alias| alias.try_into().ok()),
            name: text(state, &StateEventType::RoomName, "name"),
            topic: text(state, &StateEventType::RoomTopic, "topic"),
            avatar_url: text(state, &StateEventType::RoomAvatar, "url").map(Into::into),
            room_type: text(state, &StateEventType::RoomCreate, "type").map(Into::into),
            num_joined_members: UInt::try_from(joined).unwrap_or_default(),
            join_rule: rule.to_owned(),
            allowed_room_ids: matches!(rule, "restricted" | "knock_restricted").then(|| allowed_rooms(state)),
            world_readable: state.history_visibility() == HistoryVisibility::WorldReadable,
            guest_can_join: text(state, &StateEventType::RoomGuestAccess, "guest_access")
                .is_some_and(|access| access == "can_join"),
            encryption: text(state, &StateEventType::RoomEncryption, "algorithm").map(Into::into),
            room_version: has_create
                .then(|| version.and_then(|version| version.try_into().ok()).unwrap_or(RoomVersionId::V1)),
        };
        let words =
            [summary.name.as_deref(), summary.topic.as_deref(), summary.canonical_alias.as_ref().map(AsRef::as_ref)];
        let words = words::fold(&words.into_iter().flatten().collect::<Vec<_>>().join("\n"));
        let create: Option<Map<String, Value>> = state.content(&StateEventType::RoomCreate);
        let federates = create.is_none_or(|create| create.get("m.federate") != Some(&Value::Bool(false)));
        let server_acl = state.find(&StateEventType::RoomServerAcl).cloned();
        let (summary, children) = (Arc::new(summary), children(state));
        Self { summary, children, is_resident, federates, server_acl, words, position }
    }

    pub(crate) fn room_id(&self) -> &RoomId {
        &self.summary.room_id
    }

    /// Whether users of another server may come into the room, or be in it, as far as it goes by their server.
    pub(super) fn admits(&self, server: &ServerName) -> bool {
        let state: State = self.server_acl.iter().cloned().collect();
        self.federates && state.allows(server)
    }

    /// How many bytes it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let events = self.children.iter().chain(&self.server_acl).map(|event| event.bytes());
        CARD_BYTES + self.words.len() + self.summary.bytes() + events.sum::<usize>()
    }

    pub(crate) fn joined(&self) -> UInt {
        self.summary.num_joined_members
    }

    /// Whether name, topic or alias hold a term, which is folded as they are.
    pub(super) fn mentions(&self, term: &str) -> bool {
        self.words.contains(term)
    }

    pub(super) fn is_space(&self) -> bool {
        self.summary.room_type == Some(RoomType::Space)
    }

    /// The servers by which a room that this one holds can be reached.
    pub(super) fn ways_to(child: &Pdu) -> Vec<OwnedServerName> {
        let child: Child = child.content_as().unwrap_or_default();
        child.via.iter().take(MOST_WAYS).filter_map(|server| server.as_str().try_into().ok()).collect()
    }
}

/// The children of a space that clients can reach.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space>
fn children(state: &State) -> Vec<Arc<Pdu>> {
    let mut children: Vec<(Option<String>, &Arc<Pdu>)> = Vec::new();
    for (room_id, pdu) in state.of_kind("m.space.child") {
        let child: Child = pdu.content_as().unwrap_or_default();
        if child.via.is_empty() || <&RoomId>::try_from(room_id).is_err() {
            continue;
        }
        let order = child.order.as_ref().and_then(|order| order.as_str()).map(ToOwned::to_owned);
        let is_valid = |order: &String| order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        children.push((order.filter(is_valid), pdu));
    }
    // Those without an order come last.
    children.sort_by(|(a_order, a), (b_order, b)| {
        (a_order.is_none(), a_order, a.origin_server_ts(), a.state_key()).cmp(&(
            b_order.is_none(),
            b_order,
            b.origin_server_ts(),
            b.state_key(),
        ))
    });
    children.into_iter().map(|(_, pdu)| Arc::clone(pdu)).collect()
}

/// The cards of those of the rooms that there are, as of `position`, which is the end of the log in this snapshot. `here` is
/// this server.
pub(super) async fn read(
    snapshot: &mut Conn,
    rooms: &[&RoomId],
    here: &ServerName,
    position: Position,
) -> DbResult<Vec<RoomCard>> {
    let places = store::state::list_current(snapshot, rooms, &KINDS).await?;
    let mut joined: HashMap<OwnedRoomId, i64> =
        store::membership::count_joined(snapshot, rooms).await?.into_iter().collect();
    let resident: HashSet<OwnedRoomId> =
        store::membership::list_rooms_with_server(snapshot, rooms, here).await?.into_iter().collect();
    let mut states: HashMap<OwnedRoomId, State> = HashMap::new();
    for event in store::event::list_at(snapshot, &places).await? {
        states.entry(event.pdu.room_id().to_owned()).or_default().insert(event.pdu);
    }
    let card = |(room_id, state): (OwnedRoomId, State)| {
        let joined = joined.remove(&room_id).unwrap_or_default();
        let is_resident = resident.contains(&room_id);
        RoomCard::new(room_id, &state, (joined, is_resident), position)
    };
    Ok(states.into_iter().map(card).collect())
}
