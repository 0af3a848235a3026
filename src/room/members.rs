//! Who is in a room, and in which rooms somebody is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedRoomId, UserId, events::room::member::MembershipState};

use super::{Room, Rooms, reading::Reading, state::membership_of};
use crate::{
    error::{Error, Result},
    event::{Pdu, Stored},
    position::Position,
    store,
};

/// Which members are wanted. Where both are given, either suffices.
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
    /// clients ask for the members at the place where a timeline begins, which may be before all events.
    pub async fn list_members(
        &self,
        reading: &Reading,
        at: Option<Position>,
        filter: &MemberFilter,
    ) -> Result<Vec<Arc<Pdu>>> {
        let at = at.map_or(reading.now(), |at| reading.sight.nearest(at.min(reading.until)));
        let mut state = self.state_at(&reading.room, at).await?;
        if state.members().next().is_none() {
            let began = self.position_of_first_join(reading).await?;
            state = self.state_at(&reading.room, reading.sight.nearest(began.max(at))).await?;
        }
        Ok(state
            .members()
            .filter(|(_, pdu)| filter.passes(&membership_of(pdu)))
            .map(|(_, pdu)| Arc::clone(pdu))
            .collect())
    }

    /// Where the creator of a room joined it: that is the second event of every room.
    async fn position_of_first_join(&self, reading: &Reading) -> Result<Position> {
        let room_id = reading.room.view(|view| view.room_id.clone());
        let mut conn = self.0.db.read().await?;
        let first = store::event::list_forward(&mut conn, &room_id, Position::START, reading.until, 2).await?;
        Ok(first.last().map_or(Position::START, |event| event.position))
    }

    /// The membership events of those who have joined. Only for somebody who has joined as well.
    pub async fn list_joined_members(&self, reading: &Reading) -> Result<Vec<Arc<Pdu>>> {
        if !reading.sight.is_member() {
            return Err(Error::forbidden("You are not in this room. Join it to see who else is"));
        }
        let joined = MemberFilter { membership: Some(MembershipState::Join), not_membership: None };
        self.list_members(reading, None, &joined).await
    }

    /// The membership events of those who sent these events, as they are at the newest of them.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>
    pub async fn list_senders(&self, room: &Room, events: &[Arc<Stored>]) -> Result<Vec<Arc<Pdu>>> {
        let Some(newest) = events.iter().map(|event| event.position).max() else { return Ok(Vec::new()) };
        let senders: BTreeSet<&str> = events.iter().map(|event| event.pdu.sender().as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        self.list_state_events_at(room, newest, "m.room.member", &senders).await
    }

    /// The rooms that somebody has joined.
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
