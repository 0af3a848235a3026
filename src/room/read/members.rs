//! Who is in a room, and in which rooms somebody is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedRoomId, UserId, events::room::member::MembershipState};

use super::reading::ReadableRoom;
use crate::{
    error::{Error, Result},
    event::{Pdu, Stored},
    ground::position::Order,
    room::{Room, Rooms},
    store,
};

const MEMBER: &str = "m.room.member";

/// Which members are wanted. Where both are given, either suffices. With neither everybody passes, also who has left.
#[derive(Clone, Debug, Default)]
pub struct MemberFilter {
    pub membership: Option<MembershipState>,
    pub not_membership: Option<MembershipState>,
}

impl MemberFilter {
    fn passes(&self, membership: &MembershipState) -> bool {
        match (&self.membership, &self.not_membership) {
            (None, None) => true,
            (wanted, unwanted) => {
                wanted.as_ref().is_some_and(|wanted| wanted == membership)
                    || unwanted.as_ref().is_some_and(|unwanted| unwanted != membership)
            }
        }
    }
}

impl Rooms {
    /// The membership events of a room: now, or just after `at`. A moment that the user can't see is replaced
    /// by the nearest that they can, and one at which nobody was in the room yet by the one at which its creator joined:
    /// clients ask for the members at the place where a timeline begins, which may be before all events. Errors are
    /// those of the database: whether the user may read the room was asked when it was opened.
    pub async fn list_members(
        &self,
        reading: &ReadableRoom,
        at: Option<Order>,
        filter: &MemberFilter,
    ) -> Result<Vec<Arc<Pdu>>> {
        let at = at.map_or(reading.now(), |at| reading.sight.nearest(at.min(reading.until)));
        let mut state = self.state_at(&reading.room, at).await?;
        if state.members().next().is_none() {
            let began = self.place_of_first_join(reading).await?;
            state = self.state_at(&reading.room, reading.sight.nearest(began.max(at))).await?;
        }
        let wanted = state.members().filter(|member| filter.passes(&member.membership()));
        let mut members: Vec<Arc<Pdu>> = wanted.map(|member| member.pdu()).collect();
        let room_id = reading.room.view(|view| view.room_id.clone());
        self.withhold_state(&room_id, &reading.user_id, &mut members).await?;
        Ok(members)
    }

    /// Who users were in rooms at places of their own, as the `m.room.member` of each says, in the order in which they
    /// are asked for and as the reader may know it. What redacted it is left out. Rooms in memory cost nothing, the
    /// others one statement together.
    pub async fn members_at(
        &self,
        reader: &UserId,
        wanted: &[(&Room, Order, &UserId)],
    ) -> Result<Vec<Option<Arc<Pdu>>>> {
        let (mut found, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
        for (room, at, user_id) in wanted {
            let (remembered, trunk) = room.view(|view| (view.state_at(*at), view.trunk));
            if remembered.is_none() {
                missing.push((trunk, user_id.as_str(), *at));
            }
            found.push(remembered.map(|state| state.get(MEMBER, user_id.as_str()).cloned()));
        }
        let mut read = store::state::list_each_at(&mut self.0.db.read().await?, MEMBER, &missing).await?;
        let mut numbers = 0..missing.len();
        let members: Vec<Option<Arc<Pdu>>> = found
            .into_iter()
            .map(|member| member.unwrap_or_else(|| numbers.next().and_then(|number| read.remove(&number))))
            .collect();
        let mut known: Vec<Arc<Pdu>> = members.iter().flatten().cloned().collect();
        self.withhold_state_anywhere(reader, &mut known).await?;
        let mut known = known.into_iter();
        Ok(members.into_iter().map(|member| member.and_then(|_| known.next())).collect())
    }

    /// Where the creator of a room joined it: that is the second event of every room.
    async fn place_of_first_join(&self, reading: &ReadableRoom) -> Result<Order> {
        let room_id = reading.room.view(|view| view.room_id.clone());
        let mut conn = self.0.db.read().await?;
        let first = store::event::list_forward(&mut conn, &room_id, Order::START, reading.until, 2).await?;
        Ok(first.last().map_or(Order::START, |event| event.order))
    }

    /// The membership events of those who have joined. Only for somebody who has joined as well. `M_FORBIDDEN` for
    /// anybody else, also for who has left.
    pub async fn list_joined_members(&self, reading: &ReadableRoom) -> Result<Vec<Arc<Pdu>>> {
        if !reading.sight.is_member() {
            return Err(Error::forbidden("You are not in this room. Join it to see who else is"));
        }
        let joined = MemberFilter { membership: Some(MembershipState::Join), not_membership: None };
        self.list_members(reading, None, &joined).await
    }

    /// The membership events of those who sent these events, as they are at the newest of them. One for each sender who
    /// had a membership there.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>
    pub async fn list_senders(&self, reading: &ReadableRoom, events: &[Arc<Stored>]) -> Result<Vec<Arc<Pdu>>> {
        let Some(newest) = events.iter().map(|event| event.order).max() else { return Ok(Vec::new()) };
        let senders: BTreeSet<&str> = events.iter().map(|event| event.pdu.sender().as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let mut members = self.list_state_events_at(&reading.room, newest, "m.room.member", &senders).await?;
        let room_id = reading.room.view(|view| view.room_id.clone());
        self.withhold_state(&room_id, &reading.user_id, &mut members).await?;
        Ok(members)
    }

    /// The rooms that somebody has joined. From the table that the log keeps, so as of the last commit.
    pub async fn list_joined_rooms(&self, user_id: &UserId) -> Result<Vec<OwnedRoomId>> {
        Ok(store::membership::list_joined_rooms(&mut self.0.db.read().await?, user_id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_membership_filters_together_are_an_or() {
        use MembershipState::{Ban, Invite, Join, Leave};
        let passing = |membership: Option<MembershipState>, not_membership: Option<MembershipState>| {
            let filter = MemberFilter { membership, not_membership };
            [Ban, Invite, Join, Leave].into_iter().filter(|one| filter.passes(one)).collect::<Vec<_>>()
        };
        assert_eq!(passing(None, None), [Ban, Invite, Join, Leave]);
        assert_eq!(passing(Some(Join), None), [Join]);
        assert_eq!(passing(None, Some(Leave)), [Ban, Invite, Join]);
        assert_eq!(passing(Some(Join), Some(Leave)), [Ban, Invite, Join]);
        assert_eq!(passing(Some(Leave), Some(Leave)), [Ban, Invite, Join, Leave]);
    }
}
