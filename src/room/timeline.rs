//! Pages of a room's history, in both directions.
//!
//! A page is gathered from the stretches of the log that the user sees. Events that the filter drops don't
//! end a page: the search goes on behind them, up to a bound, and where it stops the page says how to go on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use std::{collections::HashSet, sync::Arc};

use ruma::{
    EventId, OwnedEventId,
    api::{Direction, client::filter::RoomEventFilter},
    events::TimelineEventType,
};

use super::{
    Room, Rooms, State,
    filter::PduFilter as _,
    reading::{Reading, is_ignored},
};
use crate::{
    error::{Error, Result},
    event::{Pdu, RelationFilter, Stored},
    position::Position,
    store::{self, event::Around, relation::Stretch},
};

/// The most events of one page.
const MAX_LIMIT: usize = 250;
/// How many events one request looks at while it searches for those that pass its filter.
const MAX_SEARCH: usize = 2_000;
/// How many events are read at once where a filter may drop most of them.
const SEARCH_STEP: usize = 200;

/// Where to page from and to, which way, and what for.
pub struct Walk<'a> {
    pub direction: Direction,
    /// A place between two events: backwards gives those at or before it, forwards those after it.
    pub from: Position,
    pub to: Position,
    pub limit: usize,
    pub filter: &'a RoomEventFilter,
    pub relations: &'a RelationFilter,
}

impl<'a> Walk<'a> {
    /// A walk between two places, either of which may be left to the end of what the user sees.
    pub fn new(
        reading: &Reading,
        direction: Direction,
        (from, to): (Option<Position>, Option<Position>),
        limit: usize,
        filter: &'a RoomEventFilter,
    ) -> Self {
        let (first, last) = match direction {
            Direction::Backward => (reading.until, Position::START),
            Direction::Forward => (Position::START, reading.until),
        };
        let filtered = filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MAX_LIMIT);
        let limit = limit.min(filtered).min(MAX_LIMIT);
        let (from, to) = (from.unwrap_or(first), to.unwrap_or(last));
        Self { direction, from, to, limit, filter, relations: &RelationFilter::ANY }
    }

    /// The walk over those of its events that relate as a filter says.
    pub fn relating(self, relations: &'a RelationFilter) -> Self {
        Self { relations, ..self }
    }

    /// Whether every event that the user sees is wanted.
    pub fn takes_everything(&self, reading: &Reading) -> bool {
        self.filter.passes_everything() && self.relations.is_any() && reading.ignored.is_empty()
    }

    /// The part of the log that it covers: after the first place, up to the second.
    fn span(&self, reading: &Reading) -> (Position, Position) {
        match self.direction {
            Direction::Backward => (self.to, self.from.min(reading.until)),
            Direction::Forward => (self.from, self.to.min(reading.until)),
        }
    }

    /// What the user sees of it, each again as after and up to, in the order of the walk.
    fn stretches(&self, reading: &Reading) -> Vec<(Position, Position)> {
        let (after, until) = self.span(reading);
        let mut stretches: Vec<_> = reading.sight.within(after, until).collect();
        if self.direction == Direction::Backward {
            stretches.reverse();
        }
        stretches
    }

    /// How many events are read at once where so many have been found among those that were looked at.
    fn step(&self, reading: &Reading, found: usize, searched: usize) -> usize {
        // One more than is missing tells whether there is more.
        let missing = self.limit - found + 1;
        // Most filters drop few events: only where this one does not, many are read at once.
        if searched == found || self.takes_everything(reading) { missing } else { missing.max(SEARCH_STEP) }
    }
}

/// What a walk reads first, where it has been read already.
struct Read {
    span: (Position, Position),
    most: usize,
    events: Vec<Arc<Stored>>,
}

/// A page of events in the direction in which they were asked for.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<Arc<Stored>>,
    /// Where to go on. None where there is nothing more.
    pub end: Option<Position>,
}

/// What was said before and after an event.
pub struct Surroundings {
    /// Newest first.
    pub before: Vec<Arc<Stored>>,
    /// Oldest first.
    pub after: Vec<Arc<Stored>>,
    /// From here on backwards lies what is not part of `before`.
    pub start: Position,
    /// From here on forwards lies what is not part of `after`.
    pub end: Position,
}

/// An event in its surroundings.
pub struct Context {
    pub event: Stored,
    pub around: Surroundings,
    /// The state of the room just after the last of these events, as far as the filter wants it.
    pub state: Vec<Arc<Pdu>>,
}

impl Rooms {
    /// The next page of a walk.
    pub async fn page(&self, reading: &mut Reading, walk: &Walk<'_>) -> Result<Page> {
        let page = self.read_page(reading, walk, None).await?;
        if let Some(oldest) = page.events.iter().map(|event| event.position).min() {
            self.recall(reading, oldest).await?;
        }
        Ok(page)
    }

    /// The next page of a walk, without what the reader was at that time where the reading does not know it.
    pub(crate) async fn glance(&self, reading: &Reading, walk: &Walk<'_>) -> Result<Page> {
        self.read_page(reading, walk, None).await
    }

    /// The next page of a walk, of which something may have been read already.
    async fn read_page(&self, reading: &Reading, walk: &Walk<'_>, read: Option<Read>) -> Result<Page> {
        let (after, until) = walk.span(reading);
        if walk.limit == 0 {
            return Ok(Page { events: Vec::new(), end: (after < until).then_some(walk.from) });
        }
        let room_id = reading.room.view(|view| view.room_id.clone());
        if walk.filter.passes_nothing_in(&room_id) {
            return Ok(Page::default());
        }
        self.gather(reading, walk, read).await
    }

    async fn gather(&self, reading: &Reading, walk: &Walk<'_>, mut read: Option<Read>) -> Result<Page> {
        let room_id = reading.room.view(|view| view.room_id.clone());
        let mut events = Vec::with_capacity(walk.limit);
        let mut searched = 0;
        for (mut after, mut until) in walk.stretches(reading) {
            while after < until {
                let step = walk.step(reading, events.len(), searched);
                let mut found = match read.take() {
                    Some(read) if read.span == (after, until) && read.most == step => read.events,
                    _ => self.list(&reading.room, walk.direction, (after, until), step).await?,
                };
                let exhausted = found.len() < step;
                self.withhold(&room_id, &reading.user_id, &mut found).await?;
                let related = self.related(reading, walk, &found).await?;
                for event in found {
                    let (here, beyond) = (event.position, event.position.before());
                    if events.len() == walk.limit || searched == MAX_SEARCH {
                        let end = if walk.direction == Direction::Backward { here } else { beyond };
                        return Ok(Page { events, end: Some(end) });
                    }
                    searched += 1;
                    match walk.direction {
                        Direction::Backward => until = beyond,
                        Direction::Forward => after = here,
                    }
                    let relates = || {
                        walk.relations.passes(&event.pdu)
                            && related.as_ref().is_none_or(|parents| parents.contains(event.pdu.event_id()))
                    };
                    if walk.filter.passes(&event.pdu) && !is_ignored(&event.pdu, &reading.ignored) && relates() {
                        events.push(event);
                    }
                }
                if exhausted {
                    break;
                }
            }
        }
        Ok(Page { events, end: None })
    }

    /// Those of some events to which something relates as the walk wants it. None if it does not ask.
    async fn related(
        &self,
        reading: &Reading,
        walk: &Walk<'_>,
        events: &[Arc<Stored>],
    ) -> Result<Option<HashSet<OwnedEventId>>> {
        let Some(wanted) = walk.relations.children() else { return Ok(None) };
        let ids: Vec<&EventId> = events.iter().map(|event| event.pdu.event_id()).collect();
        let mut parents = HashSet::new();
        if ids.is_empty() {
            return Ok(Some(parents));
        }
        let room_id = reading.room.view(|view| view.room_id.clone());
        let ignored: Vec<&str> = reading.ignored.iter().map(|user| user.as_str()).collect();
        let mut conn = self.0.db.read().await?;
        for (after, until) in reading.sight.within(Position::START, reading.until) {
            let stretch = Stretch { room_id: &room_id, after, until };
            parents.extend(store::relation::list_parents_of(&mut conn, stretch, &ids, &wanted, &ignored).await?);
        }
        Ok(Some(parents))
    }

    /// What pairs of walks away from each other read first, in one statement for those that don't find it in memory.
    async fn read_ahead(&self, pairs: &[(&Reading, [Walk<'_>; 2])]) -> Result<Vec<[Option<Read>; 2]>> {
        let first = |reading: &Reading, walk: &Walk<'_>| {
            let span = walk.stretches(reading).into_iter().find(|(after, until)| after < until)?;
            let most = walk.step(reading, 0, 0);
            let remembered = remembered(&reading.room, walk.direction, span, most);
            (walk.limit > 0 && remembered.is_none()).then_some((span, most))
        };
        let around = |(reading, [backward, forward]): &(&Reading, [Walk<'_>; 2])| {
            let room_id = reading.room.view(|view| view.room_id.clone());
            Some(Around { room_id, before: first(reading, backward)?, after: first(reading, forward)? })
        };
        let wanted: Vec<Option<Around>> = pairs.iter().map(around).collect();
        let asked: Vec<&Around> = wanted.iter().flatten().collect();
        if asked.is_empty() {
            return Ok(wanted.iter().map(|_| [None, None]).collect());
        }
        let mut found = store::event::list_around_each(&mut self.0.db.read().await?, &asked).await?.into_iter();
        let read = |(span, most), events| Some(Read { span, most, events });
        let ahead =
            wanted.iter().map(|around| match around.as_ref().and_then(|around| Some((around, found.next()?))) {
                Some((Around { before, after, .. }, (newest, oldest))) => [read(*before, newest), read(*after, oldest)],
                None => [None, None],
            });
        Ok(ahead.collect())
    }

    /// Accepted events after `after` up to `until`, the first `most` of them in this direction: from memory
    /// where that reaches, else from the database.
    async fn list(
        &self,
        room: &Room,
        direction: Direction,
        (after, until): (Position, Position),
        most: usize,
    ) -> Result<Vec<Arc<Stored>>> {
        if let Some(events) = remembered(room, direction, (after, until), most) {
            return Ok(events);
        }
        let room_id = room.view(|view| view.room_id.clone());
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut conn = self.0.db.read().await?;
        let events = match direction {
            Direction::Backward => store::event::list_backward(&mut conn, &room_id, until, after, most).await?,
            Direction::Forward => store::event::list_forward(&mut conn, &room_id, after, until, most).await?,
        };
        Ok(events.into_iter().map(Arc::new).collect())
    }

    /// What was said around an event. None if the user can't see it.
    pub async fn context(
        &self,
        reading: &mut Reading,
        event_id: &EventId,
        limit: usize,
        filter: &RoomEventFilter,
    ) -> Result<Option<Context>> {
        let Some(event) = self.find_event(reading, event_id).await? else { return Ok(None) };
        let limit = limit.min(MAX_LIMIT);
        let limits = (limit / 2, limit - limit / 2);
        let around = self.surroundings(&[(reading, event.position)], limits, filter).await?.pop();
        let around = around.ok_or_else(|| Error::broken("one place has no surroundings"))?;
        if let Some(oldest) = around.before.last() {
            self.recall(reading, oldest.position).await?;
        }
        let last = around.after.last().map_or(event.position, |last| last.position);
        let state = self.state_at(&reading.room, last).await?;
        let events = around.before.iter().chain(&around.after).map(|event| &event.pdu).chain([&event.pdu]);
        let mut state = wanted_state(&state, filter, events);
        self.withhold_state(event.pdu.room_id(), &reading.user_id, &mut state).await?;
        Ok(Some(Context { event, around, state }))
    }

    /// What was said before and after the places of events that the user sees, so many events of each. What the user was
    /// at the time the readings need not know.
    pub async fn surroundings(
        &self,
        places: &[(&Reading, Position)],
        (before, after): (usize, usize),
        filter: &RoomEventFilter,
    ) -> Result<Vec<Surroundings>> {
        let walks = |(reading, here): &(&'_ Reading, Position)| {
            let backward = Walk::new(reading, Direction::Backward, (Some(here.before()), None), before, filter);
            let forward = Walk::new(reading, Direction::Forward, (Some(*here), None), after, filter);
            [backward, forward]
        };
        let pairs: Vec<_> = places.iter().map(|place| (place.0, walks(place))).collect();
        let ahead = self.read_ahead(&pairs).await?;
        let mut found = Vec::with_capacity(places.len());
        for ((reading, [backward, forward]), [before, after]) in pairs.iter().zip(ahead) {
            let before = self.read_page(reading, backward, before).await?;
            let after = self.read_page(reading, forward, after).await?;
            let start = before.end.or_else(|| before.events.last().map(|first| first.position.before()));
            let end = after.end.or_else(|| after.events.last().map(|last| last.position));
            found.push(Surroundings {
                before: before.events,
                after: after.events,
                start: start.unwrap_or(backward.from),
                end: end.unwrap_or(forward.from),
            });
        }
        Ok(found)
    }
}

/// The events of a stretch, the first `most` of them in one direction, if they are all in memory.
fn remembered(
    room: &Room,
    direction: Direction,
    (after, until): (Position, Position),
    most: usize,
) -> Option<Vec<Arc<Stored>>> {
    room.view(|view| match direction {
        Direction::Backward => view.timeline(after, until, most).map(|(mut events, _)| {
            events.reverse();
            events
        }),
        Direction::Forward => view.timeline_from(after, until, most),
    })
}

/// What a filter wants of a state that comes with some events: where members are loaded lazily, only those
/// of whom there is an event.
fn wanted_state<'a>(
    state: &State,
    filter: &RoomEventFilter,
    events: impl Iterator<Item = &'a Arc<Pdu>>,
) -> Vec<Arc<Pdu>> {
    let lazy = !filter.lazy_load_options.is_disabled();
    let senders: HashSet<&str> = events.map(|pdu| pdu.sender().as_str()).collect();
    let is_needed = |pdu: &Pdu| {
        !lazy
            || *pdu.kind() != TimelineEventType::RoomMember
            || pdu.state_key().is_some_and(|user| senders.contains(user))
    };
    state.iter().filter(|pdu| is_needed(pdu) && filter.passes(pdu)).cloned().collect()
}

#[cfg(test)]
mod tests;
