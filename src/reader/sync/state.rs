//! The state that a client lacks: what changed in a gap, or all of it, with only the members that it needs.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedUserId, UserId, events::TimelineEventType};

use super::{
    membership::ClientView,
    sources::{Sources, SyncRequest},
    timeline::Timeline,
    wanted::Members,
};
use crate::{
    error::Result,
    event::Pdu,
    ground::position::Order,
    room::{Room, State, read::filter::PduFilter as _},
};

/// The state events to send.
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

    /// In the order in which they are sent.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Arc<Pdu>> {
        self.events.iter()
    }

    /// This state with the events of a timeline, for clients that take no state from there.
    pub(super) fn with(mut self, request: &SyncRequest, timeline: &Timeline) -> Self {
        let wanted = |pdu: &&Arc<Pdu>| pdu.is_state() && request.state_after && request.wanted.state.events.passes(pdu);
        for pdu in timeline.events.iter().map(|event| &event.pdu).filter(wanted) {
            self.events.retain(|before| (before.kind(), before.state_key()) != (pdu.kind(), pdu.state_key()));
            self.events.push(Arc::clone(pdu));
        }
        self
    }
}

const MEMBER: &str = "m.room.member";

/// What a client needs to have the room's state as it is at `until`, where the timeline ends: all of it, or what
/// changed since the client's position.
///
/// A client that takes state from the timeline applies that to what it gets here. So this is the state before the
/// timeline, and what has come since that the timeline does not hold. For one that does not it is the state at the end.
pub(super) async fn gather(
    sources: &Sources,
    request: &SyncRequest,
    room: &Room,
    since: &ClientView,
    timeline: &Timeline,
    until: Order,
) -> Result<RoomState> {
    let wanted = &request.wanted.state;
    // One state for both: what the client makes of state and timeline together is the state at `until`.
    let at = if request.state_after { until } else { timeline.state_at(until) };
    let known = since.known_state().map(Order::at).filter(|_| !request.full_state);
    let mut state = match known {
        None => sources.rooms.state_at(room, at).await?,
        Some(known) if known < at => {
            let changes = sources.rooms.list_changes(room, known, at).await?;
            changes.into_iter().filter_map(|change| change.event).collect()
        }
        // The client knows as much as the timeline begins with.
        Some(_) => State::default(),
    };
    for event in timeline.hidden_changes.iter().filter_map(|change| change.event.as_ref()) {
        state.insert(Arc::clone(event));
    }
    let changes_members =
        || timeline.events.iter().any(|event| is_member(&event.pdu)) || state.members().next().is_some();
    // Names are made of members, so they are news where members may have changed that the client does not see.
    let heroes = (since.is_inside() && (known.is_none() || timeline.limited || changes_members()))
        .then(|| room.view(|view| view.state.heroes(&request.client.user_id)));
    let mut events: Vec<Arc<Pdu>>;
    if wanted.members == Members::All {
        events = state.iter().collect();
    } else {
        let needed = needed_members(&request.client.user_id, timeline, heroes.as_deref());
        if known.is_none() {
            let needed = needed.into_iter().filter_map(|user| state.get(MEMBER, user).cloned());
            events = state.iter_without_members().chain(needed).collect();
        } else {
            events = state.iter().collect();
            // The client may never have learned who these are.
            let is_known = |user: &str| user == request.client.user_id || state.get(MEMBER, user).is_some();
            let missing: Vec<&str> = needed.into_iter().filter(|user| !is_known(user)).collect();
            events.extend(sources.rooms.list_state_events_at(room, at, MEMBER, &missing).await?);
        }
    }
    // Before the filter, which goes by the content that the reader gets.
    sources.rooms.withhold_state(&room.view(|view| view.room_id.clone()), &request.client.user_id, &mut events).await?;
    events.retain(|pdu| wanted.events.passes(pdu));
    // In the order of the room's history, as far as one order can show it.
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

/// What somebody who is invited or has knocked gets: the room's face, their own membership, and who invited them.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
pub(super) fn stripped(state: &State, user_id: &UserId) -> Vec<Arc<Pdu>> {
    let mut events = state.introduction();
    if let Some(own) = state.member(user_id) {
        if own.sender() != user_id {
            events.extend(state.member(own.sender()).cloned());
        }
        events.push(Arc::clone(own));
    }
    events
}
