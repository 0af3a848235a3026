//! Rooms that users know from outside: other servers invite them, or let them knock, while nobody of this server is in
//! the room and its history is held elsewhere.
//!
//! All that is known of such a room is what came with the invitation or the knock. It stands in a table of its own and
//! in the log, so that `/sync` shows it without a room. Once this server takes part in the room, or holds what its own
//! history says of the user later on, that counts and nothing else.
//!
//! What other servers say has been verified before it comes here.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>,
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room>,
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::error::ErrorKind,
    events::{AnyStrippedStateEvent, TimelineEventType, room::member::MembershipState},
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::membership::leave_first;
use crate::{
    error::{Error, Result},
    event::{
        fact::{Fact, Forgotten, OutsideEvent, OutsideMembership, OutsideState, Write},
        stripped_state,
    },
    ground::position::Position,
    log::CommitError,
    room::{Rooms, State, graph::append::ATTEMPTS},
    store::{self, outside_membership::OutsideStanding},
};

/// How many events of a room's stripped state are kept. The specification names seven.
const MAX_STRIPPED: usize = 50;
/// How many bytes one of them may have: as many as an event.
const MAX_STRIPPED_BYTES: usize = 65_536;

/// What another server says of a user of this one, in a room that nobody of this one is in.
#[derive(Clone, Debug)]
pub struct FromOutside {
    pub user_id: OwnedUserId,
    pub room_id: OwnedRoomId,
    /// Who has invited the user. Of a knock it is the user.
    pub sender: OwnedUserId,
    /// The membership event, if it is known.
    pub event: Option<OutsideEvent>,
    /// Some of the room's state, as whole events or stripped ones.
    pub room_state: Vec<Box<RawValue>>,
}

/// How an invitation or a knock from outside has ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Who turned it down, or took it back.
    pub sender: OwnedUserId,
    /// The membership event, if it is known.
    pub event: Option<OutsideEvent>,
}

impl Rooms {
    /// Takes an invitation to a room that nobody of this server is in. It may be the answer to a knock, or another
    /// invitation than one that is known already: the newest counts.
    ///
    /// `M_INVITE_BLOCKED` where the user takes none.
    pub async fn take_invite(&self, updated: FromOutside) -> Result<()> {
        self.check_invited(std::slice::from_ref(&updated.user_id)).await?;
        self.take(updated, OutsideState::Invited).await
    }

    /// Takes that a server has let a user of this one knock. An invitation that was quicker than that stays.
    pub async fn take_knock(&self, updated: FromOutside) -> Result<()> {
        self.take(updated, OutsideState::Knocking).await
    }

    /// Takes that an invitation or a knock is over. Where there is none any more, nothing happens.
    pub async fn end_outside(&self, room_id: &RoomId, user_id: &UserId, ending: Ending) -> Result<()> {
        self.replace_outside(ended(room_id, user_id, ending), is_present).await
    }

    /// What has to be written together with the first events of a room that this server comes to take part in, where
    /// these make `state`: users who are invited or knock as far as is known from outside, but not in that state, are
    /// so no longer. For all others the room's own history says it from now on.
    pub async fn end_all_outside(&self, room_id: &RoomId, state: &State) -> Result<Vec<Fact>> {
        let users = store::outside_membership::list_of_room(&mut self.0.db.read().await?, room_id).await?;
        let is_outside =
            |user_id: &OwnedUserId| matches!(state.membership(user_id), MembershipState::Leave | MembershipState::Ban);
        let over = |user_id: OwnedUserId| {
            // Nobody needs to know who it was: the room's state does not say it, either.
            let ending = Ending { sender: user_id.clone(), event: None };
            Fact::OutsideMembership(ended(room_id, &user_id, ending).replacing_any())
        };
        Ok(users.into_iter().filter(is_outside).map(over).collect())
    }

    /// Turns down an invitation from outside or takes back a knock, if there ever was one.
    pub(super) async fn leave_outside(&self, room_id: &RoomId, user_id: &UserId) -> Result<bool> {
        if self.find_outside(room_id, user_id).await?.is_none() {
            return Ok(false);
        }
        let ending = Ending { sender: user_id.to_owned(), event: None };
        self.replace_outside(ended(room_id, user_id, ending), is_present).await?;
        Ok(true)
    }

    /// Hides from a user that an invitation from outside or a knock has ended, if there ever was one.
    pub(super) async fn forget_outside(&self, room_id: &RoomId, user_id: &UserId) -> Result<bool> {
        let Some(known) = self.find_outside(room_id, user_id).await? else { return Ok(false) };
        if known.state != OutsideState::Ended {
            return Err(leave_first(room_id, user_id));
        }
        let (user_id, room_id) = (user_id.to_owned(), room_id.to_owned());
        self.0.log.append(Write::fact(Fact::Forgotten(Forgotten { user_id, room_id }))).await?;
        Ok(true)
    }

    /// Turns down every invitation from outside and takes back every knock.
    pub(super) async fn leave_all_outside(&self, user_id: &UserId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let rooms = store::outside_membership::list_present(&mut self.0.db.read().await?, user_id).await?;
            let over = |(room_id, at): &(OwnedRoomId, Position)| {
                let ending = Ending { sender: user_id.to_owned(), event: None };
                Fact::OutsideMembership(ended(room_id, user_id, ending).replacing(*at))
            };
            let facts: Vec<Fact> = rooms.iter().map(over).collect();
            if facts.is_empty() || self.append_unless_overtaken(Write::facts(facts)).await? {
                return Ok(());
            }
        }
        Err(overtaken())
    }

    /// What is known from outside of a user's membership of a room, with what came with it of the room, where the room's
    /// own history does not say it.
    pub async fn find_outside_membership(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<OutsideMembership>> {
        if self.find_outside(room_id, user_id).await?.is_none() {
            return Ok(None);
        }
        let mut known = store::outside_membership::list(&mut self.0.db.read().await?, user_id, &[room_id]).await?;
        Ok(known.pop().map(|(_, membership)| membership))
    }

    /// The rooms outside that a user is invited to, or knocks on.
    pub async fn list_present_outside(&self, user_id: &UserId) -> Result<Vec<OwnedRoomId>> {
        let rooms = store::outside_membership::list_present(&mut self.0.db.read().await?, user_id).await?;
        Ok(rooms.into_iter().map(|(room_id, _)| room_id).collect())
    }

    /// What a user is in a room as far as is known from outside, where its own history does not say it.
    async fn find_outside(&self, room_id: &RoomId, user_id: &UserId) -> Result<Option<OutsideStanding>> {
        if self.find(room_id).await?.is_some() {
            return Ok(None);
        }
        Ok(store::outside_membership::find(&mut self.0.db.read().await?, user_id, room_id).await?)
    }

    async fn take(&self, updated: FromOutside, state: OutsideState) -> Result<()> {
        check_event(&updated, state)?;
        let FromOutside { user_id, room_id, sender, event, room_state } = updated;
        if self.find(&room_id).await?.is_some() {
            let message = format!("This server is in the room {room_id}: its own history says who is invited to it");
            return Err(Error::refused(ErrorKind::Unknown, message));
        }
        self.check_account(&user_id).await?;
        let own = match &event {
            Some(event) => stripped_state(&event.pdu),
            None => bare_membership(&user_id, &sender, state)?,
        };
        let stripped_state = strip(&room_state, &user_id).into_iter().chain([own]).collect();
        let membership = OutsideMembership { user_id, room_id, state, sender, stripped_state, event };
        // The invitation that answers a knock may arrive before the confirmation of the knock.
        let is_due = |known: Option<OutsideState>| {
            state == OutsideState::Invited || known.is_none_or(|known| known != OutsideState::Invited)
        };
        self.replace_outside(membership, is_due).await
    }

    /// Refuses who has no account here, or none any more.
    pub(super) async fn check_account(&self, user_id: &UserId) -> Result<()> {
        let account = store::account::find(&mut self.0.db.read().await?, user_id).await?;
        if account.is_none_or(|account| account.deactivated) {
            return Err(Error::not_found(format!("There is nobody called {user_id} on this server")));
        }
        Ok(())
    }

    /// Writes the new membership if `is_due` accepts the present one. The log refuses it if that has changed, and it is
    /// looked at again.
    async fn replace_outside(
        &self,
        membership: OutsideMembership,
        is_due: impl Fn(Option<OutsideState>) -> bool,
    ) -> Result<()> {
        let (user_id, room_id) = (&membership.user_id, &membership.room_id);
        for _ in 0..ATTEMPTS {
            let mut snapshot = self.0.db.snapshot().await?;
            let known = store::outside_membership::find(&mut snapshot, user_id, room_id).await?;
            let at = store::outside_membership::find_position(&mut snapshot, user_id, room_id).await?;
            drop(snapshot);
            if !is_due(known.map(|known| known.state)) {
                return Ok(());
            }
            let fact = Fact::OutsideMembership(membership.clone().replacing(at.unwrap_or_default()));
            if self.append_unless_overtaken(Write::fact(fact)).await? {
                return Ok(());
            }
        }
        Err(overtaken())
    }

    /// False if something was written meanwhile that the write replaces.
    async fn append_unless_overtaken(&self, write: Write) -> Result<bool> {
        match self.0.log.append(write).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether somebody is invited or knocks.
fn is_present(known: Option<OutsideState>) -> bool {
    known.is_some_and(|known| known != OutsideState::Ended)
}

fn overtaken() -> Error {
    Error::Unavailable("what the user is in the room is being changed from elsewhere".to_owned())
}

fn ended(room_id: &RoomId, user_id: &UserId, Ending { sender, event }: Ending) -> OutsideMembership {
    OutsideMembership {
        user_id: user_id.to_owned(),
        room_id: room_id.to_owned(),
        state: OutsideState::Ended,
        sender,
        stripped_state: Vec::new(),
        event,
    }
}

/// Refuses an event that is not the one that it is said to be.
fn check_event(updated: &FromOutside, state: OutsideState) -> Result<()> {
    #[derive(Deserialize)]
    struct OutsideMemberContent {
        membership: String,
    }
    let Some(OutsideEvent { pdu, .. }) = &updated.event else { return Ok(()) };
    let says_so = *pdu.kind() == TimelineEventType::RoomMember
        && pdu.state_key() == Some(updated.user_id.as_str())
        && pdu.sender() == updated.sender
        && pdu.room_id() == updated.room_id
        && pdu.content_as::<OutsideMemberContent>().is_ok_and(|content| content.membership == state.as_str());
    if says_so {
        return Ok(());
    }
    let (user_id, room_id) = (&updated.user_id, &updated.room_id);
    Err(Error::bad_json(format!("The event does not make {user_id} `{}` in {room_id}", state.as_str())))
}

/// What clients are given of a room's state: of each event what the specification names, and when it was sent. What is no
/// state event is left out, and so is the membership of the user, of which the caller knows better.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
fn strip(room_state: &[Box<RawValue>], user_id: &UserId) -> Vec<Raw<AnyStrippedStateEvent>> {
    #[derive(Deserialize, Serialize)]
    struct Stripped {
        content: serde_json::Map<String, serde_json::Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin_server_ts: Option<MilliSecondsSinceUnixEpoch>,
        sender: OwnedUserId,
        state_key: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let is_own = |event: &Stripped| event.kind == "m.room.member" && event.state_key == user_id.as_str();
    let small = room_state.iter().filter(|json| json.get().len() <= MAX_STRIPPED_BYTES).take(MAX_STRIPPED);
    let read = small.filter_map(|json| serde_json::from_str::<Stripped>(json.get()).ok());
    let written = read.filter(|event| !is_own(event)).filter_map(|event| to_raw_value(&event).ok());
    written.map(Raw::from_json).collect()
}

/// The membership of somebody of which no event is known.
fn bare_membership(user_id: &UserId, sender: &UserId, state: OutsideState) -> Result<Raw<AnyStrippedStateEvent>> {
    let event = json!({
        "type": "m.room.member",
        "state_key": user_id,
        "sender": sender,
        "content": { "membership": state.as_str() },
    });
    to_raw_value(&event).map(Raw::from_json).map_err(Error::broken)
}
