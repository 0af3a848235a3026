//! A page of results.
//!
//! Where the best come first, results come in windows: the newest that match, as many as can be read and put in order
//! at once, then those before them. So the best of the newest come first, and however many there are, all of them come.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, RoomId};

use super::{
    document::{text_of, text_of_json},
    place::ResultPlace,
    rank,
    scope::Scope,
    searches::{Criteria, ResultOrder, Searches},
    words,
};
use crate::{
    error::{Error, Result},
    event::{Standing, Stored},
    ground::position::{EventKey, Order},
    room::{
        EventTrace,
        read::{
            filter::{EventFilter as _, PduFilter as _},
            reading::ReadableRoom,
        },
    },
    store::{
        self,
        search::{Phrase, SearchHit, SearchQuery},
    },
};

/// How many windows one request looks through. A request that has found too little by then answers with what it has and
/// a token to go on: so its time is bounded however much there is that the reader may not see.
const MAX_WINDOWS: usize = 10;
/// The most words of a search term. Each is looked up in the index by itself.
const MAX_WORDS: usize = 64;

/// A page of results.
#[derive(Default)]
pub(crate) struct SearchPage {
    pub(crate) results: Vec<FoundEvent>,
    /// The rooms of the results, as the reader sees them.
    pub(crate) readings: HashMap<OwnedRoomId, ReadableRoom>,
    /// How many matches there are, at least: as many as this page and those before it have come to.
    pub(crate) count: usize,
    /// The words of the term as they were looked for, for clients to mark them.
    pub(crate) highlights: Vec<String>,
    /// Where to go on. None where there is nothing more; after a full page there may be nothing.
    pub(crate) next: Option<ResultPlace>,
}

/// One result.
pub(crate) struct FoundEvent {
    pub(crate) event: Stored,
    /// How well it matches; higher is better.
    pub(crate) rank: u32,
}

/// The newest matches before some place that the reader may see, newest first.
struct Window {
    /// Newest first.
    hits: Vec<SearchHit>,
    /// Where it begins: the next one ends before.
    begin: Order,
}

impl Searches {
    /// A page of what the reader may see and looks for.
    pub(crate) async fn find(&self, criteria: &Criteria<'_>) -> Result<SearchPage> {
        let phrases = words::phrases(criteria.term);
        let highlights: Vec<String> = phrases.iter().flat_map(|phrase| phrase.words.iter().cloned()).collect();
        if highlights.len() > MAX_WORDS {
            return Err(Error::invalid_param(format!("A search has at most {MAX_WORDS} words")));
        }
        // As far as this node has read: what its user knows of is found.
        let now = self.0.rooms.log().tail().reached();
        // What is indexed later would come between results that have been given. (History that is fetched meanwhile may:
        // that is where it belongs.)
        let indexed = self.catch_up(now).await?;
        let mut scope = self.scope(criteria).await?;
        let mut found = SearchPage { highlights, ..SearchPage::default() };
        let mut place = criteria.from.clone().unwrap_or_else(|| ResultPlace::first(indexed));
        let literal = words::literal(&phrases);
        let mut hits = None;
        if criteria.from.is_none() && literal != phrases {
            // Whoever looks for what is often said as it is does not mean the beginning of something else, and all that
            // begins with it would be far more to go through.
            let literally = self.hits(criteria, &literal, &mut scope, &place, &mut found.readings).await?;
            hits = Some(literally).filter(|hits| hits.len() == self.0.sizes.window);
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
                if window.begin == Order::START && found.results.len() < criteria.limit {
                    return Ok(found.tidied());
                }
                place = ResultPlace { below: window.begin, last: None, ..place };
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
        place: &ResultPlace,
        readings: &mut HashMap<OwnedRoomId, ReadableRoom>,
    ) -> Result<Vec<SearchHit>> {
        let Criteria { fields, .. } = *criteria;
        loop {
            let wanted = SearchQuery {
                phrases,
                fields,
                rooms: &scope.rooms(),
                below: place.below,
                most: self.0.sizes.window,
                sizes: self.0.sizes.index,
            };
            let mut hits = store::search::find(&mut self.0.db.read().await?, &wanted).await?;
            let is_full = hits.len() == self.0.sizes.window;
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
        mut hits: Vec<SearchHit>,
        place: &mut ResultPlace,
        readings: &mut HashMap<OwnedRoomId, ReadableRoom>,
    ) -> Result<Window> {
        // Where the window is full it begins at its last hit, else where everything does.
        let full = hits.last().filter(|_| hits.len() == self.0.sizes.window).map(|hit| hit.order);
        let mut begin = full.unwrap_or(Order::START);
        if criteria.order == ResultOrder::Rank && place.counted < place.below {
            // What has been redacted since makes no room for what is older: that is put in order with the next window.
            begin = begin.max(place.counted);
            hits.retain(|hit| hit.order >= begin);
        }
        for room_id in hits.iter().map(|hit| &hit.room_id) {
            if !readings.contains_key(room_id)
                && let Some(reading) = self.open(criteria, room_id).await?
            {
                readings.insert(room_id.clone(), reading);
            }
        }
        // Of what the reader gets redacted copies, they find nothing by its words.
        let traces = hits.iter().map(|hit| EventTrace { room_id: &hit.room_id, sender: &hit.sender, order: hit.order });
        let withheld = self.0.rooms.list_withheld(criteria.reader, traces).await?;
        // Cheap checks first: what is left is read from the database.
        hits.retain(|hit| {
            !hit.is_gone
                && !withheld.contains(&hit.order)
                && criteria.filter.passes_sender(&hit.sender)
                && place.group.as_ref().is_none_or(|group| group.holds(hit))
                && readings.get(&hit.room_id).is_some_and(|reading| reading.sight.sees_at(hit.order))
        });
        let new = hits.iter().filter(|hit| hit.order < place.counted).count();
        place.count = place.count.saturating_add(new);
        place.counted = if criteria.order == ResultOrder::Rank { begin } else { begin.min(place.counted) };
        Ok(Window { hits, begin })
    }

    /// Takes results from a window, from a place on, until there are enough. Returns whether nothing is left of it.
    async fn pick(
        &self,
        criteria: &Criteria<'_>,
        phrases: &[Phrase],
        hits: &[SearchHit],
        place: &mut ResultPlace,
        results: &mut Vec<FoundEvent>,
    ) -> Result<bool> {
        let keys: Vec<EventKey> = match criteria.order {
            ResultOrder::Rank => self.by_rank(criteria, phrases, hits, place.last).await?,
            ResultOrder::Recent => hits.iter().map(|hit| hit.key).collect(),
        };
        // Enough to know that there are more, unless a filter drops some.
        let (mut now, mut later) = keys.split_at(keys.len().min(criteria.limit - results.len() + 1));
        while !now.is_empty() {
            for found in self.read(criteria, phrases, now).await? {
                if results.len() == criteria.limit {
                    return Ok(false);
                }
                match criteria.order {
                    ResultOrder::Rank => place.last = Some(found.merit()),
                    ResultOrder::Recent => place.below = found.event.order,
                }
                results.push(found);
            }
            (now, later) = later.split_at(later.len().min(self.0.sizes.step));
        }
        Ok(true)
    }

    /// The keys of hits, the best first, from some result on.
    async fn by_rank(
        &self,
        criteria: &Criteria<'_>,
        phrases: &[Phrase],
        hits: &[SearchHit],
        after: Option<(u32, Order)>,
    ) -> Result<Vec<EventKey>> {
        let orders: HashMap<EventKey, Order> = hits.iter().map(|hit| (hit.key, hit.order)).collect();
        // Only their JSON: of many hits few are shown, and only those are read whole.
        let keys: Vec<i64> = hits.iter().map(|hit| hit.key.0).collect();
        let events = store::event::list_json_at(&mut self.0.db.read().await?, &keys).await?;
        let rank = |json: &str| text_of_json(json).map_or(0, |text| rank::of(&text, criteria.fields, phrases));
        let mut merits: Vec<((u32, Order), EventKey)> = events
            .into_iter()
            .filter_map(|(key, json)| Some(((rank(&json), orders.get(&key).copied()?), key)))
            .collect();
        // Below what was given last: by rank, and of one rank by place. Two events never compare as equal.
        merits.retain(|(merit, _)| after.is_none_or(|after| *merit < after));
        merits.sort_unstable_by_key(|(merit, _)| std::cmp::Reverse(*merit));
        Ok(merits.into_iter().map(|(_, key)| key).collect())
    }

    /// Those of some events that somebody wants, in the same order.
    async fn read(&self, criteria: &Criteria<'_>, phrases: &[Phrase], keys: &[EventKey]) -> Result<Vec<FoundEvent>> {
        let numbers: Vec<i64> = keys.iter().map(|key| key.0).collect();
        let found = store::event::list_at(&mut self.0.db.read().await?, &numbers).await?;
        let mut events: Vec<Arc<Stored>> = found.into_iter().map(Arc::new).collect();
        // What an event has replaced comes with it.
        self.0.rooms.withhold_anywhere(criteria.reader, &mut events).await?;
        // Judged again, by the event as it is now: it may have been redacted since it was found.
        let wanted = events.into_iter().map(Arc::unwrap_or_clone).filter(|event| {
            event.standing == Standing::Accepted
                && event.pdu.redacted_because().is_none()
                && criteria.filter.passes(&event.pdu)
                && !crate::room::read::reading::is_ignored(&event.pdu, &criteria.ignored)
        });
        let rank = |event: &Stored| text_of(event).map_or(0, |text| rank::of(&text, criteria.fields, phrases));
        let mut matches: HashMap<EventKey, FoundEvent> =
            wanted.map(|event| (event.key, FoundEvent { rank: rank(&event), event })).collect();
        Ok(keys.iter().filter_map(|key| matches.remove(key)).collect())
    }
}

impl FoundEvent {
    /// What results are ordered by.
    fn merit(&self) -> (u32, Order) {
        (self.rank, self.event.order)
    }
}

impl SearchPage {
    /// Without the rooms in which nothing was found.
    fn tidied(mut self) -> Self {
        let rooms: HashSet<&RoomId> = self.results.iter().map(|result| result.event.pdu.room_id()).collect();
        self.readings.retain(|room_id, _| rooms.contains(&**room_id));
        self
    }
}

#[cfg(test)]
mod tests;
