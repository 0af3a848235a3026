//! The user directory: people are found by their name or identifier, by those who may know of them.
//!
//! Anybody finds those who are in an open room, which everybody can enter or read; others are found by those with whom
//! they share a room, and users of this server by everybody where the operator wants it so. What is searched is in the
//! database: it follows the log a little behind it ([`feed`]), and whoever changes a name writes that down with the
//! name.
//!
//! No search reads more than a bounded part of it, however many people begin with the same letter. Those whom anybody
//! may find have an index of their own, in the order of results. Of those who share a room with the searcher either
//! the members of these rooms are looked up, or where these are a crowd, everybody who matches is tried in the order
//! of results: then enough of them share a room to fill a page soon, and where they don't, the answer is `limited`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

mod feed;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use ruma::{OwnedMxcUri, OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    db::{Conn, Db},
    error::Result,
    ground::{
        tasks::Tasks,
        words::{self, WantedPrefix, WordRank},
    },
    log::{
        Log,
        cursor::{self, KnownPlace},
    },
    node::Duty,
    store::{
        self,
        user_directory::{Among, DirectoryHit, SCANNED},
    },
};

/// The most people of one answer.
pub(crate) const MAX_LIMIT: usize = 100;
/// Whoever meets more than so many members in their rooms is in a crowd.
const CROWD: i64 = 1_000;
/// How many rows one search may try.
const MAX_TRIED: usize = 3_000;

/// Who can be found on this server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct UserDirectory {
    db: Db,
    log: Log,
    server_name: OwnedServerName,
    /// Whether everybody finds all users of this server.
    search_all: bool,
    /// [`CROWD`], or less in tests.
    crowd: i64,
    /// Held while the log is taken into the directory: so that one node does not take a stretch twice and discard one.
    turn: Arc<tokio::sync::Mutex<()>>,
    known: Arc<KnownPlace>,
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
pub(crate) struct FoundPeople {
    pub(crate) people: Vec<Person>,
    /// Whether there are more of them, or may be.
    pub(crate) limited: bool,
}

/// How well somebody matches, the better ones first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MatchQuality {
    closeness: Closeness,
    /// Whether they share no room with the searcher.
    is_stranger: bool,
    rank: WordRank,
    word: String,
}

/// How a name matches, the closest first.
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
struct UserSearch<'a> {
    searcher: &'a UserId,
    /// Those that the searcher is in.
    rooms: Vec<OwnedRoomId>,
    is_in_crowd: bool,
    /// How many are wanted, and one more, which shows whether there are more.
    enough: usize,
    found: HashMap<OwnedUserId, (MatchQuality, Option<OwnedRoomId>)>,
    /// How many rows have been read.
    tried: usize,
    /// Whether the search has ended before there was nothing more to try.
    given_up: bool,
}

impl UserDirectory {
    /// Starts the task that takes the log into the directory.
    pub(crate) fn start(
        (db, log, server_name): (Db, Log, OwnedServerName),
        search_all: bool,
        duty: Duty,
        tasks: &Tasks,
    ) -> Self {
        let directory =
            Self { db, log, server_name, search_all, crowd: CROWD, turn: Arc::default(), known: Arc::default() };
        let (db, log) = (directory.db.clone(), directory.log.clone());
        let following = cursor::follow(directory.clone(), db, log, duty, tasks.shutdown().clone());
        tasks.spawn("user directory", following);
        directory
    }

    /// Those who match a term, at most so many. Who searches finds themselves where anybody would.
    pub(crate) async fn search(&self, searcher: &UserId, term: &str, limit: usize) -> Result<FoundPeople> {
        let ways = words::wanted(term);
        if ways.is_empty() {
            return Ok(FoundPeople::default());
        }
        // So that who has just come into an open room is found.
        self.catch_up(self.log.tail().reached()).await?;
        let limit = limit.min(MAX_LIMIT);
        let mut conn = self.db.read().await?;
        let mut search = UserSearch {
            searcher,
            rooms: store::membership::list_joined_rooms(&mut conn, searcher).await?,
            is_in_crowd: store::user_directory::meets_more_than(&mut conn, searcher, self.crowd).await?,
            enough: limit + 1,
            found: HashMap::new(),
            tried: 0,
            given_up: false,
        };
        for wanted in &ways {
            // The ways to understand a term come in the order of their results, so that the first one may do.
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
        Ok(FoundPeople { people: people(&mut conn, found).await?, limited })
    }
}

impl UserSearch<'_> {
    /// Finds those who share a room with the searcher.
    async fn find_peers(&mut self, conn: &mut Conn, wanted: &WantedPrefix) -> Result<()> {
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
    async fn scan(&mut self, conn: &mut Conn, wanted: &WantedPrefix, scan: Scan) -> Result<()> {
        let peers = scan == Scan::Peers;
        let mut seen: HashSet<OwnedUserId> = HashSet::new();
        for rank in WordRank::ALL {
            // What begins a name is better than what does not, and a name is better than none.
            if !rank.begins_name() && seen.len() >= self.enough {
                break;
            }
            let mut of_rank = 0;
            let mut last: Option<DirectoryHit> = None;
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
    fn take(&mut self, wanted: &WantedPrefix, hit: DirectoryHit, is_peer: bool) {
        let closeness = match hit.rank {
            _ if wanted.with.is_some() => Closeness::Scattered,
            rank if !rank.begins_name() => Closeness::Word,
            _ if hit.word == wanted.beginning => Closeness::Same,
            _ => Closeness::Beginning,
        };
        let merit = MatchQuality { closeness, is_stranger: !is_peer, rank: hit.rank, word: hit.word };
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
    let mut faces: HashMap<(OwnedUserId, Option<OwnedRoomId>), NameAndPicture> = HashMap::new();
    if !locals.is_empty() {
        for (user_id, field, value) in store::profile::list_faces(conn, &locals).await? {
            let shown = faces.entry((user_id, None)).or_default();
            match field.as_str() {
                "displayname" => shown.displayname = value,
                _ => shown.avatar_url = value,
            }
        }
    }
    if !strangers.is_empty() {
        let places = store::state::list_current_of(conn, &rooms, "m.room.member", &strangers).await?;
        for event in store::event::list_at(conn, &places).await? {
            let user_id = event.pdu.state_key().and_then(|key| OwnedUserId::try_from(key).ok());
            let shown: NameAndPicture = event.pdu.content_as().unwrap_or_default();
            faces.extend(user_id.map(|user_id| ((user_id, Some(event.pdu.room_id().to_owned())), shown)));
        }
    }
    let person = |key: (OwnedUserId, Option<OwnedRoomId>)| {
        let shown = faces.remove(&key).unwrap_or_default();
        let filled = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
        let avatar_url = filled(&shown.avatar_url).map(OwnedMxcUri::from);
        Person { user_id: key.0, display_name: filled(&shown.displayname), avatar_url }
    };
    Ok(found.into_iter().map(person).collect())
}

/// A name and a picture, whatever else may have been written there.
#[derive(Default, Deserialize)]
struct NameAndPicture {
    #[serde(default)]
    displayname: Value,
    #[serde(default)]
    avatar_url: Value,
}
