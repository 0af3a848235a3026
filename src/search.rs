//! Search: messages, names and topics by their words.
//!
//! The log is taken into the index a little after it is written, by the node whose duty that is, and at once when
//! somebody searches. Everything else knows of the index only what `store::search` offers: to add and remove documents,
//! to tell how far it has come, and to find the newest that match. Another search engine would take its place.
//!
//! Results come in windows: the newest that match, as many as can be put in order at once, then those before them. So
//! the best of the newest come first, and however many there are, all of them come.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

mod document;
mod feed;
mod words;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, api::client::filter::RoomEventFilter};

use self::words::Phrase;
pub(crate) use crate::store::search::Fields;
use crate::{
    db::Db,
    error::{Error, Result},
    event::{Standing, Stored},
    node::Duty,
    position::Position,
    room::{
        Rooms,
        filter::{EventFilter as _, PduFilter as _},
        reading::Reading,
    },
    store::{
        self,
        search::{Hit, Sequence, Wanted},
    },
    tasks::Tasks,
};

/// How many matches are put in order at once. In tests so few that it matters.
const WINDOW: usize = if cfg!(test) { 6 } else { 1_000 };
/// How many windows one request looks through.
const MAX_WINDOWS: usize = 10;
/// How many rooms are asked for at once.
const ROOMS: usize = 200;
/// The most words of a search term.
const MAX_WORDS: usize = 64;

/// The search over all rooms. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Searches(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    /// Held while the log is taken into the index: on one node nobody does twice what is thrown away once.
    turn: tokio::sync::Mutex<()>,
}

/// In which order results come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Rank,
    Recent,
}

/// What somebody searches for.
pub(crate) struct Criteria<'a> {
    pub(crate) reader: &'a UserId,
    pub(crate) ignored: Arc<HashSet<OwnedUserId>>,
    pub(crate) term: &'a str,
    pub(crate) fields: Fields,
    pub(crate) filter: &'a RoomEventFilter,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    /// Where an earlier page ended.
    pub(crate) from: Option<Place>,
}

/// A page of results.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) results: Vec<Match>,
    /// The rooms of the results, as the reader sees them.
    pub(crate) readings: HashMap<OwnedRoomId, Reading>,
    /// How many matches were looked at, at least.
    pub(crate) count: usize,
    pub(crate) highlights: Vec<String>,
    /// Where to go on. None where there is nothing more.
    pub(crate) next: Option<Place>,
}

/// One result.
pub(crate) struct Match {
    pub(crate) event: Stored,
    pub(crate) rank: f64,
}

/// A place among the results, which clients hold as a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The window holds the newest matches before this place in the log.
    below: Position,
    /// How many of the window have been given.
    given: usize,
    pub(crate) group: Option<Group>,
}

/// Some of the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Room(OwnedRoomId),
    Sender(OwnedUserId),
}

impl Place {
    /// The same place among the results of one group.
    pub(crate) fn within(&self, group: Group) -> Self {
        Self { group: Some(group), ..self.clone() }
    }
}

impl Group {
    fn holds(&self, hit: &Hit) -> bool {
        match self {
            Self::Room(room_id) => hit.room_id == *room_id,
            Self::Sender(user_id) => hit.sender == *user_id,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.below.0, self.given)?;
        match &self.group {
            None => Ok(()),
            Some(Group::Room(room_id)) => write!(f, ".{room_id}"),
            Some(Group::Sender(user_id)) => write!(f, ".{user_id}"),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(token: &str) -> Result<Self> {
        let invalid = || Error::invalid_param("next_batch is not a token that a search has given: pass it unchanged");
        let mut parts = token.splitn(3, '.');
        let mut number = || parts.next()?.parse::<i64>().ok().filter(|number| *number >= 0);
        let below = Position(number().ok_or_else(invalid)?);
        let given = number().and_then(|given| usize::try_from(given).ok()).ok_or_else(invalid)?;
        let group = match parts.next() {
            None => None,
            Some(room) if room.starts_with('!') => Some(Group::Room(room.try_into().ok().ok_or_else(invalid)?)),
            Some(user) => Some(Group::Sender(user.try_into().ok().ok_or_else(invalid)?)),
        };
        Ok(Self { below, given, group })
    }
}

/// The newest matches before some place that the reader may see, in the order in which they are given.
struct Window {
    hits: Vec<Hit>,
    /// Where the next one begins, unless this was the last.
    next: Option<Position>,
}

impl Searches {
    /// Starts the task that takes the log into the index.
    pub(crate) fn start(db: Db, rooms: Rooms, duty: Duty, tasks: &Tasks) -> Self {
        let searches = Self(Arc::new(Inner { db, rooms, turn: tokio::sync::Mutex::default() }));
        tasks.spawn("search index", searches.clone().feed(duty, tasks.shutdown().clone()));
        searches
    }

    /// A page of what the reader may see and looks for.
    pub(crate) async fn find(&self, criteria: &Criteria<'_>) -> Result<Found> {
        let phrases = words::phrases(criteria.term);
        let highlights: Vec<String> = phrases.iter().flat_map(|phrase| phrase.words.iter().cloned()).collect();
        if highlights.len() > MAX_WORDS {
            return Err(Error::invalid_param(format!("A search has at most {MAX_WORDS} words")));
        }
        let now = self.0.rooms.log().tail().reached();
        self.catch_up(now).await?;
        let rooms = self.list_rooms(criteria).await?;
        let mut found = Found { highlights, ..Found::default() };
        let mut place = criteria.from.clone().unwrap_or(Place { below: now.next(), given: 0, group: None });
        for _ in 0..MAX_WINDOWS {
            let window = self.window(criteria, &phrases, &rooms, place.below, &mut found.readings).await?;
            found.count += window.hits.len();
            let given = self.pick(criteria, &place, &window.hits, &mut found.results).await?;
            match window.next {
                _ if given < window.hits.len() => place.given = given,
                Some(below) => place = Place { below, given: 0, ..place },
                None => return Ok(found.tidied()),
            }
            if found.results.len() == criteria.limit {
                break;
            }
        }
        found.next = Some(place);
        Ok(found.tidied())
    }

    /// The rooms in which the reader is or was and wants to search.
    async fn list_rooms(&self, criteria: &Criteria<'_>) -> Result<Vec<OwnedRoomId>> {
        let memberships = store::membership::list_of_user(&mut self.0.db.read().await?, criteria.reader).await?;
        let wanted = memberships
            .into_iter()
            .filter(|membership| !membership.forgotten && !criteria.filter.passes_nothing_in(&membership.room_id));
        Ok(wanted.map(|membership| membership.room_id).collect())
    }

    async fn window(
        &self,
        criteria: &Criteria<'_>,
        phrases: &[Phrase],
        rooms: &[OwnedRoomId],
        below: Position,
        readings: &mut HashMap<OwnedRoomId, Reading>,
    ) -> Result<Window> {
        let sequences: Vec<Sequence<'_>> =
            phrases.iter().map(|phrase| Sequence { words: &phrase.words, is_prefix: phrase.is_prefix }).collect();
        let mut hits = Vec::new();
        for rooms in rooms.chunks(ROOMS) {
            let rooms: Vec<&RoomId> = rooms.iter().map(|room_id| &**room_id).collect();
            let wanted = Wanted {
                sequences: &sequences,
                fields: criteria.fields,
                rooms: &rooms,
                below,
                ranked: criteria.order == Order::Rank,
                most: i64::try_from(WINDOW).unwrap_or(i64::MAX),
            };
            hits.extend(store::search::find(&mut self.0.db.read().await?, &wanted).await?);
        }
        hits.sort_unstable_by_key(|hit| std::cmp::Reverse(hit.position));
        hits.truncate(WINDOW);
        let next = if hits.len() == WINDOW { hits.last().map(|hit| hit.position) } else { None };
        for room_id in hits.iter().map(|hit| &hit.room_id) {
            if !readings.contains_key(room_id)
                && let Some(reading) = self.open(criteria, room_id).await?
            {
                readings.insert(room_id.clone(), reading);
            }
        }
        hits.retain(|hit| {
            !hit.is_gone
                && criteria.filter.passes_sender(&hit.sender)
                && readings.get(&hit.room_id).is_some_and(|reading| reading.sight.sees_at(hit.position))
        });
        if criteria.order == Order::Rank {
            hits.sort_by_key(|hit| std::cmp::Reverse((hit.rank, hit.position)));
        }
        Ok(Window { hits, next })
    }

    /// A room as the reader sees it, unless they may not or what is said there is encrypted.
    async fn open(&self, criteria: &Criteria<'_>, room_id: &RoomId) -> Result<Option<Reading>> {
        let reading = match self.0.rooms.open(room_id, criteria.reader).await {
            Err(Error::Refused { .. }) => return Ok(None),
            opened => opened?.ignoring(Arc::clone(&criteria.ignored)),
        };
        let is_encrypted = reading.room.view(|view| view.state.get("m.room.encryption", "").is_some());
        Ok((!is_encrypted).then_some(reading))
    }

    /// Takes results from a window until there are enough, and tells how many of the window have been looked at.
    async fn pick(
        &self,
        criteria: &Criteria<'_>,
        place: &Place,
        hits: &[Hit],
        results: &mut Vec<Match>,
    ) -> Result<usize> {
        let mut given = place.given.min(hits.len());
        while results.len() < criteria.limit && given < hits.len() {
            let step: Vec<&Hit> = hits.iter().skip(given).take(criteria.limit).collect();
            let positions: Vec<i64> = step.iter().map(|hit| hit.position.0).collect();
            let events = store::event::list_at(&mut self.0.db.read().await?, &positions).await?;
            let mut events: HashMap<Position, Stored> =
                events.into_iter().map(|event| (event.position, event)).collect();
            for hit in step {
                if results.len() == criteria.limit {
                    break;
                }
                given += 1;
                let Some(event) = events.remove(&hit.position) else { continue };
                let is_wanted = event.standing == Standing::Accepted
                    && event.pdu.redacted_because().is_none()
                    && criteria.filter.passes(&event.pdu)
                    && !crate::room::reading::is_ignored(&event.pdu, &criteria.ignored)
                    && place.group.as_ref().is_none_or(|group| group.holds(hit));
                if is_wanted {
                    results.push(Match { event, rank: in_units(hit.rank) });
                }
            }
        }
        Ok(given)
    }
}

impl Found {
    /// Without the rooms in which nothing was found.
    fn tidied(mut self) -> Self {
        let rooms: HashSet<&RoomId> = self.results.iter().map(|result| result.event.pdu.room_id()).collect();
        self.readings.retain(|room_id, _| rooms.contains(&**room_id));
        self
    }
}

/// Ranks are kept in millionths.
fn in_units(rank: i64) -> f64 {
    i32::try_from(rank).map_or(f64::from(i32::MAX), f64::from) / 1_000_000.0
}
