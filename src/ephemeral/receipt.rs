//! Receipts: how far users have read, publicly, privately and thread by thread; and the fully read marker.
//!
//! A receipt only ever moves forward. The database sees to that; memory is a copy of it that follows the log.
//!
//! How far along a receipt is, is the position of its event. Two devices that mark different events at once leave the
//! later of them: the row is replaced only by one that is further ahead, and one that is not written is not news to
//! anybody.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>

mod cache;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    EventId, OwnedEventId, RoomId, UserId,
    events::{
        AnySyncEphemeralRoomEvent,
        fully_read::FullyReadEventContent,
        receipt::{Receipt as ReceiptInfo, ReceiptEventContent, ReceiptThread, ReceiptType, SyncReceiptEvent},
        room::member::MembershipState,
    },
    serde::Raw,
};
use serde_json::value::to_raw_value;

pub use self::cache::ReceiptCache;
use crate::{
    db::Db,
    error::{Error, Result},
    event::{
        Relation, Standing, Stored,
        fact::{AccountData, FULLY_READ, Fact, Receipt, Write},
    },
    ground::{clock::Clock, position::Position},
    log::CommitError,
    room::{Resident, Room, Rooms},
    store,
};

/// How often a fully read marker is compared again with one that another device has just set.
const ATTEMPTS: usize = 8;
/// How many relations are followed to find out whether an event has to do with the root of a thread.
const HOPS: usize = 3;
/// How clients name the main timeline.
const MAIN: &str = "main";

/// Everybody's receipts. Cheap to clone.
#[derive(Clone)]
pub struct Receipts(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    clock: Clock,
    cache: Arc<ReceiptCache>,
}

/// What somebody has read, marked with one call.
#[derive(Clone, Debug, Default)]
pub struct ReadMarkers {
    /// `m.read`
    pub read: Option<OwnedEventId>,
    /// `m.read.private`
    pub read_private: Option<OwnedEventId>,
    /// `m.fully_read`
    pub fully_read: Option<OwnedEventId>,
    /// What the two receipts hold for. The marker knows no threads.
    pub thread: ReceiptThread,
}

impl Receipts {
    /// `cache` has to follow the log.
    pub fn new(db: Db, rooms: Rooms, clock: Clock, cache: Arc<ReceiptCache>) -> Self {
        Self(Arc::new(Inner { db, rooms, clock, cache }))
    }

    /// Notes what a user has read: all of it, or nothing if one of the events is not there for them.
    ///
    /// `M_FORBIDDEN` for who is not in the room, `M_NOT_FOUND` for an event that they can't see there,
    /// `M_INVALID_PARAM` where the event is not in the thread that is named.
    pub async fn mark(&self, user_id: &UserId, room_id: &RoomId, marks: ReadMarkers) -> Result<()> {
        let room = self.get_joined(user_id, room_id).await?;
        let thread_id = thread_id(&marks.thread)?;
        if marks.fully_read.is_some() && !thread_id.is_empty() {
            let message = "m.fully_read is for the room as a whole: send it without thread_id";
            return Err(Error::invalid_param(message));
        }
        let mut receipts = Vec::new();
        for (receipt_type, event_id) in [("m.read", &marks.read), ("m.read.private", &marks.read_private)] {
            let Some(event_id) = event_id else { continue };
            let event = self.get_event(&room, user_id, event_id).await?;
            self.check_thread(&event, thread_id).await?;
            let receipt = Receipt {
                room_id: room_id.to_owned(),
                user_id: user_id.to_owned(),
                receipt_type: receipt_type.to_owned(),
                thread_id: thread_id.to_owned(),
                event_id: event_id.clone(),
                event_order: event.order,
                ts: self.0.clock.now(),
            };
            // By memory: what is behind costs no write. Where memory does not know, the database decides.
            if !self.0.cache.has(&receipt) {
                receipts.push(Fact::Receipt(receipt));
            }
        }
        let fully_read = match &marks.fully_read {
            Some(event_id) => Some(self.get_event(&room, user_id, event_id).await?),
            None => None,
        };
        self.write(user_id, receipts, fully_read).await
    }

    /// Writes receipts and marker together; again if another device has moved the marker meanwhile.
    async fn write(&self, user_id: &UserId, receipts: Vec<Fact>, fully_read: Option<Stored>) -> Result<()> {
        // Only the marker can conflict. The receipts go along, so that both are written or neither.
        for _ in 0..ATTEMPTS {
            let mut facts = receipts.clone();
            if let Some(event) = &fully_read {
                facts.extend(self.fully_read(user_id, event).await?);
            }
            if facts.is_empty() {
                return Ok(());
            }
            match self.0.rooms.log().append(Write::facts(facts)).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable("The fully read marker is being moved from elsewhere. Try again".to_owned()))
    }

    /// The marker at an event, unless it is there or beyond already.
    async fn fully_read(&self, user_id: &UserId, event: &Stored) -> Result<Option<Fact>> {
        // From the database and not from memory: another device may have moved it a moment ago.
        let room_id = event.pdu.room_id();
        let mut conn = self.0.db.read().await?;
        let found = store::account_data::find(&mut conn, user_id, Some(room_id), FULLY_READ).await?;
        let mut expected = Position::START;
        if let Some((at, data)) = found {
            expected = at;
            let marked = serde_json::from_str::<FullyReadEventContent>(data.content.get());
            if let Ok(FullyReadEventContent { event_id, .. }) = marked {
                // An event that is gone, or never was here, marks nothing.
                let known = store::event::orders(&mut conn, &[&event_id]).await?;
                if known.first().is_some_and(|(_, place)| *place >= event.order) {
                    return Ok(None);
                }
            }
        }
        let content = to_raw_value(&FullyReadEventContent::new(event.pdu.event_id().to_owned()));
        let data = AccountData {
            user_id: user_id.to_owned(),
            room_id: Some(room_id.to_owned()),
            kind: FULLY_READ.to_owned(),
            content: content.map_err(Error::broken)?.into(),
        };
        Ok(Some(Fact::AccountData(data.replacing(expected))))
    }

    /// Receipts of a room that were set after `after`, up to `until`, each with its place in the log: everybody's
    /// public ones and the reader's own private ones.
    pub async fn since(
        &self,
        room_id: &RoomId,
        after: Position,
        until: Position,
        reader: &UserId,
    ) -> Result<Vec<(Position, Arc<Receipt>)>> {
        let began = self.0.rooms.log().tail().began();
        let remembered = self.0.cache.between(room_id, after, until, began);
        let mut receipts = if let Some(receipts) = remembered { receipts } else { self.load(room_id).await? };
        receipts.retain(|(at, _)| *at > after && *at <= until);
        // Private ones are not for others, whatever thread they are in.
        receipts.retain(|(_, receipt)| receipt.receipt_type == "m.read" || receipt.user_id == reader);
        Ok(receipts)
    }

    /// A user's own receipts in a room, if they are all remembered.
    pub(crate) fn find_own(&self, user_id: &UserId, room_id: &RoomId) -> Option<Vec<Arc<Receipt>>> {
        self.0.cache.find_own(user_id, room_id)
    }

    /// Reads a room's receipts and has the cache remember them.
    async fn load(&self, room_id: &RoomId) -> Result<Vec<(Position, Arc<Receipt>)>> {
        // Again where the log has gone too far ahead to be caught up with.
        loop {
            let tail = self.0.rooms.log().tail();
            let mut snapshot = tail.snapshot(&self.0.db).await?;
            let mut receipts: Vec<_> = store::ephemeral::list_receipts(&mut snapshot, room_id, Position::START)
                .await?
                .into_iter()
                .map(|(at, receipt)| (at, Arc::new(receipt)))
                .collect();
            receipts.sort_unstable_by_key(|(at, _)| *at);
            let position = snapshot.close().await;
            let remember = |missed: &[_]| self.0.cache.remember(room_id, position, &receipts, missed);
            if tail.catch_up(position, remember).is_some() {
                return Ok(receipts);
            }
        }
    }

    /// The room, as long as the user is in it.
    async fn get_joined(&self, user_id: &UserId, room_id: &RoomId) -> Result<Resident> {
        let room = self.0.rooms.find(room_id).await?;
        room.filter(|room| room.view(|view| view.state.membership(user_id)) == MembershipState::Join)
            .ok_or_else(|| Error::forbidden(format!("Join {room_id} first: only its members mark it as read")))
    }

    /// An event of the room that the user may see.
    async fn get_event(&self, room: &Room, user_id: &UserId, event_id: &EventId) -> Result<Stored> {
        let found = store::event::find(&mut self.0.db.read().await?, event_id).await?;
        let here = room.view(|view| view.room_id.clone());
        let event = found.filter(|event| event.standing == Standing::Accepted && event.pdu.room_id() == here);
        if let Some(event) = event
            && self.0.rooms.sight(room, user_id).await?.sees(&event)
        {
            return Ok(event);
        }
        Err(Error::not_found(format!("There is no event {event_id} for you in this room")))
    }

    /// A receipt for one thread needs an event that belongs to it. The root of a thread counts as part of it here, as
    /// does what relates to the root in another way.
    async fn check_thread(&self, event: &Stored, thread_id: &str) -> Result<()> {
        let belongs = match &event.thread_root {
            _ if thread_id.is_empty() => true,
            Some(root) => root == thread_id,
            None => thread_id == MAIN || self.leads_to(event, thread_id).await?,
        };
        if belongs {
            return Ok(());
        }
        let event_id = event.pdu.event_id();
        Err(Error::invalid_param(format!("{event_id} is not in the thread {thread_id}: mark an event of that thread")))
    }

    /// Whether an event is another one, or relates to it over a few others at most.
    ///
    /// Reactions and edits in a thread name a message of it, and not its root.
    async fn leads_to(&self, event: &Stored, other: &str) -> Result<bool> {
        let mut pdu = Arc::clone(&event.pdu);
        for _ in 0..HOPS {
            let Some(relation) = Relation::of(&pdu).filter(|_| pdu.event_id() != other) else { break };
            if relation.parent == other {
                return Ok(true);
            }
            let Some(parent) = store::event::find(&mut self.0.db.read().await?, &relation.parent).await? else { break };
            pdu = parent.pdu;
        }
        Ok(pdu.event_id() == other)
    }
}

/// As it is stored: empty for a receipt without a thread.
fn thread_id(thread: &ReceiptThread) -> Result<&str> {
    match thread {
        ReceiptThread::Unthreaded => Ok(""),
        ReceiptThread::Main => Ok(MAIN),
        ReceiptThread::Thread(root) => Ok(root.as_str()),
        other => Err(Error::invalid_param(format!(
            "thread_id is {:?}: it must be `main` or the event ID of a thread's root",
            other.as_str().unwrap_or_default()
        ))),
    }
}

/// Receipts as clients read them: an event for each thread, since one event holds one receipt of a user at each
/// message.
pub fn receipt_events(receipts: &[(Position, Arc<Receipt>)]) -> Vec<Raw<AnySyncEphemeralRoomEvent>> {
    let mut threads: BTreeMap<&str, ReceiptEventContent> = BTreeMap::new();
    for (_, receipt) in receipts {
        let thread = Some(&*receipt.thread_id).filter(|thread| !thread.is_empty());
        // What is stored has been checked before.
        let Ok(thread) = ReceiptThread::try_from(thread) else { continue };
        let mut info = ReceiptInfo::new(receipt.ts);
        info.thread = thread;
        let content = threads.entry(&receipt.thread_id).or_insert_with(|| ReceiptEventContent(BTreeMap::new()));
        let of_event = content.entry(receipt.event_id.clone()).or_default();
        let of_type = of_event.entry(ReceiptType::from(&*receipt.receipt_type)).or_default();
        of_type.insert(receipt.user_id.clone(), info);
    }
    threads.into_values().filter_map(|content| raw(&SyncReceiptEvent::new(content))).collect()
}

fn raw(event: &SyncReceiptEvent) -> Option<Raw<AnySyncEphemeralRoomEvent>> {
    Raw::new(event)
        .map(Raw::cast)
        .inspect_err(|error| tracing::error!(%error, "receipts could not be written as JSON"))
        .ok()
}
