//! Pages of a room's history, in both directions.
//!
//! A page is gathered from the stretches of the log that the user sees. Events that the filter drops don't
//! end a page: the search goes on behind them, up to a bound, and where it stops the page says how to go on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use std::{collections::HashSet, sync::Arc};

use ruma::{
    EventId,
    api::{Direction, client::filter::RoomEventFilter},
    events::TimelineEventType,
};

use super::{
    Room, Rooms, State,
    filter::PduFilter as _,
    reading::{Reading, is_ignored},
};
use crate::{
    error::Result,
    event::{Pdu, Stored},
    position::Position,
    store,
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
        Self { direction, from: from.unwrap_or(first), to: to.unwrap_or(last), limit, filter }
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

    /// How many events are read at once where so many have been found.
    fn step(&self, reading: &Reading, found: usize) -> usize {
        // One more than is missing tells whether there is more.
        let missing = self.limit - found + 1;
        let all_pass = self.filter.is_empty() && reading.ignored.is_empty();
        if all_pass { missing } else { missing.max(SEARCH_STEP) }
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
        self.page_of(reading, walk, None).await
    }

    /// The same where what is read first may have been read already.
    async fn page_of(&self, reading: &mut Reading, walk: &Walk<'_>, read: Option<Read>) -> Result<Page> {
        let (after, until) = walk.span(reading);
        if walk.limit == 0 {
            return Ok(Page { events: Vec::new(), end: (after < until).then_some(walk.from) });
        }
        let room_id = reading.room.view(|view| view.room_id.clone());
        if walk.filter.passes_nothing_in(&room_id) {
            return Ok(Page::default());
        }
        let page = self.gather(reading, walk, read).await?;
        if let Some(oldest) = page.events.iter().map(|event| event.position).min() {
            self.recall(reading, oldest).await?;
        }
        Ok(page)
    }

    async fn gather(&self, reading: &Reading, walk: &Walk<'_>, mut read: Option<Read>) -> Result<Page> {
        let mut events = Vec::with_capacity(walk.limit);
        let mut searched = 0;
        for (mut after, mut until) in walk.stretches(reading) {
            while after < until {
                let step = walk.step(reading, events.len());
                let found = match read.take() {
                    Some(read) if read.span == (after, until) && read.most == step => read.events,
                    _ => self.list(&reading.room, walk.direction, (after, until), step).await?,
                };
                let exhausted = found.len() < step;
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
                    if walk.filter.passes(&event.pdu) && !is_ignored(&event.pdu, &reading.ignored) {
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

    /// What two walks away from each other read first, in one statement where neither finds it in memory.
    async fn read_both(
        &self,
        reading: &Reading,
        backward: &Walk<'_>,
        forward: &Walk<'_>,
    ) -> Result<(Option<Read>, Option<Read>)> {
        let first = |walk: &Walk<'_>| {
            let (after, until) = walk.stretches(reading).into_iter().find(|(after, until)| after < until)?;
            let most = walk.step(reading, 0);
            let remembered = remembered(&reading.room, walk.direction, (after, until), most);
            (walk.limit > 0 && remembered.is_none()).then_some(((after, until), most))
        };
        let (Some((before, most_before)), Some((after, most_after))) = (first(backward), first(forward)) else {
            return Ok((None, None));
        };
        let room_id = reading.room.view(|view| view.room_id.clone());
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (newest, oldest) = store::event::list_around(
            &mut self.0.db.read().await?,
            &room_id,
            (before.0, before.1, number(most_before)),
            (after.0, after.1, number(most_after)),
        )
        .await?;
        let read = |span, most, events: Vec<Stored>| {
            Some(Read { span, most, events: events.into_iter().map(Arc::new).collect() })
        };
        Ok((read(before, most_before, newest), read(after, most_after, oldest)))
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
        let around = self.surroundings(reading, event.position, (limit / 2, limit - limit / 2), filter).await?;
        let last = around.after.last().map_or(event.position, |last| last.position);
        let state = self.state_at(&reading.room, last).await?;
        let events = around.before.iter().chain(&around.after).map(|event| &event.pdu).chain([&event.pdu]);
        let state = wanted_state(&state, filter, events);
        Ok(Some(Context { event, around, state }))
    }

    /// What was said before and after the place of an event that the user sees, so many events of each.
    pub async fn surroundings(
        &self,
        reading: &mut Reading,
        here: Position,
        (before, after): (usize, usize),
        filter: &RoomEventFilter,
    ) -> Result<Surroundings> {
        let backward = Walk::new(reading, Direction::Backward, (Some(here.before()), None), before, filter);
        let forward = Walk::new(reading, Direction::Forward, (Some(here), None), after, filter);
        let (before, after) = self.read_both(reading, &backward, &forward).await?;
        let before = self.page_of(reading, &backward, before).await?;
        let after = self.page_of(reading, &forward, after).await?;
        let start = before.end.or_else(|| before.events.last().map(|first| first.position.before()));
        let end = after.end.or_else(|| after.events.last().map(|last| last.position));
        Ok(Surroundings {
            before: before.events,
            after: after.events,
            start: start.unwrap_or(here.before()),
            end: end.unwrap_or(here),
        })
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
