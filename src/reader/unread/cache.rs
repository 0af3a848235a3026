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
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use super::tally::{Counts, Tally, ThreadId, UserEvent};
use crate::{
    event::{
        Logged, Pdu, Standing,
        fact::{Batch, News},
    },
    ground::{position::Position, sizes::UnreadSizes},
    log::Reader,
};

/// How many rooms are remembered. Beyond that those without tallies go, and all where that does not help enough.
const KEPT_ROOMS: usize = 20_000;
/// How many tallies are kept, in all rooms together. Beyond that all go: who asks again is counted in the database
/// again.
const KEPT_TALLIES: usize = 100_000;

/// The counts that this node keeps up to date. It follows the log.
pub struct UnreadCache {
    sizes: UnreadSizes,
    /// By room. The outer lock is held for a look, the inner while a tally catches up.
    cached: RwLock<HashMap<OwnedRoomId, Arc<Mutex<RoomUnread>>>>,
    /// How many tallies have been kept since all were last dropped. Those that went one by one are not taken off, so it
    /// may be too high.
    tallies: AtomicUsize,
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
    /// Of those who have asked.
    tallies: HashMap<OwnedUserId, Tally>,
}

/// What a tally has to take note of.
enum UnreadChange {
    /// An event that notifies or highlights somebody, or that shows what its sender has read.
    Said(Arc<RoomEvent>),
    /// Nothing is known any more of what was redacted, if it is too old.
    Redacted(OwnedEventId, Option<Arc<RoomEvent>>),
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
    fn new(sizes: UnreadSizes, after: Position, head: i64) -> Self {
        let milestone = (head == 0).then_some(Position::START);
        Self { sizes, after, happened: VecDeque::new(), head, milestone, tallies: HashMap::new() }
    }

    /// Takes the next entry of the log.
    fn read(&mut self, at: Position, news: &News) {
        if let News::Event(_) = news {
            self.count(at);
        }
        match news {
            News::Event(logged) if logged.stored.standing == Standing::Accepted => self.read_event(at, logged),
            News::LateRedaction(late) => self.note_redaction(at, late.redacted.event_id()),
            News::Receipt(receipt) => {
                if let Some(tally) = self.tallies.get_mut(&receipt.user_id) {
                    tally.receipt(receipt);
                }
            }
            _ => {}
        }
    }

    /// One event more. Every so many the counts reach less far back.
    fn count(&mut self, at: Position) {
        self.head += 1;
        if self.head % self.sizes.stretch == 0 {
            match self.milestone.replace(at) {
                Some(out_of_reach) => self.tallies.values_mut().for_each(|tally| tally.read_all(out_of_reach)),
                None => self.tallies.clear(),
            }
        }
    }

    /// Takes an accepted event. Others count for nobody.
    fn read_event(&mut self, at: Position, logged: &Logged) {
        for change in logged.changes.iter().filter(|change| change.kind == "m.room.member") {
            // Only what comes after the newest join counts.
            if let Ok(user_id) = <&UserId>::try_from(change.state_key.as_str()) {
                self.tallies.remove(user_id);
            }
        }
        let room_event = RoomEvent::new(logged);
        if room_event.is_quiet() {
            self.note_quiet(room_event);
        } else {
            self.happened.push_back((at, UnreadChange::Said(Arc::new(room_event))));
        }
        if let Some(redacted) = &logged.redacted {
            self.note_redaction(at, redacted.event_id());
        }
        while self.happened.len() > self.sizes.remembered {
            let Some((oldest, _)) = self.happened.pop_front() else { break };
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
            *at = room_event.position;
            *before = Arc::new(room_event);
        } else {
            self.happened.push_back((room_event.position, UnreadChange::Said(Arc::new(room_event))));
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
            self.happened.push_back((at, UnreadChange::Redacted(target.to_owned(), found)));
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
                    self.insert(room_id, RoomUnread::new(self.sizes, Position::START, 0))
                }
                _ => continue,
            };
            in_room.lock().read(at, news);
        }
    }
}

/// Whether this is the first event of a room, which the log then tells from its beginning.
fn begins_room(logged: &Logged) -> bool {
    let pdu = &logged.stored.pdu;
    *pdu.kind() == TimelineEventType::RoomCreate && pdu.prev_events().is_empty()
}

impl UnreadCache {
    pub(crate) fn new(sizes: UnreadSizes) -> Self {
        Self { sizes, cached: RwLock::default(), tallies: AtomicUsize::default() }
    }

    /// How many of a room's first events no longer count when it has `head` events.
    pub(super) fn beyond_reach(&self, head: i64) -> i64 {
        (head / self.sizes.stretch - 1).max(0) * self.sizes.stretch
    }

    /// Keeps a room, unless it is there by now.
    fn insert(&self, room_id: &RoomId, in_room: RoomUnread) -> Arc<Mutex<RoomUnread>> {
        let mut cached = self.cached.write();
        // A room without tallies is one that nobody has asked for lately.
        if cached.len() >= KEPT_ROOMS {
            cached.retain(|_, in_room| !in_room.lock().tallies.is_empty());
            if cached.len() >= KEPT_ROOMS / 2 {
                cached.clear();
            }
        }
        Arc::clone(cached.entry(room_id.to_owned()).or_insert_with(|| Arc::new(Mutex::new(in_room))))
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
        let mut tally = in_room.tallies.remove(user_id).filter(|tally| tally.is_without(ignored))?;
        let counts = in_room.counts(user_id, &mut tally).ok()?;
        in_room.tallies.insert(user_id.to_owned(), tally);
        Some(counts)
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
        if self.tallies.fetch_add(1, Ordering::Relaxed) >= KEPT_TALLIES {
            self.tallies.store(1, Ordering::Relaxed);
            for in_room in self.cached.read().values() {
                in_room.lock().tallies.clear();
            }
        }
        let known = self.cached.read().get(room_id).cloned();
        let is_new = known.is_none();
        let in_room = known.unwrap_or_else(|| self.insert(room_id, RoomUnread::new(self.sizes, tally.counted, head)));
        let mut in_room = in_room.lock();
        if self.beyond_reach(in_room.head) != self.beyond_reach(head) {
            // It reaches too far back by now, and is counted again.
            return;
        }
        in_room.tallies.insert(user_id.to_owned(), tally);
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
            News::Receipt(receipt) if receipt.user_id == user_id => {
                if let Some(tally) = self.tallies.get_mut(user_id) {
                    tally.receipt(receipt);
                }
            }
            News::Event(logged) => {
                let mut changes = logged.changes.iter();
                if changes.any(|change| change.kind == "m.room.member" && change.state_key == user_id.as_str()) {
                    self.tallies.remove(user_id);
                }
            }
            _ => {}
        }
    }
}
