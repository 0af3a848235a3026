//! What a sync returns of rooms that this server holds no history of: invitations, knocks, and that they have ended.
//!
//! Of a room that this server once held, the user may have seen something else before. What came later is sent.

use std::collections::HashSet;

use ruma::{OwnedRoomId, RoomId};

use super::{SyncRequest, Syncs, gathered::Gathered, membership::shows_left_rooms, watcher::Watcher};
use crate::{
    error::Result,
    event::fact::{OutsideMembership, OutsideState},
    ground::position::Position,
    room::read::filter::RoomAware as _,
    store::outside_membership::OutsideStanding,
};

impl Syncs {
    /// What is news of rooms outside. The database is read only where there is any.
    pub(super) async fn gather_outside(
        &self,
        request: &SyncRequest,
        watcher: &Watcher,
        until: Position,
    ) -> Result<Vec<OutsideMembership>> {
        let mut rooms = watcher.outside_after(request.since.unwrap_or_default());
        rooms.retain(|(room_id, standing)| {
            // What came later is sent later.
            standing.position <= until && request.wanted.rooms.passes_room(room_id) && may_be_shown(request, *standing)
        });
        let mut news = Vec::with_capacity(rooms.len());
        for (at, membership) in self.list_outside(request, &rooms).await? {
            let is_shown = membership.state != OutsideState::Invited
                || self.0.shows_invite(&request.client.user_id, Some(&membership.sender)).await?;
            // As it is by now: what has changed since `until` is the next sync's.
            if is_shown && at <= until {
                news.push(membership);
            }
        }
        Ok(news)
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
    /// Adds what is news of rooms outside, and takes those out that are told otherwise by their own history, unless that
    /// says more.
    pub(super) fn add_outside(&mut self, news: Vec<OutsideMembership>) {
        if news.is_empty() {
            return;
        }
        let begun = news.iter().filter(|membership| membership.state != OutsideState::Ended);
        let begun: HashSet<OwnedRoomId> = begun.map(|membership| membership.room_id.clone()).collect();
        self.invited.retain(|room| !begun.contains(&room.room_id));
        self.knocked.retain(|room| !begun.contains(&room.room_id));
        self.left.retain(|room| !begun.contains(&room.room_id));
        let stripped = self.invited.iter().chain(&self.knocked).map(|room| &room.room_id);
        let left = self.left.iter().map(|room| &room.room_id);
        let told: HashSet<&OwnedRoomId> = stripped.chain(left).collect();
        let untold = |membership: &OutsideMembership| {
            membership.state != OutsideState::Ended || !told.contains(&membership.room_id)
        };
        self.outside.extend(news.into_iter().filter(untold));
    }
}

/// Whether anything may be sent of a room. That something has ended, a client that knows nothing gets only if it asks
/// for rooms that were left.
fn may_be_shown(request: &SyncRequest, standing: OutsideStanding) -> bool {
    let is_over = standing.state == OutsideState::Ended;
    !is_over || request.since.is_some() || (shows_left_rooms(request) && !standing.forgotten)
}
