//! The user directory: people are found by their name or identifier, by those who may know of them.
//!
//! Anybody finds those who are in an open room, which everybody can enter or read; others are found by those with whom
//! they share a room, and users of this server by everybody where the operator wants it so. What is searched is in the
//! database: `log/write/people.rs` and whoever changes a name keep it.
//!
//! No search reads more than a bounded part of it, however many people begin with the same letter. Those whom anybody
//! may find have an index of their own, in the order of results. Of those who share a room with the searcher either
//! the members of these rooms are looked up, or where these are a crowd, everybody who matches is tried in the order
//! of results: then enough of them share a room to fill a page soon, and where they don't, the answer is `limited`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, hash_map::Entry};

use ruma::{OwnedMxcUri, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    db::{Conn, Db},
    error::Result,
    store::{
        self,
        user_directory::{Among, Hit, SCANNED},
    },
    words::{self, Rank, Wanted},
};

/// The most people of one answer.
pub(crate) const MAX_LIMIT: usize = 100;
/// Whoever meets more than so many members in their rooms is in a crowd.
const CROWD: i64 = 1_000;
/// How many rows one search may try.
const MAX_TRIED: usize = 3_000;
/// How many members of a room that was opened or closed are looked at in one transaction, for which the log waits.
const SETTLED_AT_ONCE: usize = 200;

/// Who can be found on this server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct UserDirectory {
    db: Db,
    /// Whether everybody finds all users of this server.
    search_all: bool,
    crowd: i64,
}

/// Somebody as the directory shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) user_id: OwnedUserId,
    pub(crate) display_name: Option<String>,
    pub(crate) avatar_url: Option<OwnedMxcUri>,
}

/// The best of those who match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) people: Vec<Person>,
    /// Whether there are more of them, or may be.
    pub(crate) limited: bool,
}

/// How well somebody matches, the better ones first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    closeness: Closeness,
    /// Whether they share no room with the searcher.
    is_stranger: bool,
    rank: Rank,
    word: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// The whole name.
    Same,
    /// The beginning of the name.
    Beginning,
    /// The beginning of another word.
    Word,
    /// Two words, wherever they stand.
    Scattered,
}

/// Who is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    /// Those whom anybody may find.
    Public,
    /// The users of this server.
    Locals,
    /// Those who share a room with the searcher.
    Peers,
}

/// A search under way.
struct Search<'a> {
    searcher: &'a UserId,
    rooms: Vec<OwnedRoomId>,
    is_in_crowd: bool,
    /// How many are wanted, and one more, which tells whether there are more.
    enough: usize,
    found: HashMap<OwnedUserId, (Merit, Option<OwnedRoomId>)>,
    tried: usize,
    given_up: bool,
}

impl UserDirectory {
    pub(crate) fn new(db: Db, search_all: bool) -> Self {
        Self { db, search_all, crowd: CROWD }
    }

    /// Those who match a term, at most so many. Who searches finds themselves where anybody would.
    pub(crate) async fn search(&self, searcher: &UserId, term: &str, limit: usize) -> Result<Found> {
        let ways = words::wanted(term);
        if ways.is_empty() {
            return Ok(Found::default());
        }
        let limit = limit.min(MAX_LIMIT);
        let mut conn = self.db.read().await?;
        let mut search = Search {
            searcher,
            rooms: store::membership::list_joined_rooms(&mut conn, searcher).await?,
            is_in_crowd: store::user_directory::meets_more_than(&mut conn, searcher, self.crowd).await?,
            enough: limit + 1,
            found: HashMap::new(),
            tried: 0,
            given_up: false,
        };
        for wanted in &ways {
            if search.found.len() < search.enough {
                search.scan(&mut conn, wanted, Scan::Public).await?;
                if self.search_all {
                    search.scan(&mut conn, wanted, Scan::Locals).await?;
                }
                search.find_peers(&mut conn, wanted).await?;
            }
        }
        let limited = search.found.len() > limit || search.given_up;
        let mut found: Vec<_> = search.found.into_iter().collect();
        found.sort_unstable_by(|(a, (a_merit, _)), (b, (b_merit, _))| a_merit.cmp(b_merit).then_with(|| a.cmp(b)));
        found.truncate(limit);
        let found: Vec<_> = found.into_iter().map(|(user_id, (_, room_id))| (user_id, room_id)).collect();
        Ok(Found { people: people(&mut conn, found).await?, limited })
    }

    /// Looks at the members of large rooms that have been opened or closed. To be called now and then. A room that is
    /// opened or closed again meanwhile has its turn next time, so that this ends and the other rooms have theirs.
    pub(crate) async fn settle(&self) -> Result<()> {
        let mut last: Option<OwnedRoomId> = None;
        loop {
            let mut conn = self.db.read().await?;
            let put_off = store::user_directory::find_put_off(&mut conn, last.as_deref()).await?;
            let Some((room_id, head)) = put_off else { return Ok(()) };
            let members = store::membership::list_joined_users(&mut conn, &room_id, i64::MAX).await?;
            drop(conn);
            for members in members.chunks(SETTLED_AT_ONCE) {
                self.settle_members(&room_id, members).await?;
            }
            let mut tx = self.db.begin().await?;
            store::user_directory::tick_off(&mut tx, &room_id, head).await?;
            tx.commit().await?;
            last = Some(room_id);
        }
    }

    async fn settle_members(&self, room_id: &RoomId, members: &[OwnedUserId]) -> Result<()> {
        let members: Vec<&str> = members.iter().map(|user| user.as_str()).collect();
        let mut tx = self.db.begin().await?;
        // Nobody comes or goes meanwhile.
        store::log::lock(&mut tx).await?;
        let is_open = store::room::is_open(&mut tx, room_id).await?;
        store::user_directory::show_strangers(&mut tx, room_id, &members, is_open).await?;
        store::user_directory::review(&mut tx, &members).await?;
        Ok(tx.commit().await?)
    }
}

impl Search<'_> {
    /// Finds those who share a room with the searcher.
    async fn find_peers(&mut self, conn: &mut Conn, wanted: &Wanted) -> Result<()> {
        if self.rooms.is_empty() {
            return Ok(());
        }
        if self.is_in_crowd {
            return self.scan(conn, wanted, Scan::Peers).await;
        }
        let rooms: Vec<&str> = self.rooms.iter().map(|room| room.as_str()).collect();
        let peers = store::user_directory::list_peers(conn, &rooms).await?;
        let peers: Vec<&str> =
            peers.iter().map(String::as_str).filter(|user| *user != self.searcher.as_str()).collect();
        if peers.is_empty() {
            return Ok(());
        }
        let limit = i64::try_from(self.enough).unwrap_or(i64::MAX);
        let hits = store::user_directory::search_among(conn, wanted, &peers, &rooms, limit).await?;
        for hit in hits {
            self.take(wanted, hit, true);
        }
        Ok(())
    }

    /// Tries everybody who matches in the order of results, until there are enough of them.
    async fn scan(&mut self, conn: &mut Conn, wanted: &Wanted, scan: Scan) -> Result<()> {
        let peers = scan == Scan::Peers;
        let mut seen: HashSet<OwnedUserId> = HashSet::new();
        for rank in Rank::ALL {
            // What begins a name is better than what does not, and a name is better than none.
            if !rank.begins_name() && seen.len() >= self.enough {
                break;
            }
            let mut of_rank = 0;
            let mut last: Option<Hit> = None;
            loop {
                let rooms: Vec<&str> = self.rooms.iter().map(|room| room.as_str()).collect();
                let among = match scan {
                    Scan::Public => Among::Public,
                    Scan::Locals => Among::Locals,
                    Scan::Peers => Among::Rooms(&rooms),
                };
                let rows = store::user_directory::scan(conn, wanted, rank, last.as_ref(), among).await?;
                let exhausted = rows.len() < SCANNED;
                self.tried += rows.len();
                last = rows.last().map(|(hit, _)| hit.clone());
                for (hit, is_hit) in rows {
                    if !is_hit || (peers && *hit.user_id == *self.searcher) {
                        continue;
                    }
                    of_rank += usize::from(seen.insert(hit.user_id.clone()));
                    self.take(wanted, hit, peers);
                }
                if exhausted || of_rank >= self.enough {
                    break;
                }
                if self.tried >= MAX_TRIED {
                    self.given_up = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Keeps the best hit on each user.
    fn take(&mut self, wanted: &Wanted, hit: Hit, is_peer: bool) {
        let closeness = match hit.rank {
            _ if wanted.with.is_some() => Closeness::Scattered,
            rank if !rank.begins_name() => Closeness::Word,
            _ if hit.word == wanted.beginning => Closeness::Same,
            _ => Closeness::Beginning,
        };
        let merit = Merit { closeness, is_stranger: !is_peer, rank: hit.rank, word: hit.word };
        match self.found.entry(hit.user_id) {
            Entry::Occupied(mut known) => {
                let (known, room_id) = known.get_mut();
                let is_stranger = known.is_stranger && merit.is_stranger;
                if merit.closeness < known.closeness {
                    (*known, *room_id) = (merit, hit.room_id);
                }
                known.is_stranger = is_stranger;
            }
            Entry::Vacant(new) => drop(new.insert((merit, hit.room_id))),
        }
    }
}

/// Those who were found, in the same order, as they call themselves: users of this server everywhere, the others in the
/// room in which they were found.
async fn people(conn: &mut Conn, found: Vec<(OwnedUserId, Option<OwnedRoomId>)>) -> Result<Vec<Person>> {
    let (mut locals, mut strangers, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
    for (user_id, room_id) in &found {
        match room_id {
            Some(room_id) => {
                strangers.push(user_id.as_str());
                rooms.push(&**room_id);
            }
            None => locals.push(&**user_id),
        }
    }
    let mut faces: HashMap<(OwnedUserId, Option<OwnedRoomId>), Face> = HashMap::new();
    if !locals.is_empty() {
        for (user_id, field, value) in store::profile::list_faces(conn, &locals).await? {
            let face = faces.entry((user_id, None)).or_default();
            match field.as_str() {
                "displayname" => face.displayname = value,
                _ => face.avatar_url = value,
            }
        }
    }
    if !strangers.is_empty() {
        let places = store::state::list_current_of(conn, &rooms, "m.room.member", &strangers).await?;
        for event in store::event::list_at(conn, &places).await? {
            let user_id = event.pdu.state_key().and_then(|key| OwnedUserId::try_from(key).ok());
            let face: Face = event.pdu.content_as().unwrap_or_default();
            faces.extend(user_id.map(|user_id| ((user_id, Some(event.pdu.room_id().to_owned())), face)));
        }
    }
    let person = |key: (OwnedUserId, Option<OwnedRoomId>)| {
        let face = faces.remove(&key).unwrap_or_default();
        let filled = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
        let avatar_url = filled(&face.avatar_url).map(OwnedMxcUri::from);
        Person { user_id: key.0, display_name: filled(&face.displayname), avatar_url }
    };
    Ok(found.into_iter().map(person).collect())
}

/// A name and a picture, whatever else may have been written there.
#[derive(Default, Deserialize)]
struct Face {
    #[serde(default)]
    displayname: Value,
    #[serde(default)]
    avatar_url: Value,
}
