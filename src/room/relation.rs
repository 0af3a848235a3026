//! What relates to an event: bundled with it, listed by itself, and as the threads of a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    DeviceId, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId, UserId, api::Direction,
    events::TimelineEventType, serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Rooms,
    reading::{Reading, is_ignored},
    timeline::Page,
    visibility::Sight,
};
use crate::{
    error::{Error, Result},
    event::{ClientFormat, Pdu, Relation, Standing, Stored, client_event},
    position::Position,
    store::{
        self,
        relation::{Stretch, Wanted},
    },
};

/// The most events of one page.
const MAX_LIMIT: usize = 250;
/// How many events are looked at for one page, where many of them are not for the reader.
const MAX_SEARCH: usize = 2_000;
/// The most references that are bundled with the events of one answer.
const MAX_REFERENCES: i64 = 1_000;
/// How far relations of relations are followed.
pub const MAX_DEPTH: u8 = 3;

/// What relates to some events, for one reader.
#[derive(Debug, Default)]
pub struct Bundles(HashMap<OwnedEventId, Bundle>);

#[derive(Debug, Default)]
struct Bundle {
    thread: Option<Thread>,
    edit: Option<Arc<Stored>>,
    references: Vec<OwnedEventId>,
}

#[derive(Debug)]
struct Thread {
    latest: Arc<Stored>,
    count: i64,
    participated: bool,
}

/// `unsigned.m.relations`.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "m.thread", skip_serializing_if = "Option::is_none")]
    thread: Option<WrittenThread>,
    #[serde(rename = "m.replace", skip_serializing_if = "Option::is_none")]
    edit: Option<Raw<()>>,
    #[serde(rename = "m.reference", skip_serializing_if = "Option::is_none")]
    references: Option<WrittenReferences<'a>>,
}

#[derive(Serialize)]
struct WrittenThread {
    latest_event: Raw<()>,
    count: i64,
    current_user_participated: bool,
}

#[derive(Serialize)]
struct WrittenReferences<'a> {
    chunk: Vec<WrittenReference<'a>>,
}

#[derive(Serialize)]
struct WrittenReference<'a> {
    event_id: &'a EventId,
}

impl Bundles {
    /// The bundle of an event, if anything relates to it. `format` says how the reader gets the events in it.
    pub fn write(&self, event_id: &EventId, format: &dyn Fn(&Stored) -> ClientFormat) -> Option<Box<RawValue>> {
        let bundle = self.0.get(event_id)?;
        // An edit is no parent of edits, and what is in a thread begins none: this ends.
        let write = |event: &Stored| {
            let relations = self.write(event.pdu.event_id(), format);
            client_event(&event.pdu, &ClientFormat { with_room_id: true, relations, ..format(event) })
        };
        let references = bundle.references.iter().map(|event_id| WrittenReference { event_id });
        let written = Written {
            thread: bundle.thread.as_ref().map(|thread| WrittenThread {
                latest_event: write(&thread.latest),
                count: thread.count,
                current_user_participated: thread.participated,
            }),
            edit: bundle.edit.as_deref().map(write),
            references: (!bundle.references.is_empty()).then(|| WrittenReferences { chunk: references.collect() }),
        };
        Some(to_raw_value(&written).expect("a bundle's fields are strings, integers and JSON that was read before"))
    }
}

/// For whom something is bundled: what they see, and whom they do not want to read.
pub(crate) struct Reader<'a> {
    pub(crate) user_id: &'a UserId,
    pub(crate) sight: &'a Sight,
    pub(crate) ignored: &'a HashSet<OwnedUserId>,
    /// What came later is not part of the answer.
    pub(crate) until: Position,
}

impl<'a> From<&'a Reading> for Reader<'a> {
    fn from(reading: &'a Reading) -> Self {
        let Reading { user_id, sight, ignored, until, .. } = reading;
        Self { user_id, sight, ignored, until: *until }
    }
}

/// Writes a room's events for one device of the reader, with what relates to them.
pub struct Writer<'a> {
    pub reading: &'a Reading,
    pub bundles: Bundles,
    pub device_id: &'a DeviceId,
    pub now: MilliSecondsSinceUnixEpoch,
}

impl Writer<'_> {
    pub fn write<T>(&self, event: &Stored) -> Raw<T> {
        let format = |event: &Stored| self.reading.format(event, self.device_id, self.now);
        let relations = self.bundles.write(event.pdu.event_id(), &format);
        client_event(&event.pdu, &ClientFormat { relations, ..format(event) })
    }
}

/// A page of what relates to an event, and where it ends.
pub struct Children<'a> {
    pub parent: &'a EventId,
    /// Empty for any.
    pub rel_type: &'a str,
    /// Empty for any.
    pub kind: &'a str,
    pub direction: Direction,
    /// Each a place between two events, or the end of what the reader sees.
    pub from: Option<Position>,
    pub to: Option<Position>,
    pub limit: usize,
    /// Whether what relates to the children is wanted too.
    pub recurse: bool,
}

/// A thread by its root.
pub struct ThreadRoot {
    pub event: Stored,
    /// The place of its last words.
    pub latest: Position,
}

impl Rooms {
    /// Those of these events, of whatever rooms, to which something relates: no others need a bundle.
    pub(crate) async fn parents(&self, events: impl IntoIterator<Item = &Stored>) -> Result<HashSet<OwnedEventId>> {
        let ids: Vec<&EventId> = events.into_iter().map(|event| event.pdu.event_id()).collect();
        Ok(store::relation::list_parents(&mut self.0.db.read().await?, &ids).await?)
    }

    /// What relates to these events of one room, as far as the reader sees it.
    pub(crate) async fn bundles(
        &self,
        room_id: &RoomId,
        reader: &Reader<'_>,
        events: impl IntoIterator<Item = &Stored>,
    ) -> Result<Bundles> {
        // State events get no bundles.
        let parents: HashMap<&EventId, &Stored> = events
            .into_iter()
            .filter(|event| !event.pdu.is_state())
            .map(|event| (event.pdu.event_id(), event))
            .collect();
        let mut bundles = self.bundle(room_id, reader, &parents).await?;
        let latest: Vec<Arc<Stored>> = bundles
            .0
            .values()
            .filter_map(|bundle| bundle.thread.as_ref())
            .map(|thread| Arc::clone(&thread.latest))
            .collect();
        if !latest.is_empty() {
            let of_latest = latest.iter().map(|event| (event.pdu.event_id(), &**event)).collect();
            bundles.0.extend(self.bundle(room_id, reader, &of_latest).await?.0);
        }
        Ok(bundles)
    }

    async fn bundle(
        &self,
        room_id: &RoomId,
        reader: &Reader<'_>,
        parents: &HashMap<&EventId, &Stored>,
    ) -> Result<Bundles> {
        let ids: Vec<&EventId> = parents.keys().copied().collect();
        let ignored: Vec<&str> = reader.ignored.iter().map(|user| user.as_str()).collect();
        if ids.is_empty() {
            return Ok(Bundles::default());
        }
        let mut threads: HashMap<OwnedEventId, (i64, i64, Position)> = HashMap::new();
        let mut edits: HashMap<OwnedEventId, ((i64, OwnedEventId), Position)> = HashMap::new();
        let mut references = Vec::new();
        let mut snapshot = self.0.db.snapshot().await?;
        for (after, until) in reader.sight.within(Position::START, reader.until) {
            let stretch = Stretch { room_id, after, until };
            let (mut has_edits, mut has_references) = (false, false);
            for summary in store::relation::summarise(&mut snapshot, stretch, &ids, reader.user_id, &ignored).await? {
                match summary.kind.as_str() {
                    "m.replace" => has_edits = true,
                    "m.reference" => has_references = true,
                    _ => {
                        let thread = threads.entry(summary.parent).or_default();
                        *thread = (thread.0 + summary.count, thread.1 + summary.own, thread.2.max(summary.last));
                    }
                }
            }
            if has_edits {
                for edit in store::relation::latest_edits(&mut snapshot, stretch, &ids).await? {
                    let is_edit = parents.get(&*edit.parent).is_some_and(|parent| may_edit(&parent.pdu, &edit));
                    if is_edit && edits.get(&edit.parent).is_none_or(|(age, _)| *age < edit.age) {
                        edits.insert(edit.parent, (edit.age, edit.position));
                    }
                }
            }
            if has_references {
                references.extend(
                    store::relation::list_references(&mut snapshot, stretch, &ids, &ignored, MAX_REFERENCES).await?,
                );
            }
        }
        let places = threads.values().map(|(.., last)| last.0).chain(edits.values().map(|(_, at)| at.0));
        let places: Vec<i64> = places.collect();
        let mut children: HashMap<Position, Arc<Stored>> = HashMap::new();
        if !places.is_empty() {
            let found = store::event::list_at(&mut snapshot, &places).await?;
            drop(snapshot);
            let mut found: Vec<Arc<Stored>> = found.into_iter().map(Arc::new).collect();
            self.withhold(room_id, reader.user_id, &mut found).await?;
            children.extend(found.into_iter().map(|event| (event.position, event)));
        }
        let mut bundles: HashMap<OwnedEventId, Bundle> = HashMap::new();
        for (root, (count, own, last)) in threads {
            let began = parents.get(&*root).is_some_and(|root| root.pdu.sender() == reader.user_id);
            let Some(latest) = children.get(&last).cloned() else { continue };
            bundles.entry(root).or_default().thread = Some(Thread { latest, count, participated: began || own > 0 });
        }
        for (parent, (_, at)) in edits {
            // An edit of which the reader gets a redacted copy changes nothing.
            if let Some(edit) = children.get(&at).filter(|edit| Relation::of(&edit.pdu).is_some()) {
                bundles.entry(parent).or_default().edit = Some(Arc::clone(edit));
            }
        }
        for (parent, reference) in references {
            bundles.entry(parent).or_default().references.push(reference);
        }
        Ok(Bundles(bundles))
    }

    /// The same for what somebody reads, ready to write it.
    pub async fn writer<'a>(
        &self,
        reading: &'a Reading,
        events: impl IntoIterator<Item = &Stored>,
        device_id: &'a DeviceId,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Writer<'a>> {
        let room_id = reading.room.view(|view| view.room_id.clone());
        let bundles = self.bundles(&room_id, &Reader::from(reading), events).await?;
        Ok(Writer { reading, bundles, device_id, now })
    }

    /// A page of what relates to an event. None if the reader can't see that event.
    pub async fn children(&self, reading: &mut Reading, wanted: &Children<'_>) -> Result<Option<Page>> {
        if self.find_event(reading, wanted.parent).await?.is_none() {
            return Ok(None);
        }
        let room_id = reading.room.view(|view| view.room_id.clone());
        let backward = wanted.direction == Direction::Backward;
        let (mut after, mut until) = if backward {
            (wanted.to.unwrap_or(Position::START), wanted.from.unwrap_or(reading.until).min(reading.until))
        } else {
            (wanted.from.unwrap_or(Position::START), wanted.to.unwrap_or(reading.until).min(reading.until))
        };
        let limit = wanted.limit.clamp(1, MAX_LIMIT);
        let mut page = Page::default();
        let mut searched = 0;
        while after < until {
            let step = limit + 1;
            let depth = if wanted.recurse { i64::from(MAX_DEPTH) } else { 1 };
            let Children { parent, rel_type, kind, .. } = *wanted;
            let mut events = {
                let stretch = Stretch { room_id: &room_id, after, until };
                let wanted = Wanted { parent, rel_type, kind, depth };
                let most = i64::try_from(step).unwrap_or(i64::MAX);
                let mut snapshot = self.0.db.snapshot().await?;
                let places = store::relation::list_children(&mut snapshot, stretch, wanted, backward, most).await?;
                let found = store::event::list_at(&mut snapshot, &places).await?;
                found.into_iter().map(Arc::new).collect::<Vec<_>>()
            };
            let exhausted = events.len() < step;
            self.withhold(&room_id, &reading.user_id, &mut events).await?;
            events.sort_unstable_by_key(|event| if backward { -event.position.0 } else { event.position.0 });
            for event in events {
                let here = event.position;
                if page.events.len() == limit || searched == MAX_SEARCH {
                    page.end = Some(if backward { here } else { here.before() });
                    return Ok(Some(page));
                }
                searched += 1;
                if backward {
                    until = here.before();
                } else {
                    after = here;
                }
                if reading.sight.sees(&event) && !is_ignored(&event.pdu, &reading.ignored) {
                    self.recall(reading, here).await?;
                    page.events.push(event);
                }
            }
            if exhausted {
                break;
            }
        }
        Ok(Some(page))
    }

    /// Threads of a room whose last words stand at or before `from`, newest first, and where to go on. A thread that
    /// was begun by somebody whom the reader ignores is listed, without their words.
    pub async fn threads(
        &self,
        reading: &mut Reading,
        participated: bool,
        from: Option<Position>,
        limit: usize,
    ) -> Result<(Vec<ThreadRoot>, Option<Position>)> {
        let room_id = reading.room.view(|view| view.room_id.clone());
        let limit = limit.clamp(1, MAX_LIMIT);
        let now = reading.now();
        let mut from = from.unwrap_or(now).min(now);
        let participant = participated.then(|| reading.user_id.clone());
        let mut found = Vec::new();
        let mut searched = 0;
        loop {
            let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
            let mut snapshot = self.0.db.snapshot().await?;
            let participant = participant.as_deref();
            let roots = store::relation::list_threads(&mut snapshot, &room_id, from, now, participant, most).await?;
            let ids: Vec<&EventId> = roots.iter().map(|(root, _)| &**root).collect();
            let mut events: HashMap<OwnedEventId, Stored> = store::event::list(&mut snapshot, &ids)
                .await?
                .into_iter()
                .map(|event| (event.pdu.event_id().to_owned(), event))
                .collect();
            drop(snapshot);
            let exhausted = roots.len() <= limit;
            for (root, latest) in roots {
                if found.len() == limit || searched == MAX_SEARCH {
                    return Ok((found, Some(latest)));
                }
                searched += 1;
                from = latest.before();
                let event = events.remove(&root).filter(|event| {
                    event.pdu.room_id() == room_id
                        && event.standing == Standing::Accepted
                        && reading.sight.sees(event)
                        && reading.sight.sees_at(latest)
                });
                if let Some(event) = event {
                    let mut event = self.withhold_one(&reading.user_id, event).await?;
                    self.recall(reading, event.position).await?;
                    if is_ignored(&event.pdu, &reading.ignored) {
                        event.pdu = Arc::new(event.pdu.stripped().map_err(Error::broken)?);
                    }
                    found.push(ThreadRoot { event, latest });
                }
            }
            if exhausted {
                return Ok((found, None));
            }
        }
    }
}

/// Whether an event of that form edits the parent.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>
fn may_edit(parent: &Pdu, edit: &store::relation::Edit) -> bool {
    *parent.sender() == *edit.sender
        && *parent.kind() == TimelineEventType::from(edit.kind.as_str())
        && parent.redacted_because().is_none()
        && Relation::of(parent).is_none_or(|relation| relation.kind != "m.replace")
}
