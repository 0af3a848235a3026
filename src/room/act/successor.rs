//! What other rooms say of a room that is replaced: spaces that hold it, rooms that it holds, and rooms that let its
//! members in. From then on they say it of its successor too, as far as whoever upgrades the room may have them do so.
//!
//! The specification leaves to servers what they carry over. Without this an upgraded room falls out of its space,
//! and who is in an upgraded space can't enter the rooms that it holds.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades> and
//! <https://spec.matrix.org/v1.19/client-server-api/#managing-roomsspaces-included-in-a-space>
//!
//! Nothing of it is part of the upgrade: each room is changed in a write of its own, and if the process dies in
//! between, those that follow stay as they are.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use ruma::{
    CanonicalJsonValue, OwnedRoomId, RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};

use crate::{
    error::{Error, Result},
    event::{Content, Draft},
    room::{
        Rooms, State,
        graph::{
            append::{Plan, Proposal},
            head::Head,
        },
    },
    store,
};

/// How many rooms are changed at once.
const ROOMS_AT_ONCE: usize = 16;
/// How many rooms are looked at in one query.
const CHUNK: usize = 500;

/// Two rooms, of which one takes the place of the other.
#[derive(Clone, Copy)]
pub(super) struct Succession<'a> {
    /// In whose name the other rooms are changed, as far as they may.
    pub(super) by: &'a UserId,
    pub(super) old: &'a RoomId,
    pub(super) new: &'a RoomId,
}

impl Rooms {
    /// Has the rooms of whoever upgrades say it. The upgrade stands whatever becomes of this.
    pub(super) async fn update_referring_rooms(&self, succession: Succession<'_>) {
        let rooms = match self.list_referring(succession).await {
            Ok(rooms) => rooms,
            Err(error) => {
                let room_id = succession.new;
                tracing::warn!(%error, %room_id, "the rooms around an upgraded room were not found");
                return;
            }
        };
        let update = |room_id: OwnedRoomId| async move {
            match self.append(&room_id, |head| Ok(succession.plan(head))).await {
                Ok(_) => {}
                Err(Error::Refused { message, .. }) => {
                    tracing::debug!(%room_id, reason = message, "a room does not take the successor of another");
                }
                Err(error) => tracing::warn!(%error, %room_id, "a room was not told of the successor of another"),
            }
        };
        stream::iter(rooms).map(update).buffer_unordered(ROOMS_AT_ONCE).collect::<()>().await;
    }

    /// The rooms that speak of the old one, of those in which whoever upgrades is. One connection is held for all of
    /// these statements; no room's lock is.
    async fn list_referring(&self, succession: Succession<'_>) -> Result<BTreeSet<OwnedRoomId>> {
        let Succession { by, old, new } = succession;
        let mut conn = self.0.db.read().await?;
        let mut rooms = BTreeSet::new();
        for kind in ["m.space.child", "m.space.parent"] {
            rooms.extend(store::state::list_rooms_with(&mut conn, by, kind, old.as_str()).await?);
        }
        let memberships = store::membership::list_of_user(&mut conn, by).await?;
        let joined = memberships.iter().filter(|row| row.membership == MembershipState::Join);
        let joined: Vec<&RoomId> = joined.map(|row| &*row.room_id).collect();
        for some in joined.chunks(CHUNK) {
            let places = store::state::list_current(&mut conn, some, &["m.room.join_rules"]).await?;
            let rules = store::event::list_at(&mut conn, &places).await?;
            let admits = |content: Content| allowing(&content, old).is_some();
            let admitting = rules.iter().filter(|rule| rule.pdu.content_as().is_ok_and(admits));
            rooms.extend(admitting.map(|rule| rule.pdu.room_id().to_owned()));
        }
        rooms.remove(old);
        rooms.remove(new);
        Ok(rooms)
    }
}

impl Succession<'_> {
    /// What a room is to say of the new room. Empty where the room says it already, so that it may be done again.
    fn plan(self, head: &Head) -> Plan {
        let power = head.state.power_levels(head.rules);
        let may = |kind: &StateEventType| {
            head.state.membership(self.by) == MembershipState::Join && power.user_can_send_state(self.by, kind.clone())
        };
        let state = |kind: &StateEventType, key: &str, content| {
            let kind = TimelineEventType::from(kind.to_string());
            Proposal::from(Draft::state(self.by.to_owned(), kind, key, content))
        };
        let mut proposals = Vec::new();
        for kind in [StateEventType::SpaceChild, StateEventType::SpaceParent].iter().filter(|kind| may(kind)) {
            if let Some(link) = link(&head.state, kind, self.old)
                && self::link(&head.state, kind, self.new).is_none()
            {
                proposals.push(state(kind, self.new.as_str(), link));
                // A link without `via` is none: the old room disappears from the space.
                proposals.push(state(kind, self.old.as_str(), Content::new()));
            }
        }
        let rules = StateEventType::RoomJoinRules;
        if may(&rules)
            && let Some(content) = self.join_rules(&head.state)
        {
            proposals.push(state(&rules, "", content));
        }
        Plan { proposals, ..Plan::default() }
    }

    /// The join rules under which members of the new room may join as well, if those of the old one may.
    fn join_rules(self, state: &State) -> Option<Content> {
        let mut content: Content = state.content(&StateEventType::RoomJoinRules)?;
        if allowing(&content, self.new).is_some() {
            return None;
        }
        let mut condition = allowing(&content, self.old)?.clone();
        condition.insert("room_id".to_owned(), self.new.as_str().into());
        let Some(CanonicalJsonValue::Array(conditions)) = content.get_mut("allow") else { return None };
        // The old one stays: who has not followed yet can still come in.
        conditions.push(condition.into());
        Some(content)
    }
}

/// What the state says of a room in a space, or of a space that the room is in. One without `via` says nothing.
fn link(state: &State, kind: &StateEventType, room_id: &RoomId) -> Option<Content> {
    let content: Content = state.get(&kind.to_string(), room_id.as_str())?.content_as().ok()?;
    content.contains_key("via").then_some(content)
}

/// The condition by which join rules let members of a room in.
fn allowing<'a>(content: &'a Content, room_id: &RoomId) -> Option<&'a Content> {
    let text = |object: &'a Content, key: &str| object.get(key).and_then(CanonicalJsonValue::as_str);
    if !matches!(text(content, "join_rule"), Some("restricted" | "knock_restricted")) {
        return None;
    }
    let conditions = content.get("allow").and_then(CanonicalJsonValue::as_array)?;
    conditions.iter().filter_map(CanonicalJsonValue::as_object).find(|condition| {
        text(condition, "type") == Some("m.room_membership") && text(condition, "room_id") == Some(room_id.as_str())
    })
}
