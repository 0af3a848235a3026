//! What another server has answered to a join, and what follows from that alone.

use std::sync::Arc;

use ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId, ServerName,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use crate::{
    error::{Error, Result},
    event::{Pdu, StateChange},
    ground::room_version,
    room::{
        State,
        graph::{
            append::unsupported,
            receive::{check_auth_events, check_format, check_state_before},
            state::membership_of,
        },
    },
};

/// A room as another server has it that has let a user of this one join. All events are verified: signatures and hashes.
pub struct Entry {
    pub version: RoomVersionId,
    /// The room's state before the join.
    pub state: Vec<Arc<Pdu>>,
    /// What the events of the state cite, directly or not, and the join does.
    pub auth_chain: Vec<Arc<Pdu>>,
    /// The membership event as the other server has taken it.
    pub join: Pdu,
}

/// What was found out about an entry that does not depend on what is here of the room.
pub(super) struct Entering {
    pub(super) version: RoomVersionId,
    pub(super) room_id: OwnedRoomId,
    pub(super) user_id: OwnedUserId,
    pub(super) join: Arc<Pdu>,
    pub(super) before: State,
    pub(super) after: State,
}

impl Entering {
    /// Looks into what another server has answered. What its events themselves say of their own past is not judged: the
    /// state is what that server says it is. That it lets the user join is.
    pub(super) fn new(entry: &Entry, here: &ServerName) -> Result<Self> {
        let Entry { version, state, auth_chain, join } = entry;
        room_version::rules(version).ok_or_else(|| unsupported(version))?;
        let (room_id, join) = (join.room_id().to_owned(), Arc::new(join.clone()));
        if let Some(other) = state.iter().chain(auth_chain).find(|pdu| room_id != pdu.room_id() || !pdu.is_state()) {
            return Err(Error::bad_json(format!("{} is no state event of the room", other.event_id())));
        }
        let user_id =
            joining(&join, here).ok_or_else(|| Error::bad_json("The event lets no user of this server in"))?;
        check_format(&join).map_err(Error::bad_json)?;
        let before: State = state.iter().cloned().collect();
        let create = before.find(&StateEventType::RoomCreate).cloned();
        let create = create.ok_or_else(|| Error::bad_json("The room's state has no create event"))?;
        if version_of(&create).as_ref() != Some(version) {
            return Err(Error::bad_json("The room was created with another version"));
        }
        let is_cited = |pdu: &&Arc<Pdu>| join.auth_events().iter().any(|id| *pdu.event_id() == **id);
        let cited: Vec<Arc<Pdu>> = state.iter().chain(auth_chain).filter(is_cited).cloned().collect();
        check_auth_events(&join, &cited, Some(&create))
            .and_then(|()| check_state_before(&join, &before))
            .map_err(|reason| Error::forbidden(format!("The room does not allow this: {reason}")))?;
        let mut after = before.clone();
        after.insert(Arc::clone(&join));
        Ok(Self { version: version.clone(), room_id, user_id, join, before, after })
    }

    /// What the log has to tell of a new room's state, beside the join: who of this server's users is what in it, who else
    /// may come in or read it, and the create event, by which it is known for what it is ([`crate::event::Logged`]).
    pub(super) fn list_told(&self, here: &ServerName) -> Vec<StateChange> {
        let kinds = [StateEventType::RoomCreate, StateEventType::RoomJoinRules, StateEventType::RoomHistoryVisibility];
        let mut told: Vec<StateChange> =
            kinds.iter().filter_map(|kind| self.before.find(kind)).map(change_to).collect();
        let is_told = |user_id: &ruma::UserId| user_id.server_name() == here && *user_id != *self.user_id;
        let own = self.before.members().filter(|member| is_told(member.user_id));
        told.extend(own.map(|member| change_to(&member.pdu())));
        told.push(change_to(&self.join));
        told
    }
}

/// The user of this server whom an event lets into its room.
fn joining(join: &Arc<Pdu>, here: &ServerName) -> Option<OwnedUserId> {
    let user_id = OwnedUserId::try_from(join.state_key()?).ok()?;
    let lets_in = *join.kind() == TimelineEventType::RoomMember
        && membership_of(join) == MembershipState::Join
        && join.sender() == user_id
        && user_id.server_name() == here;
    lets_in.then_some(user_id)
}

/// None of what can't be read, and version 1 where nothing is said.
fn version_of(create: &Pdu) -> Option<RoomVersionId> {
    #[derive(Deserialize)]
    struct CreateContent {
        room_version: Option<RoomVersionId>,
    }
    let content: CreateContent = create.content_as().ok()?;
    Some(content.room_version.unwrap_or(RoomVersionId::V1))
}

pub(super) fn change_to(pdu: &Arc<Pdu>) -> StateChange {
    let (kind, state_key) = (pdu.kind().to_string(), pdu.state_key().unwrap_or_default().to_owned());
    StateChange { kind, state_key, event: Some(Arc::clone(pdu)) }
}
