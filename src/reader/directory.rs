//! What those outside may know of rooms: the public directory, summaries, and the trees of spaces.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>,
//! <https://spec.matrix.org/v1.19/client-server-api/#room-summaries> and
//! <https://spec.matrix.org/v1.19/client-server-api/#spaces>

mod cache;
mod card;
mod space;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    OwnedRoomId, RoomId, UInt, UserId, directory::RoomTypeFilter, events::room::member::MembershipState, room::RoomType,
};

pub(crate) use self::{
    cache::RoomCardCache,
    card::{RoomCard, RoomSummary},
    space::HierarchyQuery,
};
use crate::{db::Db, error::Result, ground::words, log::Log, store};

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
}

/// What somebody looks for in the public directory.
#[derive(Debug, Default)]
pub(crate) struct PublicRoomsQuery {
    /// Part of a name, topic or alias, in whatever case, with its accents or without.
    pub(crate) term: Option<String>,
    /// None for rooms of any type.
    pub(crate) types: Option<Vec<RoomTypeFilter>>,
    /// How many rooms to skip.
    pub(crate) skip: usize,
    pub(crate) limit: usize,
}

/// A page of the public directory.
#[derive(Debug)]
pub(crate) struct PublicRoomsPage {
    /// The greatest rooms first.
    pub(crate) rooms: Vec<Arc<RoomCard>>,
    /// How many there are in all.
    pub(crate) total: usize,
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
    pub(crate) fn new(db: Db, log: Log, cache: Arc<RoomCardCache>) -> Self {
        Self(Arc::new(Inner { db, log, cache }))
    }

    /// The public rooms that match. One in which nobody is left is not shown: nobody there could let anybody in, or
    /// take it off the list.
    pub(crate) async fn public_rooms(&self, query: &PublicRoomsQuery) -> Result<PublicRoomsPage> {
        let published = self.published().await?;
        let term = query.term.as_deref().map(words::fold);
        let matches = |card: &RoomCard| {
            card.joined() > UInt::MIN
                && term.as_deref().is_none_or(|term| card.mentions(term))
                && query.types.as_deref().is_none_or(|types| types.iter().any(|wanted| is_of(card, wanted)))
        };
        let mut rooms: Vec<Arc<RoomCard>> =
            self.cards(&published).await?.into_values().filter(|card| matches(card)).collect();
        rooms.sort_unstable_by(|a, b| b.joined().cmp(&a.joined()).then_with(|| a.room_id().cmp(b.room_id())));
        let total = rooms.len();
        Ok(PublicRoomsPage { rooms: rooms.into_iter().skip(query.skip).take(query.limit).collect(), total })
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
        let asker = self.asker(user_id, std::slice::from_ref(&card)).await?;
        let membership = user_id.map(|_| asker.membership(room_id));
        Ok(asker.may_know(&card).then_some((card, membership)))
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
                let read = card::read(&mut snapshot, chunk, position).await?;
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
    async fn asker(&self, user_id: Option<&UserId>, cards: &[Arc<RoomCard>]) -> Result<Asker> {
        let Some(user_id) = user_id else { return Ok(Asker(HashMap::new())) };
        let mut rooms: HashSet<&RoomId> = HashSet::new();
        for card in cards {
            rooms.insert(card.room_id());
            rooms.extend(card.allowed_rooms());
        }
        let rooms: Vec<&RoomId> = rooms.into_iter().collect();
        let mut conn = self.0.db.read().await?;
        Ok(Asker(store::membership::list_among(&mut conn, user_id, &rooms).await?.into_iter().collect()))
    }
}

impl Asker {
    fn membership(&self, room_id: &RoomId) -> MembershipState {
        self.0.get(room_id).cloned().unwrap_or(MembershipState::Leave)
    }

    /// Whether they are in the room, or may join or knock, or could read it without.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
    fn may_know(&self, card: &RoomCard) -> bool {
        let may_enter = match card.summary.join_rule.as_str() {
            "public" | "knock" | "knock_restricted" => true,
            "restricted" => card.allowed_rooms().any(|room| self.membership(room) == MembershipState::Join),
            _ => false,
        };
        card.summary.world_readable
            || may_enter
            || matches!(self.membership(card.room_id()), MembershipState::Join | MembershipState::Invite)
    }
}

fn is_of(card: &RoomCard, wanted: &RoomTypeFilter) -> bool {
    let kind = card.summary.room_type.as_ref();
    match wanted {
        RoomTypeFilter::Default => kind.is_none(),
        RoomTypeFilter::Space => kind == Some(&RoomType::Space),
        other => kind.is_some_and(|kind| Some(kind.as_str()) == other.as_str()),
    }
}
