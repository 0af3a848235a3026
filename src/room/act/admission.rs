//! Events by which users of other servers come into a room, go or knock, as their servers send them back
//! (`template.rs`): what such an event must be, who vouches for it, and what its server is answered.
//!
//! Signatures and hashes are checked between the one and the other, by who has the keys (`federation/handshakes.rs`).
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId,
    api::error::ErrorKind,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use super::outside::FromOutside;
use crate::{
    error::{Error, Result},
    event::{Pdu, Standing},
    room::{
        Resident, Rooms, State,
        graph::{head::Head, state::Member},
    },
    store,
};

/// Whose event has to come by which request, and what it has to say.
#[derive(Clone, Debug)]
pub struct Handshake<'a> {
    /// This and the next are those of the request's path.
    pub room_id: &'a RoomId,
    pub event_id: &'a EventId,
    pub membership: MembershipState,
    /// Who sends it.
    pub from: &'a ServerName,
}

/// What a server is answered whose user has joined.
#[derive(Debug)]
pub struct Joined {
    /// With this server's signature.
    pub join: Arc<Pdu>,
    /// The room's state before the join: all of it, or without memberships that the other server can do without.
    pub state: Vec<Arc<Pdu>>,
    /// What that and the join cite.
    pub auth_chain: Vec<Arc<Pdu>>,
    /// The servers in the room before the join.
    pub servers: BTreeSet<OwnedServerName>,
    pub omits_members: bool,
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

#[derive(Deserialize)]
struct AuthorisedContent {
    join_authorised_via_users_server: OwnedUserId,
}

impl Handshake<'_> {
    /// Refuses an event of which a request of this kind may not be, with `M_INVALID_PARAM`. It is asked before anything is
    /// verified, and of nothing but the event itself.
    pub fn check(&self, pdu: &Pdu) -> Result<()> {
        self.check_place(pdu)?;
        if *pdu.kind() != TimelineEventType::RoomMember {
            return Err(Error::invalid_param("The event is no m.room.member"));
        }
        let content: MemberContent = pdu
            .content_as()
            .map_err(|e| Error::invalid_param(format!("The content of the event is none of a membership: {e}")))?;
        if content.membership != self.membership {
            return Err(Error::invalid_param(format!("The event's `membership` is not `{}`", self.membership)));
        }
        self.check_sender(pdu)?;
        match self.membership {
            MembershipState::Invite => Ok(()),
            _ if pdu.state_key() == Some(pdu.sender().as_str()) => Ok(()),
            _ => Err(Error::invalid_param("The event's `state_key` is not its `sender`")),
        }
    }

    fn check_place(&self, pdu: &Pdu) -> Result<()> {
        if pdu.room_id() != self.room_id {
            return Err(Error::invalid_param("The event is of another room than the path"));
        }
        if pdu.event_id() != self.event_id {
            let message = format!("The event is {}, and the path has another one", pdu.event_id());
            return Err(Error::invalid_param(message));
        }
        Ok(())
    }

    fn check_sender(&self, pdu: &Pdu) -> Result<()> {
        if pdu.sender().server_name() == self.from {
            return Ok(());
        }
        Err(Error::invalid_param(format!("The event's `sender` is no user of {}", self.from)))
    }
}

impl Rooms {
    /// A room in which another server's user is to become something. `M_NOT_FOUND` for one that nobody of this server is
    /// in, `M_FORBIDDEN` for a server that the room keeps out.
    pub async fn get_for_handshake(&self, room_id: &RoomId, from: &ServerName) -> Result<Resident> {
        let room = self.get(room_id).await?;
        check_allowed(&room, from)?;
        Ok(room)
    }

    /// The join with this server's signature, which counts once the event is verified and taken.
    ///
    /// Where it says that a user of this server lets the sender in, somebody must be there who may, and the sender must
    /// meet a condition of the room: otherwise the errors of [`Rooms::join_template`]. Whether the user who is named has
    /// the power, the rules of the room say.
    pub async fn vouch_for(&self, room: &Resident, join: &Pdu) -> Result<Pdu> {
        if authorising_server(join).is_some_and(|server| server == self.server_name()) {
            let head = room.view(Head::of);
            self.admit_stranger(&head, join.sender()).await?;
        }
        self.countersign(join)
    }

    /// An event with this server's signature beside those that it has.
    pub fn countersign(&self, pdu: &Pdu) -> Result<Pdu> {
        pdu.countersigned(self.server_name(), &*self.0.key.current())
            .map_err(|e| Error::invalid_param(format!("The event can't be signed: {e}")))
    }

    /// Takes in a verified event by which another server's user comes, goes or knocks, and passes it on to the other
    /// servers of the room. One that has been taken already is taken again.
    ///
    /// `M_FORBIDDEN` where the room does not allow it, `M_INVALID_PARAM` where it follows what is not known here.
    pub async fn take_from(&self, room: &Resident, pdu: Pdu, from: &ServerName) -> Result<()> {
        match self.append_relayed(room, pdu, from).await {
            Ok(Standing::Accepted) => Ok(()),
            Ok(_) => Err(Error::forbidden("The room does not allow this, or does not any more")),
            // `M_NOT_FOUND` would say that this server does not know the room.
            Err(Error::Refused { kind: ErrorKind::NotFound, message }) => {
                Err(Error::invalid_param(format!("Build the event on what this server says of the room: {message}")))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes in a verified join, and returns what its server has to know of the room. Where that may be less, it is told
    /// the memberships alone by which the room is called that has no name.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
    pub async fn take_join(
        &self,
        room: &Resident,
        join: Pdu,
        from: &ServerName,
        omits_members: bool,
    ) -> Result<Joined> {
        let join = Arc::new(join);
        self.take_from(room, Pdu::clone(&join), from).await?;
        // They may send the same join again long after they have left or were thrown out.
        if room.view(|view| view.state.membership(join.sender())) != MembershipState::Join {
            return Err(Error::forbidden("This join is over: join with a new one"));
        }
        let stored = store::event::find(&mut self.0.db.read().await?, join.event_id()).await?;
        let stored = stored.ok_or_else(|| Error::broken("a join that was taken is not here"))?;
        let before = self.state_before(room, &stored).await?;
        let joined = before.members().filter(Member::has_joined);
        let servers = joined.map(|member| member.user_id.server_name().to_owned()).collect();
        let state = if omits_members { without_members(&before, join.sender()) } else { before.iter().collect() };
        let ends: Vec<Arc<Pdu>> = state.iter().chain([&join]).map(Arc::clone).collect();
        let mut auth_chain = self.auth_chain_of(&ends).await?;
        if omits_members {
            let told: HashSet<&EventId> = state.iter().map(|pdu| pdu.event_id()).collect();
            auth_chain.retain(|pdu| !told.contains(pdu.event_id()));
        }
        Ok(Joined { join, state, auth_chain, servers, omits_members })
    }

    /// Refuses unless a user of this server is there and takes invitations. `M_NOT_FOUND` and `M_INVITE_BLOCKED`.
    pub async fn check_invitee(&self, user_id: &UserId) -> Result<()> {
        self.check_account(user_id).await?;
        self.check_invited(&[user_id.to_owned()]).await
    }

    /// Takes a verified invitation by another server's user. In a room that this server is in, nothing is written: the
    /// invitation comes a second time, as other events of the room do.
    ///
    /// `M_FORBIDDEN` for a server that the room keeps out, and the errors of [`Rooms::check_invitee`].
    pub async fn receive_invite(&self, invite: FromOutside, from: &ServerName) -> Result<()> {
        let Some(room) = self.find(&invite.room_id).await? else { return self.take_invite(invite).await };
        check_allowed(&room, from)?;
        let version = invite.event.as_ref().map(|event| &event.version);
        if version.is_some_and(|version| room.view(|view| *version != view.head.version)) {
            return Err(Error::invalid_param("The room has another version"));
        }
        self.check_invitee(&invite.user_id).await
    }
}

fn check_allowed(room: &Resident, server: &ServerName) -> Result<()> {
    if room.view(|view| view.allows(server)) {
        return Ok(());
    }
    Err(Error::forbidden(format!("This room does not let {server} take part")))
}

/// The server of the user of whom a join says that they let its sender in, where the room's version knows that.
fn authorising_server(join: &Pdu) -> Option<OwnedServerName> {
    if !join.rules().signatures.check_join_authorised_via_users_server {
        return None;
    }
    let content: AuthorisedContent = join.content_as().ok()?;
    Some(content.join_authorised_via_users_server.server_name().to_owned())
}

/// The state without memberships, but for those by which a room is called that has no name.
fn without_members(state: &State, joining: &UserId) -> Vec<Arc<Pdu>> {
    let heroes = state.heroes(joining);
    let heroes = heroes.iter().filter_map(|user_id| state.member(user_id).cloned());
    state.iter_without_members().chain(heroes).collect()
}
