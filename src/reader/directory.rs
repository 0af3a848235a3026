//! What those outside may know of rooms: the public directory, summaries, and the trees of spaces.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>,
//! <https://spec.matrix.org/v1.19/client-server-api/#room-summaries> and
//! <https://spec.matrix.org/v1.19/client-server-api/#spaces>

mod cache;
mod card;
mod for_server;
mod published;
mod space;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, OwnedServerName, RoomId, UserId, events::room::member::MembershipState};

pub(crate) use self::{cache::RoomCardCache, card::RoomCard, published::PublicRoomsQuery, space::HierarchyQuery};
use crate::{
    db::Db, error::Result, event::fact::OutsideState, federation::reach::Reach, log::Log,
    room::read::summary::RoomSummary, store,
};

/// How many cards are read from the database at once.
const CHUNK: usize = 500;
/// How many rooms that two users share come in a page.
const MAX_SHARED: usize = 1_000;
/// How often cards are read again that have changed while they were read.
const ATTEMPTS: usize = 4;

/// What this server shows of its rooms. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Directory(Arc<Inner>);

struct Inner {
    db: Db,
    log: Log,
    cache: Arc<RoomCardCache>,
    server_name: OwnedServerName,
    reach: Reach,
}

/// A page of the rooms that two users are in.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) rooms: Vec<OwnedRoomId>,
    /// How many there are in all.
    pub(crate) count: usize,
    /// Where to go on.
    pub(crate) next: Option<String>,
}

/// Who asks about rooms, with what they are in some of them.
pub(crate) struct Asker(HashMap<OwnedRoomId, MembershipState>);

impl Directory {
    /// `reach` looks at rooms that nobody of this server is in.
    pub(crate) fn new(
        (db, log): (Db, Log),
        cache: Arc<RoomCardCache>,
        server_name: OwnedServerName,
        reach: Reach,
    ) -> Self {
        Self(Arc::new(Inner { db, log, cache, server_name, reach }))
    }

    /// What somebody, or anybody, may know of a room, and what they are in it. None alike where there is no such room
    /// and where it is none of their business.
    pub(crate) async fn summary(
        &self,
        room_id: &RoomId,
        user_id: Option<&UserId>,
    ) -> Result<Option<(Arc<RoomCard>, Option<MembershipState>)>> {
        let Some(card) = self.cards(std::slice::from_ref(&room_id)).await?.into_values().next() else {
            return Ok(None);
        };
        let asker = self.asker(user_id, &[&card.summary]).await?;
        let membership = user_id.map(|_| asker.membership(room_id));
        Ok(asker.may_know(&card.summary).then_some((card, membership)))
    }

    /// What a user may know of a room, and what they are in it. Where nobody of this server is in the room, the servers are
    /// asked, one after the other; where none of them says anything, it is what was known here last.
    pub(crate) async fn summary_anywhere(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        servers: &[OwnedServerName],
    ) -> Result<Option<(Arc<RoomSummary>, MembershipState)>> {
        let card = self.cards(std::slice::from_ref(&room_id)).await?.into_values().next();
        let is_resident = card.as_ref().is_some_and(|card| card.is_resident);
        let said = if is_resident { None } else { self.0.reach.find_room(room_id, servers).await };
        let last_known = card.as_ref().map(|card| &card.summary);
        let Some(summary) = said.as_ref().map(|said| &said.summary).or(last_known) else { return Ok(None) };
        let mut asker = self.asker(Some(user_id), &[summary]).await?;
        if !is_resident {
            self.learn_from_outside(&mut asker, user_id, room_id).await?;
        }
        Ok(asker.may_know(summary).then(|| (Arc::clone(summary), asker.membership(room_id))))
    }

    /// The rooms that both users are in, after one in the order of their identifiers.
    pub(crate) async fn shared_rooms(&self, one: &UserId, other: &UserId, after: Option<&str>) -> Result<Shared> {
        let mut conn = self.0.db.read().await?;
        let all = store::membership::list_shared(&mut conn, one, other).await?;
        let count = all.len();
        let rest = all.into_iter().filter(|room| after.is_none_or(|after| room.as_str() > after));
        let mut rooms: Vec<OwnedRoomId> = rest.take(MAX_SHARED + 1).collect();
        let more = rooms.len() > MAX_SHARED;
        rooms.truncate(MAX_SHARED);
        let next = rooms.last().filter(|_| more).map(ToString::to_string);
        Ok(Shared { rooms, count, next })
    }

    /// The rooms that the directory shows.
    async fn published(&self) -> Result<Arc<Vec<OwnedRoomId>>> {
        if let Some(published) = self.0.cache.published() {
            return Ok(published);
        }
        let mut snapshot = self.0.db.snapshot().await?;
        let position = store::log::last_position(&mut snapshot).await?;
        let published = Arc::new(store::room::list_published(&mut snapshot).await?);
        self.0.cache.remember_published(position, Arc::clone(&published));
        Ok(published)
    }

    /// The cards of those of the rooms that this server knows.
    async fn cards<R: AsRef<RoomId>>(&self, rooms: &[R]) -> Result<HashMap<OwnedRoomId, Arc<RoomCard>>> {
        let mut cards = HashMap::with_capacity(rooms.len());
        let mut missing: Vec<&RoomId> = Vec::new();
        for room_id in rooms {
            match self.0.cache.find(room_id.as_ref()) {
                Some(card) => drop(cards.insert(room_id.as_ref().to_owned(), card)),
                None => missing.push(room_id.as_ref()),
            }
        }
        for chunk in missing.chunks(CHUNK) {
            for _ in 0..ATTEMPTS {
                let mut snapshot = self.0.log.tail().snapshot(&self.0.db).await?;
                let position = snapshot.position();
                let read = card::read(&mut snapshot, chunk, &self.0.server_name, position).await?;
                // What the readers read later than this makes a card void.
                snapshot.close().await;
                let read: Vec<Arc<RoomCard>> = read.into_iter().map(Arc::new).collect();
                let fresh = self.0.cache.remember(&read);
                cards.extend(read.into_iter().map(|card| (card.room_id().to_owned(), card)));
                if fresh {
                    break;
                }
            }
        }
        Ok(cards)
    }

    /// What somebody is in these rooms, and in those whose members may join them.
    async fn asker(&self, user_id: Option<&UserId>, summaries: &[&Arc<RoomSummary>]) -> Result<Asker> {
        let Some(user_id) = user_id else { return Ok(Asker(HashMap::new())) };
        let mut rooms: HashSet<&RoomId> = HashSet::new();
        for summary in summaries {
            rooms.insert(&summary.room_id);
            rooms.extend(summary.allowed_rooms());
        }
        let rooms: Vec<&RoomId> = rooms.into_iter().collect();
        let mut conn = self.0.db.read().await?;
        Ok(Asker(store::membership::list_among(&mut conn, user_id, &rooms).await?.into_iter().collect()))
    }

    /// Adds what somebody is in a room that nobody of this server is in: invited to it, or knocking.
    async fn learn_from_outside(&self, asker: &mut Asker, user_id: &UserId, room_id: &RoomId) -> Result<()> {
        let standing = store::outside_membership::find(&mut self.0.db.read().await?, user_id, room_id).await?;
        let membership = match standing.map(|standing| standing.state) {
            Some(OutsideState::Invited) => MembershipState::Invite,
            Some(OutsideState::Knocking) => MembershipState::Knock,
            Some(OutsideState::Ended) | None => return Ok(()),
        };
        asker.0.insert(room_id.to_owned(), membership);
        Ok(())
    }
}

impl Asker {
    fn membership(&self, room_id: &RoomId) -> MembershipState {
        self.0.get(room_id).cloned().unwrap_or(MembershipState::Leave)
    }

    /// Whether they are in the room, or may join or knock, or could read it without.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
    fn may_know(&self, summary: &RoomSummary) -> bool {
        let may_enter = match summary.join_rule.as_str() {
            "public" | "knock" | "knock_restricted" => true,
            "restricted" => summary.allowed_rooms().any(|room| self.membership(room) == MembershipState::Join),
            _ => false,
        };
        summary.world_readable
            || may_enter
            || matches!(self.membership(&summary.room_id), MembershipState::Join | MembershipState::Invite)
    }
}
