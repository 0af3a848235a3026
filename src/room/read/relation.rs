//! What relates to an event: bundled with it, listed by itself, and as the threads of a room.
//!
//! What relates is counted and listed as far as the reader sees it, stretch by stretch of what is visible to them, and
//! without those whom they ignore: two readers may get different counts for one thread. A thread's count is one range
//! of an index, however long the thread is.
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
    reading::{ReadableRoom, is_ignored},
    timeline::EventPage,
    visibility::Sight,
};
use crate::{
    error::{Error, Result},
    event::{ClientFormat, Pdu, Relation, Standing, Stored, client_event},
    ground::position::Order,
    room::Rooms,
    store::{
        self,
        relation::{ThreadRange, WantedRelations},
    },
};

/// The most events of one page.
const MAX_LIMIT: usize = 250;
/// How many events are looked at for one page, where many of them are not for the reader.
const MAX_SEARCH: usize = 2_000;
/// The most references that are bundled with the events of one answer. In each stretch of what the reader sees.
const MAX_REFERENCES: i64 = 1_000;
/// How far relations of relations are followed.
pub const MAX_DEPTH: u8 = 3;

/// What relates to some events, for one reader. By the event that they are bundled with. An event that is not in it has
/// none.
#[derive(Debug, Default)]
pub struct Bundles(HashMap<OwnedEventId, Bundle>);

/// What relates to one event.
#[derive(Debug, Default)]
struct Bundle {
    thread: Option<ThreadBundle>,
    /// The newest valid edit. It is sent whole, so that a client need not look it up.
    edit: Option<Arc<Stored>>,
    references: Vec<OwnedEventId>,
}

/// The thread that an event is the root of.
#[derive(Debug)]
struct ThreadBundle {
    /// The newest event of the thread that the reader sees.
    latest: Arc<Stored>,
    /// Without those whom the reader ignores, the root itself not counted.
    count: i64,
    /// Whether the reader has begun it or said something in it.
    participated: bool,
}

/// `unsigned.m.relations`.
#[derive(Serialize)]
struct RelationsBody<'a> {
    #[serde(rename = "m.thread", skip_serializing_if = "Option::is_none")]
    thread: Option<ThreadBody>,
    #[serde(rename = "m.replace", skip_serializing_if = "Option::is_none")]
    edit: Option<Raw<()>>,
    #[serde(rename = "m.reference", skip_serializing_if = "Option::is_none")]
    references: Option<ReferencesBody<'a>>,
}

#[derive(Serialize)]
struct ThreadBody {
    latest_event: Raw<()>,
    count: i64,
    current_user_participated: bool,
}

#[derive(Serialize)]
struct ReferencesBody<'a> {
    chunk: Vec<ReferenceBody<'a>>,
}

#[derive(Serialize)]
struct ReferenceBody<'a> {
    event_id: &'a EventId,
}

impl Bundles {
    /// The bundle of an event, if anything relates to it. `format` says how the reader gets the events in it. As
    /// `unsigned.m.relations` of the event. What is bundled carries its own bundle.
    pub fn write(&self, event_id: &EventId, format: &dyn Fn(&Stored) -> ClientFormat) -> Option<Box<RawValue>> {
        let bundle = self.0.get(event_id)?;
        // An edit is no parent of edits, and what is in a thread begins none: this ends.
        let write = |event: &Stored| {
            let relations = self.write(event.pdu.event_id(), format);
            client_event(&event.pdu, &ClientFormat { with_room_id: true, relations, ..format(event) })
        };
        let references = bundle.references.iter().map(|event_id| ReferenceBody { event_id });
        let written = RelationsBody {
            thread: bundle.thread.as_ref().map(|thread| ThreadBody {
                latest_event: write(&thread.latest),
                count: thread.count,
                current_user_participated: thread.participated,
            }),
            edit: bundle.edit.as_deref().map(write),
            references: (!bundle.references.is_empty()).then(|| ReferencesBody { chunk: references.collect() }),
        };
        Some(to_raw_value(&written).expect("a bundle's fields are strings, integers and JSON that was read before"))
    }
}

/// For whom something is bundled: what they see, and whom they do not want to read.
pub(crate) struct Viewer<'a> {
    pub(crate) user_id: &'a UserId,
    pub(crate) sight: &'a Sight,
    pub(crate) ignored: &'a HashSet<OwnedUserId>,
    /// What came later is not part of the answer.
    pub(crate) until: Order,
}

impl<'a> From<&'a ReadableRoom> for Viewer<'a> {
    fn from(reading: &'a ReadableRoom) -> Self {
        let ReadableRoom { user_id, sight, ignored, until, .. } = reading;
        Self { user_id, sight, ignored, until: *until }
    }
}

/// Writes a room's events for one device of the reader, with what relates to them.
pub struct EventWriter<'a> {
    pub reading: &'a ReadableRoom,
    pub bundles: Bundles,
    pub device_id: &'a DeviceId,
    pub now: MilliSecondsSinceUnixEpoch,
}

impl EventWriter<'_> {
    /// An event as a client reads it, with its bundle.
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
    pub from: Option<Order>,
    pub to: Option<Order>,
    pub limit: usize,
    /// Whether what relates to the children is wanted too.
    pub recurse: bool,
}

/// A thread by its root.
pub struct ThreadRoot {
    pub event: Stored,
    /// The place of its last words.
    pub latest: Order,
}

impl Rooms {
    /// Those of these events, of whatever rooms, to which something relates: no others need a bundle. One statement,
    /// and no regard to what the reader sees: a hint that saves work.
    pub(crate) async fn parents(&self, events: impl IntoIterator<Item = &Stored>) -> Result<HashSet<OwnedEventId>> {
        let ids: Vec<&EventId> = events.into_iter().map(|event| event.pdu.event_id()).collect();
        Ok(store::relation::list_parents(&mut self.0.db.read().await?, &ids).await?)
    }

    /// What relates to these events of one room, as far as the reader sees it. State events get none, as the
    /// specification says.
    pub(crate) async fn bundles(
        &self,
        room_id: &RoomId,
        reader: &Viewer<'_>,
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

    /// One snapshot for all of it, and a few statements for each stretch that the reader sees; most see one.
    async fn bundle(
        &self,
        room_id: &RoomId,
        reader: &Viewer<'_>,
        parents: &HashMap<&EventId, &Stored>,
    ) -> Result<Bundles> {
        let ids: Vec<&EventId> = parents.keys().copied().collect();
        let ignored: Vec<&str> = reader.ignored.iter().map(|user| user.as_str()).collect();
        if ids.is_empty() {
            return Ok(Bundles::default());
        }
        let mut threads: HashMap<OwnedEventId, (i64, i64, Order)> = HashMap::new();
        let mut edits: HashMap<OwnedEventId, ((i64, OwnedEventId), Order)> = HashMap::new();
        let mut references = Vec::new();
        let mut snapshot = self.0.db.snapshot().await?;
        for (after, until) in reader.sight.within(Order::START, reader.until) {
            let stretch = ThreadRange { room_id, after, until };
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
                        edits.insert(edit.parent, (edit.age, edit.order));
                    }
                }
            }
            if has_references {
                references.extend(
                    store::relation::list_references(&mut snapshot, stretch, &ids, &ignored, MAX_REFERENCES).await?,
                );
            }
        }
        let places = threads.values().map(|(.., last)| *last).chain(edits.values().map(|(_, at)| *at));
        let places: Vec<Order> = places.collect();
        let mut children: HashMap<Order, Arc<Stored>> = HashMap::new();
        if !places.is_empty() {
            let found = store::event::list_in(&mut snapshot, room_id, &places).await?;
            drop(snapshot);
            let mut found: Vec<Arc<Stored>> = found.into_iter().map(Arc::new).collect();
            self.withhold(room_id, reader.user_id, &mut found).await?;
            children.extend(found.into_iter().map(|event| (event.order, event)));
        }
        let mut bundles: HashMap<OwnedEventId, Bundle> = HashMap::new();
        for (root, (count, own, last)) in threads {
            let began = parents.get(&*root).is_some_and(|root| root.pdu.sender() == reader.user_id);
            let Some(latest) = children.get(&last).cloned() else { continue };
            bundles.entry(root).or_default().thread =
                Some(ThreadBundle { latest, count, participated: began || own > 0 });
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

    /// The bundles of what somebody reads, ready to write the events with.
    pub async fn writer<'a>(
        &self,
        reading: &'a ReadableRoom,
        events: impl IntoIterator<Item = &Stored>,
        device_id: &'a DeviceId,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<EventWriter<'a>> {
        let room_id = reading.room.view(|view| view.room_id.clone());
        let bundles = self.bundles(&room_id, &Viewer::from(reading), events).await?;
        Ok(EventWriter { reading, bundles, device_id, now })
    }

    /// A page of what relates to an event. None if the reader can't see that event. At most [`MAX_LIMIT`] events. Where
    /// many are not for the reader the page ends early, after [`MAX_SEARCH`] were looked at, and says where to go on.
    pub async fn children(&self, reading: &mut ReadableRoom, wanted: &Children<'_>) -> Result<Option<EventPage>> {
        if self.find_event(reading, wanted.parent).await?.is_none() {
            return Ok(None);
        }
        let room_id = reading.room.view(|view| view.room_id.clone());
        let backward = wanted.direction == Direction::Backward;
        let (mut after, mut until) = if backward {
            (wanted.to.unwrap_or(Order::START), wanted.from.unwrap_or(reading.until).min(reading.until))
        } else {
            (wanted.from.unwrap_or(Order::START), wanted.to.unwrap_or(reading.until).min(reading.until))
        };
        let limit = wanted.limit.clamp(1, MAX_LIMIT);
        let mut page = EventPage::default();
        let mut searched = 0;
        while after < until {
            let step = limit + 1;
            let depth = if wanted.recurse { i64::from(MAX_DEPTH) } else { 1 };
            let Children { parent, rel_type, kind, .. } = *wanted;
            let mut events = {
                let stretch = ThreadRange { room_id: &room_id, after, until };
                let wanted = WantedRelations { parent, rel_type, kind, depth };
                let most = i64::try_from(step).unwrap_or(i64::MAX);
                let mut snapshot = self.0.db.snapshot().await?;
                let places = store::relation::list_children(&mut snapshot, stretch, wanted, backward, most).await?;
                let found = store::event::list_in(&mut snapshot, &room_id, &places).await?;
                found.into_iter().map(Arc::new).collect::<Vec<_>>()
            };
            let exhausted = events.len() < step;
            self.withhold(&room_id, &reading.user_id, &mut events).await?;
            events.sort_unstable_by_key(|event| if backward { -event.order.0 } else { event.order.0 });
            for event in events {
                let here = event.order;
                if page.events.len() == limit || searched == MAX_SEARCH {
                    page.end = Some(if backward { until } else { here.before() });
                    return Ok(Some(page));
                }
                searched += 1;
                if backward {
                    until = here.before();
                } else {
                    after = here;
                }
                if reading.sight.sees(&event) && !is_ignored(&event.pdu, &reading.ignored) {
                    self.load_membership_from(reading, here).await?;
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
    /// was begun by somebody whom the reader ignores is listed, without their words. At most [`MAX_LIMIT`] threads.
    /// Where to go on is None once there are no more.
    pub async fn threads(
        &self,
        reading: &mut ReadableRoom,
        participated: bool,
        from: Option<Order>,
        limit: usize,
    ) -> Result<(Vec<ThreadRoot>, Option<Order>)> {
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
            let mut events: Vec<Arc<Stored>> =
                store::event::list(&mut snapshot, &ids).await?.into_iter().map(Arc::new).collect();
            drop(snapshot);
            self.withhold(&room_id, &reading.user_id, &mut events).await?;
            let mut events: HashMap<OwnedEventId, Arc<Stored>> =
                events.into_iter().map(|event| (event.pdu.event_id().to_owned(), event)).collect();
            let exhausted = roots.len() <= limit;
            for (root, latest) in roots {
                if found.len() == limit || searched == MAX_SEARCH {
                    return Ok((found, Some(from)));
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
                    let mut event = Arc::unwrap_or_clone(event);
                    self.load_membership_from(reading, event.order).await?;
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
