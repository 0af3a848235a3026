//! Unread counts in memory: for each room in use what was said lately, and the tallies of those who ask.
//!
//! The log's reader only notes what was said, once for the whole room. Each tally catches up when somebody asks
//! for it, so a message in a large room costs no more than one in a small one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId, events::TimelineEventType};

use super::{
    STRETCH, beyond_reach,
    tally::{Counts, Said, Tally, Thread},
};
use crate::{
    event::{Logged, Pdu, Standing},
    fact::{Batch, News},
    log::Reader,
    position::Position,
};

/// How many events of a room are remembered. In tests so few that it matters.
const REMEMBERED: usize = if cfg!(test) { 8 } else { 256 };
/// How many rooms are remembered.
const KEPT_ROOMS: usize = 20_000;
/// How many tallies are kept, in all rooms together.
const KEPT_TALLIES: usize = 100_000;

/// The counts that this node keeps up to date. It follows the log.
#[derive(Default)]
pub struct Book {
    pages: RwLock<HashMap<OwnedRoomId, Arc<Mutex<Page>>>>,
    tallies: AtomicUsize,
}

/// One room.
struct Page {
    /// Everything after this is here.
    after: Position,
    happened: VecDeque<(Position, Happened)>,
    /// How many events the room has.
    head: i64,
    /// Where the room's newest stretch began, if that is known.
    milestone: Option<Position>,
    tallies: HashMap<OwnedUserId, Tally>,
}

enum Happened {
    Said(Arc<Utterance>),
    /// Nothing is known any more of what was redacted, if it is too old.
    Redacted(OwnedEventId, Option<Arc<Utterance>>),
}

/// An event as it bears on everybody.
struct Utterance {
    position: Position,
    event_id: OwnedEventId,
    sender: OwnedUserId,
    thread: Thread,
    notifies: bool,
    highlights: Vec<OwnedUserId>,
    /// Whether the sender has read what was before. Who joins or changes their name has not.
    speaks: bool,
    /// Whether it became part of the room's state, which is told to those who ignore the sender, too.
    is_state: bool,
}

/// The database has to be asked.
pub(super) struct Unknown;

impl Utterance {
    fn new(logged: &Logged) -> Self {
        let stored = &logged.stored;
        let pdu = &stored.pdu;
        let is_own_membership =
            *pdu.kind() == TimelineEventType::RoomMember && pdu.state_key() == Some(pdu.sender().as_str());
        let is_held = |held: &Arc<Pdu>| held.event_id() == pdu.event_id();
        Self {
            position: stored.position,
            event_id: pdu.event_id().to_owned(),
            sender: pdu.sender().to_owned(),
            thread: stored.thread_root.clone(),
            notifies: stored.notifies,
            highlights: logged.highlights.clone(),
            speaks: !is_own_membership,
            is_state: logged.changes.iter().any(|change| change.event.as_ref().is_some_and(is_held)),
        }
    }

    /// Whether it is nothing but a sign that its sender has read.
    fn is_quiet(&self) -> bool {
        !self.notifies && self.highlights.is_empty()
    }

    fn to(&self, user_id: &UserId, ignored: &HashSet<OwnedUserId>) -> Said {
        let mine = self.sender == user_id;
        let is_hidden = !self.is_state && ignored.contains(&self.sender);
        Said {
            position: self.position,
            thread: self.thread.clone(),
            notifies: self.notifies && !mine && !is_hidden,
            highlights: !is_hidden && self.highlights.iter().any(|user| user == user_id),
            mine: mine && self.speaks,
        }
    }
}

impl Page {
    /// Of a room with `head` events up to `after`.
    fn new(after: Position, head: i64) -> Self {
        let milestone = (head == 0).then_some(Position::START);
        Self { after, happened: VecDeque::new(), head, milestone, tallies: HashMap::new() }
    }

    /// Takes the next entry of the log.
    fn read(&mut self, at: Position, news: &News) {
        if let News::Event(_) = news {
            self.count(at);
        }
        match news {
            News::Event(logged) if logged.stored.standing == Standing::Accepted => self.read_event(at, logged),
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
        if self.head % STRETCH == 0 {
            match self.milestone.replace(at) {
                Some(out_of_reach) => self.tallies.values_mut().for_each(|tally| tally.read_all(out_of_reach)),
                None => self.tallies.clear(),
            }
        }
    }

    fn read_event(&mut self, at: Position, logged: &Logged) {
        for change in logged.changes.iter().filter(|change| change.kind == "m.room.member") {
            // Only what comes after the newest join counts.
            if let Ok(user_id) = <&UserId>::try_from(change.state_key.as_str()) {
                self.tallies.remove(user_id);
            }
        }
        let utterance = Utterance::new(logged);
        if utterance.is_quiet() {
            self.note_quiet(utterance);
        } else {
            self.happened.push_back((at, Happened::Said(Arc::new(utterance))));
        }
        if let Some(redacted) = &logged.redacted {
            self.note_redaction(at, redacted.event_id());
        }
        while self.happened.len() > REMEMBERED {
            let Some((oldest, _)) = self.happened.pop_front() else { break };
            self.after = oldest;
        }
    }

    /// Of several in a row by one user in one thread the last says all.
    fn note_quiet(&mut self, utterance: Utterance) {
        if !utterance.speaks {
            return;
        }
        if let Some((at, Happened::Said(before))) = self.happened.back_mut()
            && before.is_quiet()
            && before.sender == utterance.sender
            && before.thread == utterance.thread
        {
            *at = utterance.position;
            *before = Arc::new(utterance);
        } else {
            self.happened.push_back((utterance.position, Happened::Said(Arc::new(utterance))));
        }
    }

    fn note_redaction(&mut self, at: Position, target: &EventId) {
        let mut found = None;
        for (_, happened) in &self.happened {
            match happened {
                Happened::Said(utterance) if utterance.event_id == target => found = Some(Arc::clone(utterance)),
                // Once is enough.
                Happened::Redacted(event_id, _) if event_id == target => return,
                _ => {}
            }
        }
        // Where everything is remembered, what is not here was quiet.
        if found.is_some() || self.after > Position::START {
            self.happened.push_back((at, Happened::Redacted(target.to_owned(), found)));
        }
    }

    /// Folds what has happened after a tally's place into it, up to `until`.
    fn advance(&self, user_id: &UserId, tally: &mut Tally, until: Position) -> Result<(), Unknown> {
        if tally.counted < self.after {
            return Err(Unknown);
        }
        let ignored = Arc::clone(tally.ignored());
        let first = self.happened.partition_point(|(at, _)| *at <= tally.counted);
        for (at, happened) in self.happened.range(first..).take_while(|(at, _)| *at <= until) {
            match happened {
                Happened::Said(utterance) => tally.say(&utterance.to(user_id, &ignored)),
                Happened::Redacted(_, Some(utterance)) => tally.redact(*at, &utterance.to(user_id, &ignored)),
                Happened::Redacted(_, None) if !tally.is_empty() => return Err(Unknown),
                Happened::Redacted(_, None) => {}
            }
        }
        Ok(())
    }

    /// A user's counts at this moment.
    fn counts(&self, user_id: &UserId, tally: &mut Tally) -> Result<Counts, Unknown> {
        self.advance(user_id, tally, Position(i64::MAX))?;
        for (thread, read) in tally.outdated() {
            let mut recounted = Tally::new(read, Arc::clone(tally.ignored()));
            self.advance(user_id, &mut recounted, tally.counted)?;
            tally.replace(&thread, &recounted);
        }
        Ok(tally.counts())
    }
}

impl Reader for Book {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            let Some(room_id) = news.room_id() else { continue };
            let page = self.pages.read().get(room_id).cloned();
            let page = match (page, news) {
                (Some(page), _) => page,
                // Of a new room everything is known from the beginning.
                (None, News::Event(logged)) if begins_room(logged) => {
                    self.insert(room_id, Page::new(Position::START, 0))
                }
                _ => continue,
            };
            page.lock().read(at, news);
        }
    }
}

fn begins_room(logged: &Logged) -> bool {
    let pdu = &logged.stored.pdu;
    *pdu.kind() == TimelineEventType::RoomCreate && pdu.prev_events().is_empty()
}

impl Book {
    fn insert(&self, room_id: &RoomId, page: Page) -> Arc<Mutex<Page>> {
        let mut pages = self.pages.write();
        if pages.len() >= KEPT_ROOMS {
            pages.retain(|_, page| !page.lock().tallies.is_empty());
            if pages.len() >= KEPT_ROOMS / 2 {
                pages.clear();
            }
        }
        Arc::clone(pages.entry(room_id.to_owned()).or_insert_with(|| Arc::new(Mutex::new(page))))
    }

    /// The counts of a user who ignores these others, if they are known here.
    pub(super) fn find(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        ignored: &Arc<HashSet<OwnedUserId>>,
    ) -> Option<Counts> {
        let page = self.pages.read().get(room_id).cloned()?;
        let mut page = page.lock();
        let mut tally = page.tallies.remove(user_id).filter(|tally| tally.is_without(ignored))?;
        let counts = page.counts(user_id, &mut tally).ok()?;
        page.tallies.insert(user_id.to_owned(), tally);
        Some(counts)
    }

    /// Whether everything that was ever said in a room is remembered and counts: then a tally can begin at the user's
    /// join.
    pub(super) fn is_complete(&self, room_id: &RoomId) -> bool {
        self.pages.read().get(room_id).is_some_and(|page| {
            let page = page.lock();
            page.after == Position::START && beyond_reach(page.head) == 0
        })
    }

    /// Takes a tally that is true at its place, at which the room has `head` events, and what has happened since then
    /// as far as it is not known here. Called while the log stands still.
    pub(super) fn keep(&self, user_id: &UserId, room_id: &RoomId, tally: Tally, head: i64, missed: &[Arc<Batch>]) {
        if self.tallies.fetch_add(1, Ordering::Relaxed) >= KEPT_TALLIES {
            self.tallies.store(1, Ordering::Relaxed);
            for page in self.pages.read().values() {
                page.lock().tallies.clear();
            }
        }
        let known = self.pages.read().get(room_id).cloned();
        let is_new = known.is_none();
        let page = known.unwrap_or_else(|| self.insert(room_id, Page::new(tally.counted, head)));
        let mut page = page.lock();
        if beyond_reach(page.head) != beyond_reach(head) {
            // It reaches too far back by now, and is counted again.
            return;
        }
        page.tallies.insert(user_id.to_owned(), tally);
        for (at, news) in missed.iter().flat_map(|batch| batch.entries()) {
            if news.room_id() != Some(room_id) {
                continue;
            }
            if is_new {
                page.read(at, news);
            } else {
                page.read_for(user_id, news);
            }
        }
    }
}

impl Page {
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
