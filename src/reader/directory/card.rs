//! A room as it looks from outside.
//!
//! A room may hold any state, so every field is read by itself, and what is not as the specification has it is left
//! out: one odd event must not hide a room.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    EventEncryptionAlgorithm, OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, RoomId, RoomVersionId, UInt,
    events::{StateEventType, room::history_visibility::HistoryVisibility},
    room::RoomType,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    db::{Conn, DbResult},
    event::Pdu,
    ground::{position::Position, words},
    room::State,
    store,
};

/// The state that a card is made of, members apart.
pub(super) const KINDS: [&str; 10] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.encryption",
    "m.space.child",
];

/// What a card takes beside its texts and children, and a text beside itself, in bytes.
const CARD_BYTES: usize = 1_024;
const PIECE_BYTES: usize = 64;

/// What is shown of a room.
#[derive(Debug)]
pub(crate) struct RoomCard {
    pub(crate) summary: RoomSummary,
    /// The rooms of a space, in the order in which clients show them.
    pub(crate) children: Vec<Arc<Pdu>>,
    /// Name, topic and alias, folded to be searched in.
    words: String,
    /// What came later is not part of it.
    pub(super) position: Position,
}

/// The part of it that everybody reads who may know of the room.
///
/// ruma's type can't be written where a room has a join rule that ruma does not know, and says nothing where everybody
/// may join.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RoomSummary {
    pub(crate) room_id: OwnedRoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) canonical_alias: Option<OwnedRoomAliasId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) avatar_url: Option<OwnedMxcUri>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room_type: Option<RoomType>,
    pub(crate) num_joined_members: UInt,
    /// As the room has it, whatever that means.
    pub(crate) join_rule: String,
    /// For rules that let members of other rooms in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allowed_room_ids: Option<Vec<OwnedRoomId>>,
    pub(crate) world_readable: bool,
    pub(crate) guest_can_join: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption: Option<EventEncryptionAlgorithm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room_version: Option<RoomVersionId>,
}

impl RoomSummary {
    /// What the directory says of a room.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>
    pub(crate) fn as_published(&self) -> Self {
        Self { allowed_room_ids: None, encryption: None, room_version: None, ..self.clone() }
    }
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
    fn new(room_id: OwnedRoomId, state: &State, joined: i64, position: Position) -> Self {
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
        Self { children: children(state), summary, words, position }
    }

    pub(crate) fn room_id(&self) -> &RoomId {
        &self.summary.room_id
    }

    /// How many bytes it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let RoomSummary { room_id, name, topic, avatar_url, join_rule, allowed_room_ids, .. } = &self.summary;
        let texts = [name.as_deref(), topic.as_deref(), avatar_url.as_ref().map(|url| url.as_str())];
        let texts = texts.into_iter().flatten().chain([join_rule.as_str(), &self.words, room_id.as_str()]);
        let allowed = allowed_room_ids.iter().flatten().map(|room_id| PIECE_BYTES + room_id.as_str().len());
        let children = self.children.iter().map(|child| child.bytes());
        CARD_BYTES + texts.map(str::len).chain(allowed).chain(children).sum::<usize>()
    }

    pub(crate) fn joined(&self) -> UInt {
        self.summary.num_joined_members
    }

    /// Whether name, topic or alias hold a term, which is folded as they are.
    pub(super) fn mentions(&self, term: &str) -> bool {
        self.words.contains(term)
    }

    /// The rooms whose members may join.
    pub(super) fn allowed_rooms(&self) -> impl Iterator<Item = &RoomId> {
        self.summary.allowed_room_ids.iter().flatten().map(AsRef::as_ref)
    }

    pub(super) fn is_space(&self) -> bool {
        self.summary.room_type == Some(RoomType::Space)
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

/// The cards of those of the rooms that there are, as of `position`, which is the end of the log in this snapshot.
pub(super) async fn read(snapshot: &mut Conn, rooms: &[&RoomId], position: Position) -> DbResult<Vec<RoomCard>> {
    let places = store::state::list_current(snapshot, rooms, &KINDS).await?;
    let mut joined: HashMap<OwnedRoomId, i64> =
        store::membership::count_joined(snapshot, rooms).await?.into_iter().collect();
    let mut states: HashMap<OwnedRoomId, State> = HashMap::new();
    for event in store::event::list_at(snapshot, &places).await? {
        states.entry(event.pdu.room_id().to_owned()).or_default().insert(event.pdu);
    }
    let card = |(room_id, state): (OwnedRoomId, State)| {
        let joined = joined.remove(&room_id).unwrap_or_default();
        RoomCard::new(room_id, &state, joined, position)
    };
    Ok(states.into_iter().map(card).collect())
}
