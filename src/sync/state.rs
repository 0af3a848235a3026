//! The state that a client lacks: what changed in a gap, or all of it, with only the members that it needs.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>

use std::{collections::BTreeSet, sync::Arc};

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
pub(crate) struct RoomState {
    events: Vec<Arc<Pdu>>,
    /// Those that a room without a name is called by, where they or the numbers of members may be news.
    pub(super) heroes: Option<Vec<OwnedUserId>>,
}

impl RoomState {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Arc<Pdu>> {
        self.events.iter()
    }

    /// The same with the events of a timeline, for clients that take no state from there.
    pub(super) fn with(mut self, request: &Request, timeline: &Timeline) -> Self {
        let wanted = |pdu: &&Arc<Pdu>| pdu.is_state() && request.state_after && request.filter.room.state.passes(pdu);
        for pdu in timeline.events.iter().map(|event| &event.pdu).filter(wanted) {
            self.events.retain(|before| (before.kind(), before.state_key()) != (pdu.kind(), pdu.state_key()));
            self.events.push(Arc::clone(pdu));
        }
        self
    }
}

const MEMBER: &str = "m.room.member";
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

/// What a client needs to have the room's state as it is at `until`, where the timeline ends: all of it, or what changed
/// since the client's position.
///
/// A client that takes state from the timeline applies that to what it is told here. So this is the state before the
/// timeline, and what has come since that the timeline does not tell. For one that does not it is the state at the end.
pub(super) async fn gather(
    sources: &Sources,
    request: &Request,
    room: &Room,
    since: &Since,
    timeline: &Timeline,
    until: Position,
) -> Result<RoomState> {
    let filter = &request.filter.room.state;
    let at = if request.state_after { until } else { timeline.state_at(until) };
    let known = since.known_state().filter(|_| !request.full_state);
    let mut state = match known {
        None => sources.rooms.state_at(room, at).await?,
        Some(known) if known < at => {
            let changes = sources.rooms.list_changes(room, known, at).await?;
            changes.into_iter().filter_map(|change| change.event).collect()
        }
        Some(_) => State::default(),
    };
    for event in timeline.untold.iter().filter_map(|change| change.event.as_ref()) {
        state.insert(Arc::clone(event));
    }
    let told = timeline.events.iter().map(|event| &event.pdu).chain(state.iter());
    let heroes = (since.is_inside()
        && (known.is_none() || timeline.limited || told.into_iter().any(|pdu| is_member(pdu))))
    .then(|| room.view(|view| heroes(&view.state, &request.user_id)));
    let mut events: Vec<Arc<Pdu>> = state.iter().cloned().collect();
    if !filter.lazy_load_options.is_disabled() {
        let needed = needed_members(&request.user_id, timeline, heroes.as_deref());
        if known.is_none() {
            events.retain(|pdu| !is_member(pdu) || pdu.state_key().is_some_and(|user| needed.contains(user)));
        } else {
            // The client may never have been told who these are.
            let is_told = |user: &str| user == request.user_id || state.get(MEMBER, user).is_some();
            let missing: Vec<&str> = needed.into_iter().filter(|user| !is_told(user)).collect();
            events.extend(sources.rooms.list_state_events_at(room, at, MEMBER, &missing).await?);
        }
    }
    sources.rooms.withhold_state(&room.view(|view| view.room_id.clone()), &request.user_id, &mut events).await?;
    events.retain(|pdu| filter.passes(pdu));
    // In the order of the room's history, as far as one order can tell.
    events.sort_by(|a, b| (a.depth(), a.event_id()).cmp(&(b.depth(), b.event_id())));
    Ok(RoomState { events, heroes })
}

/// Whether the event is a membership. They change what a room without a name is called.
fn is_member(pdu: &Pdu) -> bool {
    pdu.is_state() && *pdu.kind() == TimelineEventType::RoomMember
}

/// Those whose events are in the timeline, those that the room may be called by, and the user.
fn needed_members<'a>(
    user_id: &'a UserId,
    timeline: &'a Timeline,
    heroes: Option<&'a [OwnedUserId]>,
) -> BTreeSet<&'a str> {
    let senders = timeline.events.iter().map(|event| event.pdu.sender().as_str());
    let heroes = heroes.unwrap_or_default().iter().map(|hero| hero.as_str());
    senders.chain(heroes).chain([user_id.as_str()]).collect()
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
