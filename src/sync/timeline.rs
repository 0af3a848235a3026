//! The timeline of a room as one user may read it: the newest events after a position.

use std::sync::Arc;

use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, UserId};

use super::{Request, gather::Sources};
use crate::{
    error::Result,
    event::{ClientFormat, Relation, Stored},
    position::Position,
    room::{
        Room,
        filter::PduFilter as _,
        reading::is_ignored,
        relation::{Bundles, Reader},
        visibility::Sight,
    },
};

/// How many events are told where the filter does not say.
const DEFAULT_LIMIT: usize = 10;
/// More are never told at once.
const MAX_LIMIT: usize = 200;
/// How many events are looked at in search of some that pass.
const MAX_SCAN: usize = 1_000;

/// The newest events after a position.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// Oldest first.
    pub(crate) events: Vec<Arc<Stored>>,
    /// Whether older events after the position were left out.
    pub(crate) limited: bool,
    /// Everything after this position has been looked at.
    pub(crate) start: Position,
    /// What relates to the events, where older ones were left out: whoever has the older ones relates them alone.
    bundles: Bundles,
    /// What the user may see.
    sight: Sight,
}

impl Timeline {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.limited
    }

    /// How the user gets one of the events to read, on this device and at this time: without the room, which the
    /// timeline is of.
    pub(super) fn format(
        &self,
        event: &Stored,
        user_id: &UserId,
        device_id: &DeviceId,
        now: MilliSecondsSinceUnixEpoch,
    ) -> ClientFormat {
        let format = |event: &Stored| ClientFormat {
            with_room_id: false,
            now: Some(now),
            transaction_id: event.transaction_for(user_id, device_id),
            delay_id: event.delay_id_for(user_id),
            replaces: event.replaces.clone(),
            membership: self.sight.membership_at(event.position),
            relations: None,
        };
        let relations = self.bundles.write(event.pdu.event_id(), &format);
        ClientFormat { relations, ..format(event) }
    }
}

/// Gathers what passes the filter and what the user may see, newest first, until there is enough.
pub(super) async fn gather(
    inner: &Sources,
    request: &Request,
    room: &Arc<Room>,
    after: Position,
    until: Position,
) -> Result<Timeline> {
    let filter = &request.filter.room.timeline;
    let limit = filter.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(u64::from(limit)).unwrap_or(MAX_LIMIT));
    let limit = limit.min(MAX_LIMIT);
    let ignored = inner.account_data.ignored(&request.user_id).await?;
    let sight = inner.rooms.sight(room, &request.user_id).await?;
    let mut timeline =
        Timeline { events: Vec::new(), limited: false, start: until, bundles: Bundles::default(), sight };
    let room_id = room.view(|view| view.room_id.clone());
    let (mut scanned, mut related) = (0, false);
    loop {
        let wanted = limit.saturating_sub(timeline.events.len());
        let (mut page, more) = inner.rooms.newest(room, after, timeline.start, wanted).await?;
        inner.rooms.withhold(&room_id, &request.user_id, &mut page).await?;
        scanned += page.len();
        related = related || page.iter().any(|event| Relation::of(&event.pdu).is_some());
        if let Some(oldest) = page.first() {
            timeline.start = oldest.position.before();
        }
        let visible = page.into_iter().rev().filter(|event| {
            filter.passes(&event.pdu) && timeline.sight.sees(event) && !is_ignored(&event.pdu, &ignored)
        });
        timeline.events.extend(visible);
        if !more {
            timeline.start = after.max(Position::START);
            break;
        }
        if timeline.events.len() >= limit || scanned >= MAX_SCAN {
            timeline.limited = true;
            break;
        }
    }
    if let Some(newest) = timeline.events.last()
        && timeline.limited
        && timeline.events.len() == limit
    {
        // What was looked at beyond the last event that passed is looked at again by whoever pages back.
        timeline.start = newest.position.before();
    }
    timeline.events.reverse();
    // What relates to an event comes after it, and everything since the first of these has just been looked at: in most
    // rooms there is nothing to ask the database for. (Where another server sends things in another order, a bundle is
    // left out here; it is there on every other way to read the event.)
    if timeline.limited && related {
        let reader = Reader { user_id: &request.user_id, sight: &timeline.sight, ignored: &ignored, until };
        let events = timeline.events.iter().map(|event| &**event);
        timeline.bundles = inner.rooms.bundles(&room_id, &reader, events).await?;
    }
    Ok(timeline)
}

/// The one event at a position, which the reader is told of whatever else is hidden from them.
pub(super) async fn only(sources: &Sources, request: &Request, room: &Arc<Room>, at: Position) -> Result<Timeline> {
    let (mut events, _) = sources.rooms.newest(room, at.before(), at, 1).await?;
    let room_id = room.view(|view| view.room_id.clone());
    sources.rooms.withhold(&room_id, &request.user_id, &mut events).await?;
    let sight = sources.rooms.sight(room, &request.user_id).await?;
    Ok(Timeline { events, limited: false, start: at.before(), bundles: Bundles::default(), sight })
}
