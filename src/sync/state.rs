//! The state that a client lacks: what changed in a gap, or all of it, with only the members that it needs.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedUserId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{Request, gather::Sources, membership::Since, timeline::Timeline};
use crate::{
    error::Result,
    event::Pdu,
    position::Position,
    room::{Room, State, filter::PduFilter as _, state::membership_of},
};

/// The state events to tell.
#[derive(Debug, Default)]
pub(crate) struct RoomState(Vec<Arc<Pdu>>);

impl RoomState {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Arc<Pdu>> {
        self.0.iter()
    }

    /// The same with the events of a timeline, for clients that take no state from there.
    pub(super) fn with(mut self, request: &Request, timeline: &Timeline) -> Self {
        let wanted = |pdu: &&Arc<Pdu>| request.state_after && request.filter.room.state.passes(pdu);
        for pdu in timeline.events.iter().map(|event| &event.pdu).filter(wanted) {
            self.0.retain(|before| (before.kind(), before.state_key()) != (pdu.kind(), pdu.state_key()));
            self.0.push(Arc::clone(pdu));
        }
        self
    }
}

/// What is told of a room from outside it.
const STRIPPED: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// The state before the timeline, or after it where the request says so, as far as the client lacks it.
pub(super) async fn gather(
    inner: &Sources,
    request: &Request,
    room: &Room,
    since: &Since,
    timeline: &Timeline,
    until: Position,
) -> Result<RoomState> {
    let filter = &request.filter.room.state;
    let at = if request.state_after { until } else { timeline.start };
    let lazy = !filter.lazy_load_options.is_disabled();
    let known = since.known_state().filter(|_| !request.full_state);
    let mut events = match known {
        None => {
            let state = inner.rooms.state_at(room, at).await?;
            let needed = needed_members(&request.user_id, timeline);
            if lazy {
                state.iter().filter(|pdu| !is_member(pdu) || is_needed(pdu, &needed)).cloned().collect()
            } else {
                state.iter().cloned().collect()
            }
        }
        Some(_) if !timeline.limited && !request.state_after => Vec::new(),
        Some(known) => inner.rooms.changed_state(room, known, at).await?,
    };
    if known.is_some() && lazy && !timeline.events.is_empty() {
        // The client may never have been told who these are.
        let state = inner.rooms.state_at(room, at).await?;
        for user in needed_members(&request.user_id, timeline).iter().filter(|user| **user != request.user_id) {
            if let Some(member) = state.member(user)
                && !events.iter().any(|pdu| pdu.event_id() == member.event_id())
            {
                events.push(Arc::clone(member));
            }
        }
    }
    inner.rooms.withhold_state(&room.view(|view| view.room_id.clone()), &request.user_id, &mut events).await?;
    events.retain(|pdu| filter.passes(pdu));
    // In the order of the room's history, as far as one order can tell.
    events.sort_by(|a, b| (a.depth(), a.event_id()).cmp(&(b.depth(), b.event_id())));
    Ok(RoomState(events))
}

fn is_member(pdu: &Pdu) -> bool {
    *pdu.kind() == TimelineEventType::RoomMember
}

fn is_needed(pdu: &Pdu, needed: &HashSet<OwnedUserId>) -> bool {
    pdu.state_key().is_some_and(|user| needed.iter().any(|needed| needed == user))
}

/// Those whose events are in the timeline, and the user.
fn needed_members(user_id: &UserId, timeline: &Timeline) -> HashSet<OwnedUserId> {
    let senders = timeline.events.iter().map(|event| event.pdu.sender().to_owned());
    senders.chain([user_id.to_owned()]).collect()
}

/// What somebody who is invited or has knocked is told: the room's face, their own membership, and who invited them.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
pub(super) fn stripped(state: &State, user_id: &UserId) -> Vec<Arc<Pdu>> {
    let mut events: Vec<_> = STRIPPED.iter().filter_map(|kind| state.get(kind, "").cloned()).collect();
    if let Some(own) = state.member(user_id) {
        if own.sender() != user_id {
            events.extend(state.member(own.sender()).cloned());
        }
        events.push(Arc::clone(own));
    }
    events
}

/// Up to five others, for naming a room that has no name: members and invited before those who have left.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-room>
pub(super) fn heroes(state: &State, user_id: &UserId) -> Vec<OwnedUserId> {
    if has_name(state) {
        return Vec::new();
    }
    let mut present = BTreeSet::new();
    let mut gone = BTreeSet::new();
    for (user, pdu) in state.members().filter(|(user, _)| *user != user_id) {
        let group = match membership_of(pdu) {
            MembershipState::Join | MembershipState::Invite => &mut present,
            _ => &mut gone,
        };
        group.insert((pdu.depth(), user));
    }
    let heroes = if present.is_empty() { gone } else { present };
    heroes.into_iter().take(5).map(|(_, user)| user.to_owned()).collect()
}

fn has_name(state: &State) -> bool {
    let filled = |kind: &str, field: &str| {
        state.get(kind, "").is_some_and(|pdu| {
            let content = pdu.content_as::<serde_json::Map<String, serde_json::Value>>();
            content.is_ok_and(|content| content.get(field).and_then(|v| v.as_str()).is_some_and(|v| !v.is_empty()))
        })
    };
    filled("m.room.name", "name") || filled("m.room.canonical_alias", "alias")
}
