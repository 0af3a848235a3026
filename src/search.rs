//! Search: messages, names and topics by their words.
//!
//! The log is taken into the index a little after it is written, by the node whose duty that is, and at once when
//! somebody searches. Everything else knows of the index only what `store::search` offers: to add and remove documents,
//! to tell how far it has come, and to find the newest that match. Another search engine would take its place.
//!
//! Where the best come first, results come in windows: the newest that match, as many as can be read and put in order at
//! once, then those before them. So the best of the newest come first, and however many there are, all of them come.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

mod document;
mod feed;
mod rank;
mod scope;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, api::client::filter::RoomEventFilter};

use self::{
    document::{text_of, text_of_json},
    scope::Scope,
};
pub(crate) use crate::store::search::Fields;
use crate::{
    db::Db,
    error::{Error, Result},
    event::{Standing, Stored},
    node::Duty,
    position::Position,
    room::{
        Rooms, Trace,
        filter::{EventFilter as _, PduFilter as _},
        reading::Reading,
    },
    store::{
        self,
        search::{Hit, Phrase, Wanted},
    },
    tasks::Tasks,
};

/// How many matches are looked up and put in order at once. In tests so few that it matters.
const WINDOW: usize = if cfg!(test) { 6 } else { 200 };
/// How many events are read at once where a filter may drop most of them.
const STEP: usize = if cfg!(test) { 2 } else { 100 };
/// How many windows one request looks through.
const MAX_WINDOWS: usize = 10;
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
    /// How many matches there are, at least: as many as this page and those before it have come to.
    pub(crate) count: usize,
    pub(crate) highlights: Vec<String>,
    /// Where to go on. None where there is nothing more; after a full page there may be nothing.
    pub(crate) next: Option<Place>,
}

/// One result.
pub(crate) struct Match {
    pub(crate) event: Stored,
    /// How well it matches; higher is better.
    pub(crate) rank: u32,
}

/// A place among the results, which clients hold as a token. It names the last one that was given: whatever is redacted
/// or said meanwhile, what follows it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of what stands from here on in the log, everything has been given, or it came later.
    below: Position,
    /// What stands from here on has been counted. By rank, the window under way begins here and ends before `below`.
    counted: Position,
    count: usize,
    /// By rank, the last result that was given of the window under way.
    last: Option<(u32, Position)>,
    /// Whether the term is looked for just as it is.
    is_literal: bool,
    pub(crate) group: Option<Group>,
}

/// Some of the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Room(OwnedRoomId),
    Sender(OwnedUserId),
}

impl Place {
    /// Before everything that was said up to some place.
    fn first(until: Position) -> Self {
        Self { below: until.next(), counted: until.next(), count: 0, last: None, is_literal: false, group: None }
    }

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
        let literal = if self.is_literal { LITERAL } else { "" };
        write!(f, "{literal}{}.{}.{}", self.below.0, self.counted.0, self.count)?;
        if let Some((rank, position)) = self.last {
            write!(f, ".{rank}.{}", position.0)?;
        }
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
        parse(token)
            .ok_or_else(|| Error::invalid_param("next_batch is not a token that a search has given: pass it unchanged"))
    }
}

/// What the tokens of searches begin with that look for the term just as it is.
const LITERAL: &str = "=";

fn parse(token: &str) -> Option<Place> {
    let (numbers, group) = token.split_at_checked(token.find(['!', '@']).unwrap_or(token.len()))?;
    let group = match group.chars().next() {
        None => None,
        Some('!') => Some(Group::Room(group.try_into().ok()?)),
        Some(_) => Some(Group::Sender(group.try_into().ok()?)),
    };
    let numbers = if group.is_some() { numbers.strip_suffix('.')? } else { numbers };
    let is_literal = numbers.starts_with(LITERAL);
    let numbers: Vec<&str> = numbers.strip_prefix(LITERAL).unwrap_or(numbers).split('.').collect();
    let position = |number: &str| number.parse().ok().filter(|number| *number >= 0).map(Position);
    let (below, counted, count, last) = match *numbers.as_slice() {
        [below, counted, count] => (below, counted, count, None),
        [below, counted, count, rank, last] => (below, counted, count, Some((rank.parse().ok()?, position(last)?))),
        _ => return None,
    };
    let (below, counted) = (position(below)?, position(counted)?);
    (counted <= below).then_some(Place { below, counted, count: count.parse().ok()?, last, is_literal, group })
}

/// The newest matches before some place that the reader may see, newest first.
struct Window {
    hits: Vec<Hit>,
    /// Where it begins: the next one ends before.
    begin: Position,
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
        // What is indexed later would come between results that have been given.
        let indexed = self.catch_up(now).await?;
        let mut scope = self.scope(criteria).await?;
        let mut found = Found { highlights, ..Found::default() };
        let mut place = criteria.from.clone().unwrap_or_else(|| Place::first(indexed));
        let literal = words::literal(&phrases);
        let mut hits = None;
        if criteria.from.is_none() && literal != phrases {
            // Whoever looks for what is often said as it is does not mean the beginning of something else, and all that
            // begins with it would be far more to go through.
            let literally = self.hits(criteria, &literal, &mut scope, &place, &mut found.readings).await?;
            hits = Some(literally).filter(|hits| hits.len() == WINDOW);
            place.is_literal = hits.is_some();
        }
        let phrases = if place.is_literal { literal } else { phrases };
        for _ in 0..MAX_WINDOWS {
            let hits = match hits.take() {
                Some(hits) => hits,
                None => self.hits(criteria, &phrases, &mut scope, &place, &mut found.readings).await?,
            };
            let window = self.window(criteria, hits, &mut place, &mut found.readings).await?;
            found.count = place.count;
            let is_done = self.pick(criteria, &phrases, &window.hits, &mut place, &mut found.results).await?;
            if is_done {
                // A full page says how to go on in any case: clients take one without that for the last one, and others
                // wait for an empty one.
                if window.begin == Position::START && found.results.len() < criteria.limit {
                    return Ok(found.tidied());
                }
                place = Place { below: window.begin, last: None, ..place };
            }
            if found.results.len() == criteria.limit {
                break;
            }
        }
        found.next = Some(place);
        Ok(found.tidied())
    }

    /// The newest matches before a place that the reader may see.
    async fn hits(
        &self,
        criteria: &Criteria<'_>,
        phrases: &[Phrase],
        scope: &mut Scope,
        place: &Place,
        readings: &mut HashMap<OwnedRoomId, Reading>,
    ) -> Result<Vec<Hit>> {
        let Criteria { fields, .. } = *criteria;
        loop {
            let wanted = Wanted { phrases, fields, rooms: &scope.rooms(), below: place.below, most: WINDOW };
            let mut hits = store::search::find(&mut self.0.db.read().await?, &wanted).await?;
            let is_full = hits.len() == WINDOW;
            // Each time more is known of where nothing can be found.
            if self.look_into(criteria, scope, readings, &mut hits).await? || !is_full {
                return Ok(hits);
            }
        }
    }

    /// The window under way at a place, or else the next one, whose matches are counted there.
    async fn window(
        &self,
        criteria: &Criteria<'_>,
        mut hits: Vec<Hit>,
        place: &mut Place,
        readings: &mut HashMap<OwnedRoomId, Reading>,
    ) -> Result<Window> {
        let full = hits.last().filter(|_| hits.len() == WINDOW).map(|hit| hit.position);
        let mut begin = full.unwrap_or(Position::START);
        if criteria.order == Order::Rank && place.counted < place.below {
            // What has been redacted since makes no room for what is older: that is put in order with the next window.
            begin = begin.max(place.counted);
            hits.retain(|hit| hit.position >= begin);
        }
        for room_id in hits.iter().map(|hit| &hit.room_id) {
            if !readings.contains_key(room_id)
                && let Some(reading) = self.open(criteria, room_id).await?
            {
                readings.insert(room_id.clone(), reading);
            }
        }
        // Of what the reader gets redacted copies, they find nothing by its words.
        let traces =
            hits.iter().map(|Hit { room_id, sender, position, .. }| Trace { room_id, sender, position: *position });
        let withheld = self.0.rooms.list_withheld(criteria.reader, traces).await?;
        hits.retain(|hit| {
            !hit.is_gone
                && !withheld.contains(&hit.position)
                && criteria.filter.passes_sender(&hit.sender)
                && place.group.as_ref().is_none_or(|group| group.holds(hit))
                && readings.get(&hit.room_id).is_some_and(|reading| reading.sight.sees_at(hit.position))
        });
        let new = hits.iter().filter(|hit| hit.position < place.counted).count();
        place.count = place.count.saturating_add(new);
        place.counted = if criteria.order == Order::Rank { begin } else { begin.min(place.counted) };
        Ok(Window { hits, begin })
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

    /// Takes results from a window, from a place on, until there are enough. Tells whether nothing is left of it.
    async fn pick(
        &self,
        criteria: &Criteria<'_>,
        phrases: &[Phrase],
        hits: &[Hit],
        place: &mut Place,
        results: &mut Vec<Match>,
    ) -> Result<bool> {
        let positions: Vec<Position> = match criteria.order {
            Order::Rank => self.by_rank(criteria, phrases, hits, place.last).await?,
            Order::Recent => hits.iter().map(|hit| hit.position).collect(),
        };
        // Enough to know that there are more, unless a filter drops some.
        let (mut now, mut later) = positions.split_at(positions.len().min(criteria.limit - results.len() + 1));
        while !now.is_empty() {
            for found in self.read(criteria, phrases, now).await? {
                if results.len() == criteria.limit {
                    return Ok(false);
                }
                match criteria.order {
                    Order::Rank => place.last = Some(found.merit()),
                    Order::Recent => place.below = found.event.position,
                }
                results.push(found);
            }
            (now, later) = later.split_at(later.len().min(STEP));
        }
        Ok(true)
    }

    /// The places of hits, the best first, from some result on.
    async fn by_rank(
        &self,
        criteria: &Criteria<'_>,
        phrases: &[Phrase],
        hits: &[Hit],
        after: Option<(u32, Position)>,
    ) -> Result<Vec<Position>> {
        let positions: Vec<i64> = hits.iter().map(|hit| hit.position.0).collect();
        let events = store::event::list_json_at(&mut self.0.db.read().await?, &positions).await?;
        let rank = |json: &str| text_of_json(json).map_or(0, |text| rank::of(&text, criteria.fields, phrases));
        let mut merits: Vec<(u32, Position)> =
            events.into_iter().map(|(position, json)| (rank(&json), position)).collect();
        merits.retain(|merit| after.is_none_or(|after| *merit < after));
        merits.sort_unstable_by_key(|merit| std::cmp::Reverse(*merit));
        Ok(merits.into_iter().map(|(_, position)| position).collect())
    }

    /// Those of the events at some places that somebody wants, in the same order.
    async fn read(&self, criteria: &Criteria<'_>, phrases: &[Phrase], places: &[Position]) -> Result<Vec<Match>> {
        let positions: Vec<i64> = places.iter().map(|place| place.0).collect();
        let found = store::event::list_at(&mut self.0.db.read().await?, &positions).await?;
        let mut events = Vec::with_capacity(found.len());
        for event in found {
            // What it has replaced is told with it.
            events.push(self.0.rooms.withhold_one(criteria.reader, event).await?);
        }
        let wanted = events.into_iter().filter(|event| {
            event.standing == Standing::Accepted
                && event.pdu.redacted_because().is_none()
                && criteria.filter.passes(&event.pdu)
                && !crate::room::reading::is_ignored(&event.pdu, &criteria.ignored)
        });
        let rank = |event: &Stored| text_of(event).map_or(0, |text| rank::of(&text, criteria.fields, phrases));
        let mut matches: HashMap<Position, Match> =
            wanted.map(|event| (event.position, Match { rank: rank(&event), event })).collect();
        Ok(places.iter().filter_map(|place| matches.remove(place)).collect())
    }
}

impl Match {
    /// What results are ordered by.
    fn merit(&self) -> (u32, Position) {
        (self.rank, self.event.position)
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
