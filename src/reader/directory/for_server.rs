//! What another server may know of rooms from outside.
//!
//! It sees what any of its users could see: rooms that one of them is in, or could come into. So it must be let in by the
//! room's access control list, whatever else is so.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, RoomId, ServerName};

use super::{
    Directory, RoomCard,
    space::{Branch, SpaceChild, children_of},
};
use crate::{error::Result, room::read::summary::RoomSummary, store};

/// How many rooms of a space are looked at.
const MAX_ROOMS: usize = 1_000;

/// A room, and if it is a space, those that it holds itself.
pub(crate) struct SpaceForServer {
    pub(crate) room: Branch,
    /// Those of them that the server may know of.
    pub(crate) children: Vec<Arc<RoomSummary>>,
    /// Those of them that are known here, and that it may not know of.
    pub(crate) closed: Vec<OwnedRoomId>,
}

impl Directory {
    /// A room as another server may see it. None alike where nobody of this server is in it and where it is none of that
    /// server's business.
    pub(crate) async fn space_for_server(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<Option<SpaceForServer>> {
        let cards = self.cards(std::slice::from_ref(&room_id)).await?;
        let is_open = self.list_open_to(server, &cards).await?.contains(room_id);
        let Some(card) = cards.into_values().next().filter(|_| is_open) else { return Ok(None) };
        let held = children_of(&card, suggested_only);
        let ids: Vec<OwnedRoomId> = held.iter().filter_map(SpaceChild::room_id).take(MAX_ROOMS).collect();
        let cards = self.cards(&ids).await?;
        let open = self.list_open_to(server, &cards).await?;
        let (mut children, mut closed) = (Vec::new(), Vec::new());
        for room_id in ids {
            match cards.get(&room_id).filter(|card| card.is_resident) {
                Some(card) if open.contains(&room_id) => children.push(Arc::clone(&card.summary)),
                Some(_) => closed.push(room_id),
                None => {}
            }
        }
        let room = Branch { summary: Arc::clone(&card.summary), children: held };
        Ok(Some(SpaceForServer { room, children, closed }))
    }

    /// Those of the rooms that another server may know of.
    async fn list_open_to(
        &self,
        server: &ServerName,
        cards: &HashMap<OwnedRoomId, Arc<RoomCard>>,
    ) -> Result<HashSet<OwnedRoomId>> {
        let mut rooms: HashSet<&RoomId> = HashSet::new();
        for card in cards.values() {
            rooms.insert(card.room_id());
            rooms.extend(card.summary.allowed_rooms());
        }
        let rooms: Vec<&RoomId> = rooms.into_iter().collect();
        let mut conn = self.0.db.read().await?;
        let joined = store::membership::list_rooms_with_server(&mut conn, &rooms, server).await?;
        let joined: HashSet<OwnedRoomId> = joined.into_iter().collect();
        let is_open = |card: &&Arc<RoomCard>| {
            let summary = &card.summary;
            let may_enter = match summary.join_rule.as_str() {
                "public" | "knock" | "knock_restricted" => true,
                "restricted" => summary.allowed_rooms().any(|room| joined.contains(room)),
                _ => false,
            };
            let sees = may_enter || summary.world_readable || joined.contains(card.room_id());
            card.is_resident && card.admits(server) && sees
        };
        Ok(cards.values().filter(is_open).map(|card| card.room_id().to_owned()).collect())
    }
}
