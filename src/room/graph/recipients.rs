//! Which servers events of a room have to be sent to.
//!
//! That is decided by who was there just before an event: whoever leaves, or is thrown out, gets to know of it, and
//! whoever comes later has the event from elsewhere, if they may have it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#pdus>

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedRoomId, RoomId};

use super::{
    room::Room,
    rooms::Rooms,
    servers::{Servers, count_server},
    state::Member,
};
use crate::{error::Result, ground::position::Order, store};

impl Rooms {
    /// The servers that were in a room just before a place. From memory, mostly; far back it costs as much as the room
    /// has members.
    pub(crate) async fn servers_before(&self, room: &Room, at: Order) -> Result<Arc<Servers>> {
        if let Some(servers) = room.view(|view| view.servers_before(at)) {
            return Ok(servers);
        }
        let state = self.state_at(room, at.before()).await?;
        let mut servers = Servers::new();
        for member in state.members().filter(Member::has_joined) {
            count_server(&mut servers, member.user_id, true);
        }
        Ok(Arc::new(servers))
    }

    /// Those of the rooms in which other servers are, at this moment. No room is read into memory for that.
    pub(crate) async fn list_shared(&self, rooms: &[&RoomId]) -> Result<HashSet<OwnedRoomId>> {
        if rooms.is_empty() {
            return Ok(HashSet::new());
        }
        let mut conn = self.0.db.read().await?;
        let shared = store::membership::list_shared_rooms(&mut conn, rooms, &self.0.server_name).await?;
        Ok(shared.into_iter().collect())
    }
}
