//! A room as it looks from outside.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedRoomId, RoomId, RoomVersionId, UInt,
    events::{
        StateEventType,
        room::{
            avatar::RoomAvatarEventContent, canonical_alias::RoomCanonicalAliasEventContent,
            encryption::RoomEncryptionEventContent, guest_access::GuestAccess,
            guest_access::RoomGuestAccessEventContent, history_visibility::HistoryVisibility,
        },
    },
    room::{JoinRule, JoinRuleSummary, RoomSummary, RoomType},
};
use serde::Deserialize;

use crate::{
    db::{Conn, DbResult},
    event::Pdu,
    position::Position,
    room::State,
    store, words,
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

/// What is told of a room.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) summary: RoomSummary,
    /// The rooms of a space, in the order in which clients show them.
    pub(crate) children: Vec<Arc<Pdu>>,
    /// Name, topic and alias, folded to be searched in.
    words: String,
    /// What came later is not part of it.
    pub(super) position: Position,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

#[derive(Deserialize)]
struct Create {
    #[serde(rename = "type")]
    kind: Option<RoomType>,
    room_version: Option<RoomVersionId>,
}

#[derive(Default, Deserialize)]
struct Child {
    #[serde(default)]
    via: Vec<String>,
    #[serde(default)]
    order: Option<serde_json::Value>,
}

impl Card {
    fn new(room_id: OwnedRoomId, state: &State, joined: i64, position: Position) -> Self {
        let create: Option<Create> = state.content(&StateEventType::RoomCreate);
        let rule: Option<JoinRule> = state.content(&StateEventType::RoomJoinRules);
        let guests: Option<RoomGuestAccessEventContent> = state.content(&StateEventType::RoomGuestAccess);
        let mut summary = RoomSummary::new(
            room_id,
            rule.map_or(JoinRuleSummary::Invite, Into::into),
            guests.is_some_and(|content| content.guest_access == GuestAccess::CanJoin),
            UInt::try_from(joined).unwrap_or_default(),
            state.history_visibility() == HistoryVisibility::WorldReadable,
        );
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        summary.name = state.content(&StateEventType::RoomName).and_then(|content: Name| filled(content.name));
        summary.topic = state.content(&StateEventType::RoomTopic).and_then(|content: Topic| filled(content.topic));
        let alias: Option<RoomCanonicalAliasEventContent> = state.content(&StateEventType::RoomCanonicalAlias);
        summary.canonical_alias = alias.and_then(|content| content.alias);
        let avatar: Option<RoomAvatarEventContent> = state.content(&StateEventType::RoomAvatar);
        summary.avatar_url = avatar.and_then(|content| content.url).filter(|url| !url.as_str().is_empty());
        let encryption: Option<RoomEncryptionEventContent> = state.content(&StateEventType::RoomEncryption);
        summary.encryption = encryption.map(|content| content.algorithm);
        if let Some(Create { kind, room_version }) = create {
            summary.room_type = kind;
            summary.room_version = room_version.or(Some(RoomVersionId::V1));
        }
        let words =
            [summary.name.as_deref(), summary.topic.as_deref(), summary.canonical_alias.as_ref().map(AsRef::as_ref)];
        let words = words::fold(&words.into_iter().flatten().collect::<Vec<_>>().join("\n"));
        Self { children: children(state), summary, words, position }
    }

    pub(crate) fn room_id(&self) -> &RoomId {
        &self.summary.room_id
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
        let allowed = match &self.summary.join_rule {
            JoinRuleSummary::Restricted(restricted) | JoinRuleSummary::KnockRestricted(restricted) => {
                restricted.allowed_room_ids.as_slice()
            }
            _ => &[],
        };
        allowed.iter().map(AsRef::as_ref)
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
pub(super) async fn read(snapshot: &mut Conn, rooms: &[&RoomId], position: Position) -> DbResult<Vec<Card>> {
    let places = store::state::list_current(snapshot, rooms, &KINDS).await?;
    let mut joined: HashMap<OwnedRoomId, i64> =
        store::membership::count_joined(snapshot, rooms).await?.into_iter().collect();
    let mut states: HashMap<OwnedRoomId, State> = HashMap::new();
    for event in store::event::list_at(snapshot, &places).await? {
        states.entry(event.pdu.room_id().to_owned()).or_default().insert(event.pdu);
    }
    let card = |(room_id, state): (OwnedRoomId, State)| {
        let joined = joined.remove(&room_id).unwrap_or_default();
        Card::new(room_id, &state, joined, position)
    };
    Ok(states.into_iter().map(card).collect())
}
