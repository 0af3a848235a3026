//! The timeline of a room as one user may read it: the newest events after a position.
//!
//! A client that applies the timeline to the `state` beside it has the room's state at the end. State that the timeline
//! hides is part of `state`; where an older event of the timeline would overwrite it, the timeline begins behind that.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedUserId, api::Direction};

use super::{
    client::Client,
    sources::{Sources, SyncRequest},
};
use crate::{
    error::Result,
    event::{ClientFormat, Relation, StateChange, Stored},
    ground::position::Order,
    room::{
        Room,
        read::{
            reading::ReadableRoom,
            relation::{Bundles, Viewer},
            timeline::{Gaps, Walk},
            visibility::Sight,
        },
    },
};

/// How many events are sent where the client does not say.
const DEFAULT_LIMIT: usize = 10;
/// More are never sent at once.
const MAX_LIMIT: usize = 200;

/// The newest events after a position.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// Oldest first.
    pub(crate) events: Vec<Arc<Stored>>,
    /// Whether older events after the position were left out.
    pub(crate) limited: bool,
    /// Where somebody who pages back begins: just before the first event.
    pub(crate) start: Order,
    /// What the room's state has become since `start`, except where the events say it: what is hidden from the user or
    /// behind the filter. Left empty for clients that take the state after the timeline.
    pub(super) hidden_changes: Vec<StateChange>,
    /// What relates to the events, where older ones were left out: whoever has the older ones relates them alone.
    bundles: Bundles,
    /// What the user may see.
    sight: Sight,
}

impl Timeline {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.limited
    }

    /// Where the state is as it was just before the timeline, which ends at `until`.
    pub(super) fn state_at(&self, until: Order) -> Order {
        let is_unchanged = self.hidden_changes.is_empty() && !self.events.iter().any(|event| event.pdu.is_state());
        if self.events.is_empty() || is_unchanged { until } else { self.start }
    }

    /// How a client gets one of the events to read at this time: without the room, which the timeline is of.
    pub(super) fn format(&self, event: &Stored, client: &Client, now: MilliSecondsSinceUnixEpoch) -> ClientFormat {
        let format = |event: &Stored| ClientFormat {
            with_room_id: false,
            now: Some(now),
            transaction_id: event.transaction_for(&client.user_id, &client.device_id),
            delay_id: event.delay_id_for(&client.user_id),
            replaces: event.replaces.clone(),
            membership: self.sight.membership_at(event.order),
            relations: None,
        };
        let relations = self.bundles.write(event.pdu.event_id(), &format);
        ClientFormat { relations, ..format(event) }
    }

    /// Takes what the room's state has become since `start`, up to `until`.
    ///
    /// Whoever applies the events to the state before them goes by the last one of each key. Where that no longer holds
    /// at the end, because a later one is hidden, it would overwrite what is right: the timeline begins behind it then,
    /// and what is left out is paged back to like anything else.
    fn agree_with(&mut self, mut changes: Vec<StateChange>, until: Order) {
        let holding: HashSet<&EventId> =
            changes.iter().filter_map(|change| Some(change.event.as_ref()?.event_id())).collect();
        let mut last: HashMap<(String, String), &Stored> = HashMap::new();
        for event in &self.events {
            if let Some(state_key) = event.pdu.state_key() {
                last.insert((event.pdu.kind().to_string(), state_key.to_owned()), event);
            }
        }
        let outdated =
            last.values().filter(|event| !holding.contains(event.pdu.event_id())).map(|event| event.order).max();
        last.retain(|_, event| outdated.is_none_or(|at| event.order > at));
        changes.retain(|change| !last.contains_key(&(change.kind.clone(), change.state_key.clone())));
        self.hidden_changes = changes;
        if let Some(at) = outdated {
            self.events.retain(|event| event.order > at);
            self.start = self.events.first().map_or(until, |first| first.order.before());
            self.limited = true;
        }
    }
}

/// Gathers what passes the filter and what the user may see, newest first, until there is enough.
pub(super) async fn gather(
    sources: &Sources,
    request: &SyncRequest,
    room: &Arc<Room>,
    ignored: &Arc<HashSet<OwnedUserId>>,
    (after, until): (Order, Order),
) -> Result<Timeline> {
    let wanted = &request.wanted.timeline;
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let reading = ReadableRoom {
        room: Arc::clone(room),
        user_id: request.client.user_id.clone(),
        sight: sources.rooms.sight(room, &request.client.user_id).await?,
        until,
        ignored: Arc::clone(ignored),
    };
    let walk = Walk {
        direction: Direction::Backward,
        from: until,
        to: after,
        // One more than is sent shows whether one is left out.
        limit: limit + 1,
        filter: &wanted.events,
        relations: &wanted.relations,
        gaps: Gaps::Ends,
    };
    let page = sources.rooms.page_without_history(&reading, &walk).await?;
    let mut events = page.events;
    let left_out = events.get(limit).map(|event| event.order).or(page.end);
    events.truncate(limit);
    let start = events.last().map(|first| first.order.before()).or(left_out);
    events.reverse();
    let mut timeline = Timeline {
        events,
        limited: left_out.is_some(),
        start: start.unwrap_or(until),
        hidden_changes: Vec::new(),
        bundles: Bundles::default(),
        sight: reading.sight.clone(),
    };
    if !request.state_after && !timeline.events.is_empty() {
        let changes = sources.rooms.list_changes(room, timeline.start, until).await?;
        timeline.agree_with(changes, until);
    }
    // What relates to an event comes after it. Where nothing is filtered and nobody ignored, everything since the first
    // of these has just been looked at, and in most rooms there is nothing to ask the database for. Otherwise what
    // relates to them may be among what was passed over. (Where another server sends things in another order, a bundle
    // is left out here; it is there on every other way to read the event.)
    let may_relate = |event: &Arc<Stored>| Relation::of(&event.pdu).is_some();
    if timeline.limited && (!walk.takes_everything(&reading) || timeline.events.iter().any(may_relate)) {
        let room_id = room.view(|view| view.room_id.clone());
        let events = timeline.events.iter().map(|event| &**event);
        timeline.bundles = sources.rooms.bundles(&room_id, &Viewer::from(&reading), events).await?;
    }
    Ok(timeline)
}

/// The one event at a position, which the reader gets whatever else is hidden from them.
pub(super) async fn only(sources: &Sources, request: &SyncRequest, room: &Arc<Room>, at: Order) -> Result<Timeline> {
    let (mut events, _) = sources.rooms.newest(room, at.before(), at, 1).await?;
    let room_id = room.view(|view| view.room_id.clone());
    sources.rooms.withhold(&room_id, &request.client.user_id, &mut events).await?;
    let sight = sources.rooms.sight(room, &request.client.user_id).await?;
    let (start, bundles) = (at.before(), Bundles::default());
    Ok(Timeline { events, limited: false, start, hidden_changes: Vec::new(), bundles, sight })
}
