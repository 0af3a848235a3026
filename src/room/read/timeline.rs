//! Pages of a room's history, in both directions.
//!
//! A page is gathered from the stretches of the log that the user sees. Events that the filter drops don't
//! end a page: the search goes on behind them, up to a bound, and where it stops the page says how to go on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>
//!
//! Places are [`Order`]s and lie between events: a place `p` stands after every event up to `p` and before the rest. A
//! token of a page is such a place, so it stays right whatever is added later.

mod page;

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use ruma::{
    EventId, OwnedEventId, UserId,
    api::{Direction, client::filter::RoomEventFilter},
};

pub use self::page::EventPage;
use super::{
    filter::{EventSelection, PduFilter},
    reading::{ReadableRoom, is_ignored},
};
use crate::{
    error::{Error, Result},
    event::{Pdu, RelationFilter, Stored},
    ground::position::Order,
    room::{Room, Rooms, State},
    store::{self, event::ContextRange, relation::ThreadRange},
};

/// The most events of one page.
const MAX_LIMIT: usize = 250;
/// How many events one request looks at while it searches for those that pass its filter.
const MAX_SEARCH: usize = 2_000;
/// How many events are read at once where a filter may drop most of them.
const SEARCH_STEP: usize = 200;

/// A filter that every event passes.
static EVERYTHING: LazyLock<EventSelection> = LazyLock::new(EventSelection::default);

/// Where to page from and to, which way, and what for.
pub struct Walk<'a> {
    pub direction: Direction,
    /// A place between two events: backwards gives those at or before it, forwards those after it.
    pub from: Order,
    pub to: Order,
    /// In events, at most [`MAX_LIMIT`].
    pub limit: usize,
    pub filter: &'a dyn PduFilter,
    pub relations: &'a RelationFilter,
    pub gaps: Gaps,
}

/// What becomes of a walk backwards at an event before which events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// It goes on with what is here.
    Crossed,
    /// The page ends there: what it holds is without a gap.
    Ends,
}

impl<'a> Walk<'a> {
    /// A walk between two places, either of which may be left to the end of what the user sees.
    pub fn new(
        reading: &ReadableRoom,
        direction: Direction,
        between: (Option<Order>, Option<Order>),
        limit: usize,
        filter: &'a RoomEventFilter,
    ) -> Self {
        let filtered = filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MAX_LIMIT);
        Self { filter, ..Self::over_everything(reading, direction, between, limit.min(filtered)) }
    }

    /// A walk over whatever the user sees between two places.
    pub fn over_everything(
        reading: &ReadableRoom,
        direction: Direction,
        (from, to): (Option<Order>, Option<Order>),
        limit: usize,
    ) -> Self {
        let (first, last) = match direction {
            Direction::Backward => (reading.until, Order::START),
            Direction::Forward => (Order::START, reading.until),
        };
        let (from, to, limit) = (from.unwrap_or(first), to.unwrap_or(last), limit.min(MAX_LIMIT));
        let relations = &RelationFilter::ANY;
        Self { direction, from, to, limit, filter: &*EVERYTHING, relations, gaps: Gaps::Crossed }
    }

    /// The walk over those of its events that relate as a filter says.
    pub fn relating(self, relations: &'a RelationFilter) -> Self {
        Self { relations, ..self }
    }

    /// Whether every event that the user sees is wanted.
    pub fn takes_everything(&self, reading: &ReadableRoom) -> bool {
        self.filter.passes_everything() && self.relations.is_any() && reading.ignored.is_empty()
    }

    /// The part of the log that it covers: after the first place, up to the second.
    fn span(&self, reading: &ReadableRoom) -> (Order, Order) {
        match self.direction {
            Direction::Backward => (self.to, self.from.min(reading.until)),
            Direction::Forward => (self.from, self.to.min(reading.until)),
        }
    }

    /// The part of the room that was looked at for a page: after the first place, up to the second. In a walk backwards the
    /// place above it is part of it, as events may be missing just before what stands there.
    pub fn looked_at(&self, reading: &ReadableRoom, page: &EventPage) -> (Order, Order) {
        let (after, until) = self.span(reading);
        match self.direction {
            Direction::Backward => (page.end.unwrap_or(after), until.next()),
            Direction::Forward => (after, page.end.unwrap_or(until)),
        }
    }

    /// What the user sees of it, each again as after and up to, in the order of the walk.
    fn stretches(&self, reading: &ReadableRoom) -> Vec<(Order, Order)> {
        let (after, until) = self.span(reading);
        let mut stretches: Vec<_> = reading.sight.within(after, until).collect();
        if self.direction == Direction::Backward {
            stretches.reverse();
        }
        stretches
    }

    /// How many events are read at once where so many have been found among those that were looked at. Never less than
    /// two, as long as something is missing.
    fn step(&self, reading: &ReadableRoom, found: usize, searched: usize) -> usize {
        // One more than is missing shows whether there is more.
        let missing = self.limit - found + 1;
        // Most filters drop few events: only where this one does not, many are read at once.
        if searched == found || self.takes_everything(reading) { missing } else { missing.max(SEARCH_STEP) }
    }
}

/// What a walk reads first, where it has been read already. Used only if the walk asks for exactly this; otherwise it
/// is read again.
struct ReadAhead {
    span: (Order, Order),
    most: usize,
    events: Vec<Arc<Stored>>,
}

/// What was said before and after an event. Without the event itself.
pub struct Surroundings {
    /// Newest first.
    pub before: Vec<Arc<Stored>>,
    /// Oldest first.
    pub after: Vec<Arc<Stored>>,
    /// From here on backwards lies what is not part of `before`.
    pub start: Order,
    /// From here on forwards lies what is not part of `after`.
    pub end: Order,
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
    ///
    /// At most [`MAX_SEARCH`] events are looked at, so a page may be empty and still say where to go on. Errors are the
    /// database's.
    pub async fn page(&self, reading: &mut ReadableRoom, walk: &Walk<'_>) -> Result<EventPage> {
        let page = self.read_page(reading, walk, None).await?;
        if let Some(oldest) = page.events.iter().map(|event| event.order).min() {
            self.load_membership_from(reading, oldest).await?;
        }
        Ok(page)
    }

    /// The next page of a walk, without what the reader was at that time where the reading does not know it.
    pub(crate) async fn page_without_history(&self, reading: &ReadableRoom, walk: &Walk<'_>) -> Result<EventPage> {
        self.read_page(reading, walk, None).await
    }

    /// The next page of a walk, of which something may have been read already.
    async fn read_page(&self, reading: &ReadableRoom, walk: &Walk<'_>, read: Option<ReadAhead>) -> Result<EventPage> {
        let (after, until) = walk.span(reading);
        if walk.limit == 0 {
            return Ok(EventPage { events: Vec::new(), end: (after < until).then_some(walk.from) });
        }
        let room_id = reading.room.view(|view| view.room_id.clone());
        if walk.filter.passes_nothing_in(&room_id) {
            return Ok(EventPage::default());
        }
        self.gather(reading, walk, read).await
    }

    /// The heart of every page. `searched` counts over all stretches, so that the bound holds for the request.
    async fn gather(&self, reading: &ReadableRoom, walk: &Walk<'_>, mut read: Option<ReadAhead>) -> Result<EventPage> {
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
                    let (here, beyond) = (event.order, event.order.before());
                    // The event that shows that there is more is not part of the page.
                    if events.len() == walk.limit || searched == MAX_SEARCH {
                        let end = if walk.direction == Direction::Backward { until } else { beyond };
                        return Ok(EventPage { events, end: Some(end) });
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
                    let ends = walk.gaps == Gaps::Ends && event.follows_gap;
                    if walk.filter.passes(&event.pdu) && !is_ignored(&event.pdu, &reading.ignored) && relates() {
                        events.push(event);
                    }
                    if ends {
                        return Ok(EventPage { events, end: Some(until) });
                    }
                }
                if exhausted {
                    break;
                }
            }
        }
        Ok(EventPage { events, end: None })
    }

    /// Those of some events to which something relates as the walk wants it. None if it does not ask.
    async fn related(
        &self,
        reading: &ReadableRoom,
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
        for (after, until) in reading.sight.within(Order::START, reading.until) {
            let stretch = ThreadRange { room_id: &room_id, after, until };
            parents.extend(store::relation::list_parents_of(&mut conn, stretch, &ids, &wanted, &ignored).await?);
        }
        Ok(Some(parents))
    }

    /// What pairs of walks away from each other read first, in one statement for those that don't find it in memory.
    /// One answer for each pair, in their order. What is in memory is not read.
    async fn read_ahead(&self, pairs: &[(&ReadableRoom, [Walk<'_>; 2])]) -> Result<Vec<[Option<ReadAhead>; 2]>> {
        let first = |reading: &ReadableRoom, walk: &Walk<'_>| {
            let span = walk.stretches(reading).into_iter().find(|(after, until)| after < until)?;
            let most = walk.step(reading, 0, 0);
            let remembered = remembered(&reading.room, walk.direction, span, most);
            (walk.limit > 0 && remembered.is_none()).then_some((span, most))
        };
        let around = |(reading, [backward, forward]): &(&ReadableRoom, [Walk<'_>; 2])| {
            let room_id = reading.room.view(|view| view.room_id.clone());
            Some(ContextRange { room_id, before: first(reading, backward)?, after: first(reading, forward)? })
        };
        let wanted: Vec<Option<ContextRange>> = pairs.iter().map(around).collect();
        let asked: Vec<&ContextRange> = wanted.iter().flatten().collect();
        if asked.is_empty() {
            return Ok(wanted.iter().map(|_| [None, None]).collect());
        }
        let mut found = store::event::list_around_each(&mut self.0.db.read().await?, &asked).await?.into_iter();
        let read = |(span, most), events| Some(ReadAhead { span, most, events });
        let ahead =
            wanted.iter().map(|around| match around.as_ref().and_then(|around| Some((around, found.next()?))) {
                Some((ContextRange { before, after, .. }, (newest, oldest))) => {
                    [read(*before, newest), read(*after, oldest)]
                }
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
        (after, until): (Order, Order),
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

    /// What was said around an event. None if the user can't see it. `limit` is for both sides together; the odd one
    /// goes to what came after.
    pub async fn context(
        &self,
        reading: &mut ReadableRoom,
        event_id: &EventId,
        limit: usize,
        filter: &RoomEventFilter,
    ) -> Result<Option<Context>> {
        let Some(event) = self.find_event(reading, event_id).await? else { return Ok(None) };
        let limit = limit.min(MAX_LIMIT);
        let limits = (limit / 2, limit - limit / 2);
        let around = self.surroundings(&[(reading, event.order)], limits, filter).await?.pop();
        let around = around.ok_or_else(|| Error::broken("one place has no surroundings"))?;
        if let Some(oldest) = around.before.last() {
            self.load_membership_from(reading, oldest.order).await?;
        }
        let last = around.after.last().map_or(event.order, |last| last.order);
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
        places: &[(&ReadableRoom, Order)],
        (before, after): (usize, usize),
        filter: &RoomEventFilter,
    ) -> Result<Vec<Surroundings>> {
        let walks = |(reading, here): &(&'_ ReadableRoom, Order)| {
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
            let start = before.end.or_else(|| before.events.last().map(|first| first.order.before()));
            let end = after.end.or_else(|| after.events.last().map(|last| last.order));
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
    (after, until): (Order, Order),
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
/// of whom there is an event. The filter's other conditions hold for state as well.
fn wanted_state<'a>(
    state: &State,
    filter: &RoomEventFilter,
    events: impl Iterator<Item = &'a Arc<Pdu>>,
) -> Vec<Arc<Pdu>> {
    if filter.lazy_load_options.is_disabled() {
        return state.iter().filter(|pdu| filter.passes(pdu)).collect();
    }
    let senders: HashSet<&UserId> = events.map(|pdu| pdu.sender()).collect();
    let needed = senders.into_iter().filter_map(|user_id| state.member(user_id).cloned());
    state.iter_without_members().chain(needed).filter(|pdu| filter.passes(pdu)).collect()
}

#[cfg(test)]
mod tests;
