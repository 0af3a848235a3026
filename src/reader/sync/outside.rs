//! What a sync returns of rooms that this server holds no history of: invitations, knocks, and that they have ended.
//!
//! Of a room that this server once held, the user may have seen something else before. What came later is sent.

use ruma::{OwnedRoomId, RoomId};

use super::{SyncRequest, Syncs, gather::Gathered, membership::shows_left_rooms, watcher::Watcher};
use crate::{
    error::Result,
    event::fact::{OutsideMembership, OutsideState},
    ground::position::Position,
    room::read::filter::RoomAware as _,
    store::outside_membership::OutsideStanding,
};

impl Syncs {
    /// Adds what is news of rooms outside. The database is read only where there is any.
    pub(super) async fn gather_outside(
        &self,
        request: &SyncRequest,
        watcher: &Watcher,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let mut rooms = watcher.outside_after(request.since.unwrap_or_default());
        rooms.retain(|(room_id, standing)| {
            // What came later is sent later.
            standing.position <= gathered.until
                && request.wanted.rooms.passes_room(room_id)
                && may_be_shown(request, *standing)
        });
        let mut found = self.list_outside(request, &rooms).await?;
        // As it is by now: what has changed since `until` is the next sync's.
        found.retain(|(at, _)| *at <= gathered.until);
        for (_, membership) in found {
            match membership.state {
                OutsideState::Invited
                    if !self.0.shows_invite(&request.client.user_id, Some(&membership.sender)).await? => {}
                OutsideState::Invited | OutsideState::Knocking => {
                    gathered.withdraw(&membership.room_id);
                    gathered.outside.push(membership);
                }
                // The room's own history says the same, and more of it.
                OutsideState::Ended if gathered.tells(&membership.room_id) => {}
                OutsideState::Ended => gathered.outside.push(membership),
            }
        }
        Ok(())
    }

    /// What is known of some rooms from outside.
    async fn list_outside(
        &self,
        request: &SyncRequest,
        rooms: &[(OwnedRoomId, OutsideStanding)],
    ) -> Result<Vec<(Position, OutsideMembership)>> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let room_ids: Vec<&RoomId> = rooms.iter().map(|(room_id, _)| &**room_id).collect();
        self.0.watchers.look_up_outside(&request.client.user_id, &room_ids).await
    }
}

impl Gathered {
    /// Whether the answer has a room by its own history.
    fn tells(&self, room_id: &RoomId) -> bool {
        let stripped = self.invited.iter().chain(&self.knocked).map(|room| &room.room_id);
        let left = self.left.iter().map(|room| &room.room_id);
        self.joined.iter().map(|room| &room.room_id).chain(stripped).chain(left).any(|told| told == room_id)
    }

    /// Takes a room by its own history out of the answer, unless the user is in it.
    fn withdraw(&mut self, room_id: &RoomId) {
        self.invited.retain(|room| room.room_id != room_id);
        self.knocked.retain(|room| room.room_id != room_id);
        self.left.retain(|room| room.room_id != room_id);
    }
}

/// Whether anything may be sent of a room. That something has ended, a client that knows nothing gets only if it asks
/// for rooms that were left.
fn may_be_shown(request: &SyncRequest, standing: OutsideStanding) -> bool {
    let is_over = standing.state == OutsideState::Ended;
    !is_over || request.since.is_some() || (shows_left_rooms(request) && !standing.forgotten)
}
