//! Unread counts in memory: for each room in use what was said lately, and the tallies of those who ask.
//!
//! The log's reader only notes what was said, once for the whole room. Each tally catches up when somebody asks
//! for it, so a message in a large room costs no more than one in a small one.
//!
//! What happened is remembered for a room as far back as `UnreadSizes` says; a tally that is further behind is counted
//! anew in the database. Everything here may be dropped at any time, and is, where there is too much of it.
//!
//! Lock order: `cached`, then a room's. A room's lock is never held while `cached` is asked for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use super::tally::{Counts, Tally, ThreadId, UserEvent};
use crate::{
    event::{
        Logged, Pdu, Standing,
        fact::{Batch, News, Receipt},
    },
    ground::{
        position::Position,
        sizes::UnreadSizes,
        weighed::{CacheWeight, Weighed},
    },
    log::Reader,
};

/// What a room takes beside what is in it, an event beside its texts, and a place in a list, in bytes.
const ROOM_BYTES: u64 = 512;
const EVENT_BYTES: usize = 256;
const PLACE_BYTES: usize = 64;
/// What each on a list of ignored users takes.
const LISTED_BYTES: usize = 64;

/// The counts that this node keeps up to date. It follows the log.
pub struct UnreadCache {
    sizes: UnreadSizes,
    /// By room. The outer lock is held for a look, the inner while a tally catches up.
    cached: RwLock<HashMap<OwnedRoomId, Arc<Mutex<RoomUnread>>>>,
    /// What all rooms take, in bytes. Beyond `limit` those without tallies go, and all where that does not help enough:
    /// who asks again is counted in the database again.
    bytes: Arc<AtomicU64>,
    limit: u64,
}

impl Weighed for UnreadCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "unread", bytes: self.bytes.load(Ordering::Relaxed), limit: self.limit }
    }
}

/// One room.
struct RoomUnread {
    sizes: UnreadSizes,
    /// Everything after this is here.
    after: Position,
    /// What counts for somebody, oldest first: the log's own order.
    happened: VecDeque<(Position, UnreadChange)>,
    /// How many events the room has.
    head: i64,
    /// Where the room's newest stretch began, if that is known.
    milestone: Option<Position>,
    /// Of those who have asked, with what they take.
    tallies: HashMap<OwnedUserId, (Tally, u64)>,
    happened_bytes: u64,
    tally_bytes: u64,
    /// What of this room is part of the cache's sum.
    counted: u64,
    sum: Arc<AtomicU64>,
}

/// A room that is forgotten takes nothing, once the last who was looking at it is done.
impl Drop for RoomUnread {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// What a tally has to take note of.
enum UnreadChange {
    /// An event that notifies or highlights somebody, or that shows what its sender has read.
    Said(Arc<RoomEvent>),
    /// Nothing is known any more of what was redacted, if it is too old.
    Redacted(OwnedEventId, Option<Arc<RoomEvent>>),
}

impl UnreadChange {
    /// What it takes, in bytes. An event that was redacted has been weighed when it was said.
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Said(room_event) => room_event.bytes(),
            Self::Redacted(event_id, _) => event_id.as_str().len(),
        };
        (PLACE_BYTES + bytes) as u64
    }
}

/// Whom an event highlights, beside its sender.
enum Highlighted {
    Everybody,
    Users(Vec<OwnedUserId>),
}

impl Highlighted {
    /// As the log's entry has it: everybody is one mark, however many they are.
    fn by(logged: &Logged) -> Self {
        if logged.highlights_everybody { Self::Everybody } else { Self::Users(logged.highlights.clone()) }
    }

    fn is_nobody(&self) -> bool {
        matches!(self, Self::Users(users) if users.is_empty())
    }

    fn contains(&self, user_id: &UserId) -> bool {
        match self {
            Self::Everybody => true,
            Self::Users(users) => users.iter().any(|user| user == user_id),
        }
    }
}

/// An event as it bears on everybody.
struct RoomEvent {
    position: Position,
    event_id: OwnedEventId,
    sender: OwnedUserId,
    thread: ThreadId,
    notifies: bool,
    highlights: Highlighted,
    /// Whether the sender has read what was before. Who joins or changes their name has not.
    speaks: bool,
    /// Whether it became part of the room's state, which those who ignore the sender get, too.
    is_state: bool,
}

/// The database has to be asked.
pub(super) struct Unknown;

impl RoomEvent {
    fn new(logged: &Logged) -> Self {
        let stored = &logged.stored;
        let pdu = &stored.pdu;
        let is_own_membership =
            *pdu.kind() == TimelineEventType::RoomMember && pdu.state_key() == Some(pdu.sender().as_str());
        let is_held = |held: &Arc<Pdu>| held.event_id() == pdu.event_id();
        Self {
            position: logged.at,
            event_id: pdu.event_id().to_owned(),
            sender: pdu.sender().to_owned(),
            thread: stored.thread_root.clone(),
            notifies: stored.notifies,
            highlights: Highlighted::by(logged),
            speaks: !is_own_membership,
            is_state: logged.changes.iter().any(|change| change.event.as_ref().is_some_and(is_held)),
        }
    }

    /// What it takes, in bytes.
    fn bytes(&self) -> usize {
        let highlighted = match &self.highlights {
            Highlighted::Everybody => 0,
            Highlighted::Users(users) => users.iter().map(|user_id| PLACE_BYTES + user_id.as_str().len()).sum(),
        };
        let thread = self.thread.as_ref().map_or(0, |root| root.as_str().len());
        EVENT_BYTES + self.event_id.as_str().len() + self.sender.as_str().len() + thread + highlighted
    }

    /// Whether it is nothing but a sign that its sender has read.
    fn is_quiet(&self) -> bool {
        !self.notifies && self.highlights.is_nobody()
    }

    /// The event as one user counts it.
    fn to(&self, user_id: &UserId, ignored: &HashSet<OwnedUserId>) -> UserEvent {
        // One's own words don't notify oneself, whatever they mention.
        let mine = self.sender == user_id;
        let is_hidden = !self.is_state && ignored.contains(&self.sender);
        UserEvent {
            position: self.position,
            thread: self.thread.clone(),
            notifies: self.notifies && !mine && !is_hidden,
            highlights: !is_hidden && !mine && self.highlights.contains(user_id),
            mine: mine && self.speaks,
        }
    }
}

impl RoomUnread {
    /// Of a room with `head` events up to `after`.
    fn new(sizes: UnreadSizes, after: Position, head: i64, sum: Arc<AtomicU64>) -> Self {
        let milestone = (head == 0).then_some(Position::START);
        let (happened, tallies) = (VecDeque::new(), HashMap::new());
        let (happened_bytes, tally_bytes, counted) = (0, 0, 0);
        Self { sizes, after, happened, head, milestone, tallies, happened_bytes, tally_bytes, counted, sum }
    }

    /// Has the cache's sum say what this room takes now.
    fn weigh(&mut self) {
        let bytes = ROOM_BYTES + self.happened_bytes + self.tally_bytes;
        // Added before it is taken away, so that the sum never falls below zero.
        self.sum.fetch_add(bytes, Ordering::Relaxed);
        self.sum.fetch_sub(std::mem::replace(&mut self.counted, bytes), Ordering::Relaxed);
    }

    fn push(&mut self, at: Position, change: UnreadChange) {
        self.happened_bytes += change.bytes();
        self.happened.push_back((at, change));
    }

    fn pop(&mut self) -> Option<Position> {
        let (at, change) = self.happened.pop_front()?;
        self.happened_bytes -= change.bytes();
        Some(at)
    }

    fn keep_tally(&mut self, user_id: OwnedUserId, tally: Tally) {
        // One list is shared by the tallies of all rooms, until the user has another.
        let ignored = tally.ignored();
        let list = ignored.len() * LISTED_BYTES / Arc::strong_count(ignored).max(1);
        let bytes = (user_id.as_str().len() + tally.bytes() + list) as u64;
        self.tally_bytes += bytes;
        if let Some((_, before)) = self.tallies.insert(user_id, (tally, bytes)) {
            self.tally_bytes -= before;
        }
    }

    fn take_tally(&mut self, user_id: &UserId) -> Option<Tally> {
        let (tally, bytes) = self.tallies.remove(user_id)?;
        self.tally_bytes -= bytes;
        Some(tally)
    }

    fn drop_tallies(&mut self) {
        self.tallies.clear();
        self.tally_bytes = 0;
    }

    /// A user has read in this room.
    fn note_receipt(&mut self, receipt: &Receipt) {
        if let Some(mut tally) = self.take_tally(&receipt.user_id) {
            tally.receipt(receipt);
            self.keep_tally(receipt.user_id.clone(), tally);
        }
    }

    /// Takes the next entry of the log.
    fn read(&mut self, at: Position, news: &News) {
        if let News::Event(_) = news {
            self.count(at);
        }
        match news {
            News::Event(logged) if logged.stored.standing == Standing::Accepted => self.read_event(at, logged),
            News::LateRedaction(late) => self.note_redaction(at, late.redacted.event_id()),
            News::Receipt(receipt) => self.note_receipt(receipt),
            _ => {}
        }
        self.weigh();
    }

    /// One event more. Every so many the counts reach less far back.
    fn count(&mut self, at: Position) {
        self.head += 1;
        if self.head % self.sizes.stretch == 0 {
            match self.milestone.replace(at) {
                Some(out_of_reach) => self.tallies.values_mut().for_each(|(tally, _)| tally.read_all(out_of_reach)),
                None => self.drop_tallies(),
            }
        }
    }

    /// Takes an accepted event. Others count for nobody.
    fn read_event(&mut self, at: Position, logged: &Logged) {
        for change in logged.changes.iter().filter(|change| change.kind == "m.room.member") {
            // Only what comes after the newest join counts.
            if let Ok(user_id) = <&UserId>::try_from(change.state_key.as_str()) {
                self.take_tally(user_id);
            }
        }
        let room_event = RoomEvent::new(logged);
        if room_event.is_quiet() {
            self.note_quiet(room_event);
        } else {
            self.push(at, UnreadChange::Said(Arc::new(room_event)));
        }
        if let Some(redacted) = &logged.redacted {
            self.note_redaction(at, redacted.event_id());
        }
        while self.happened.len() > self.sizes.remembered {
            let Some(oldest) = self.pop() else { break };
            self.after = oldest;
        }
    }

    /// Of several in a row by one user in one thread the last says all.
    fn note_quiet(&mut self, room_event: RoomEvent) {
        if !room_event.speaks {
            return;
        }
        if let Some((at, UnreadChange::Said(before))) = self.happened.back_mut()
            && before.is_quiet()
            && before.sender == room_event.sender
            && before.thread == room_event.thread
        {
            self.happened_bytes = self.happened_bytes + room_event.bytes() as u64 - before.bytes() as u64;
            *at = room_event.position;
            *before = Arc::new(room_event);
        } else {
            self.push(room_event.position, UnreadChange::Said(Arc::new(room_event)));
        }
    }

    /// Takes note of a redaction, with what was redacted if that is remembered.
    fn note_redaction(&mut self, at: Position, target: &EventId) {
        let mut found = None;
        for (_, happened) in &self.happened {
            match happened {
                UnreadChange::Said(room_event) if room_event.event_id == target => found = Some(Arc::clone(room_event)),
                // Once is enough.
                UnreadChange::Redacted(event_id, _) if event_id == target => return,
                _ => {}
            }
        }
        // Where everything is remembered, what is not here was quiet.
        if found.is_some() || self.after > Position::START {
            self.push(at, UnreadChange::Redacted(target.to_owned(), found));
        }
    }

    /// Folds what has happened after a tally's place into it, up to `until`.
    fn advance(&self, user_id: &UserId, tally: &mut Tally, until: Position) -> Result<(), Unknown> {
        if tally.counted < self.after {
            return Err(Unknown);
        }
        let ignored = Arc::clone(tally.ignored());
        // Whatever was taken before is not taken again: what happened is in the order of the log.
        let first = self.happened.partition_point(|(at, _)| *at <= tally.counted);
        for (at, happened) in self.happened.range(first..).take_while(|(at, _)| *at <= until) {
            match happened {
                UnreadChange::Said(room_event) => tally.say(&room_event.to(user_id, &ignored)),
                UnreadChange::Redacted(_, Some(room_event)) => tally.redact(*at, &room_event.to(user_id, &ignored)),
                // It may have been counted, in whatever thread: what is known does not say.
                UnreadChange::Redacted(_, None) if !tally.is_empty() => return Err(Unknown),
                UnreadChange::Redacted(_, None) => {}
            }
        }
        Ok(())
    }

    /// A user's counts at this moment.
    fn counts(&self, user_id: &UserId, tally: &mut Tally) -> Result<Counts, Unknown> {
        self.advance(user_id, tally, Position(i64::MAX))?;
        // Counted again from where the user has read, as far as it is remembered.
        for (thread, read) in tally.outdated() {
            let mut recounted = Tally::new(read, Arc::clone(tally.ignored()));
            self.advance(user_id, &mut recounted, tally.counted)?;
            tally.replace(&thread, &recounted);
        }
        Ok(tally.counts())
    }
}

impl Reader for UnreadCache {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            let Some(room_id) = news.room_id() else { continue };
            let in_room = self.cached.read().get(room_id).cloned();
            let in_room = match (in_room, news) {
                (Some(in_room), _) => in_room,
                // Of a new room everything is known from the beginning.
                (None, News::Event(logged)) if begins_room(logged) => {
                    self.insert(room_id, self.new_room(Position::START, 0))
                }
                _ => continue,
            };
            in_room.lock().read(at, news);
        }
        self.make_space();
    }
}

/// Whether this is the first event of a room, which the log then tells from its beginning.
fn begins_room(logged: &Logged) -> bool {
    let pdu = &logged.stored.pdu;
    *pdu.kind() == TimelineEventType::RoomCreate && pdu.prev_events().is_empty()
}

impl UnreadCache {
    pub(crate) fn new(sizes: UnreadSizes, limit: u64) -> Self {
        Self { sizes, cached: RwLock::default(), bytes: Arc::default(), limit }
    }

    fn new_room(&self, after: Position, head: i64) -> RoomUnread {
        RoomUnread::new(self.sizes, after, head, Arc::clone(&self.bytes))
    }

    /// How many of a room's first events no longer count when it has `head` events.
    pub(super) fn beyond_reach(&self, head: i64) -> i64 {
        (head / self.sizes.stretch - 1).max(0) * self.sizes.stretch
    }

    /// Keeps a room, unless it is there by now.
    fn insert(&self, room_id: &RoomId, in_room: RoomUnread) -> Arc<Mutex<RoomUnread>> {
        let mut cached = self.cached.write();
        Arc::clone(cached.entry(room_id.to_owned()).or_insert_with(|| Arc::new(Mutex::new(in_room))))
    }

    /// Forgets rooms where all together take too much. Called with no room's lock held.
    fn make_space(&self) {
        if self.bytes.load(Ordering::Relaxed) <= self.limit {
            return;
        }
        let mut cached = self.cached.write();
        // A room without tallies is one that nobody has asked for lately.
        cached.retain(|_, in_room| !in_room.lock().tallies.is_empty());
        if self.bytes.load(Ordering::Relaxed) > self.limit / 2 {
            cached.clear();
        }
    }

    /// The counts of a user who ignores these others, if they are known here.
    pub(super) fn find(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        ignored: &Arc<HashSet<OwnedUserId>>,
    ) -> Option<Counts> {
        let in_room = self.cached.read().get(room_id).cloned()?;
        let mut in_room = in_room.lock();
        // Taken out while it is worked on: where that fails it is gone, and is counted again.
        let tally = in_room.take_tally(user_id).filter(|tally| tally.is_without(ignored));
        let counted = tally.and_then(|mut tally| Some((in_room.counts(user_id, &mut tally).ok()?, tally)));
        let counts = counted.map(|(counts, tally)| {
            in_room.keep_tally(user_id.to_owned(), tally);
            counts
        });
        in_room.weigh();
        drop(in_room);
        self.make_space();
        counts
    }

    /// Whether everything that was ever said in a room is remembered and counts: then a tally can begin at the user's
    /// join.
    pub(super) fn is_complete(&self, room_id: &RoomId) -> bool {
        self.cached.read().get(room_id).is_some_and(|in_room| {
            let in_room = in_room.lock();
            in_room.after == Position::START && self.beyond_reach(in_room.head) == 0
        })
    }

    /// Takes a tally that is true at its place, at which the room has `head` events, and what has happened since then
    /// as far as it is not known here. Called while the log stands still.
    pub(super) fn keep(&self, user_id: &UserId, room_id: &RoomId, tally: Tally, head: i64, missed: &[Arc<Batch>]) {
        self.make_space();
        let known = self.cached.read().get(room_id).cloned();
        let is_new = known.is_none();
        let in_room = known.unwrap_or_else(|| self.insert(room_id, self.new_room(tally.counted, head)));
        let mut in_room = in_room.lock();
        if self.beyond_reach(in_room.head) != self.beyond_reach(head) {
            // It reaches too far back by now, and is counted again.
            return;
        }
        in_room.keep_tally(user_id.to_owned(), tally);
        in_room.weigh();
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if news.room_id() != Some(room_id) {
                continue;
            }
            if is_new {
                in_room.read(at, news);
            } else {
                in_room.read_for(user_id, news);
            }
        }
    }
}

impl RoomUnread {
    /// What has happened is known here, but not yet to a tally that has just come.
    fn read_for(&mut self, user_id: &UserId, news: &News) {
        match news {
            News::Receipt(receipt) if receipt.user_id == user_id => self.note_receipt(receipt),
            News::Event(logged) => {
                let mut changes = logged.changes.iter();
                if changes.any(|change| change.kind == "m.room.member" && change.state_key == user_id.as_str()) {
                    self.take_tally(user_id);
                }
            }
            _ => {}
        }
        self.weigh();
    }
}
