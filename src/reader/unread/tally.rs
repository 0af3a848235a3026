//! One user's unread counts in one room, as something that is read off the log: what was said is folded in, what was
//! read is folded out. No I/O.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedEventId, OwnedUserId};

use crate::{
    event::fact::Receipt,
    ground::position::Position,
    store::attention::{UnreadRange, UnreadRow},
};

/// What a tally takes beside its threads, and one of these beside its name, in bytes.
const TALLY_BYTES: usize = 192;
const THREAD_BYTES: usize = 128;

/// How many events are unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Events that notify, those that highlight among them.
    pub notifications: u64,
    pub highlights: u64,
}

/// What is unread in a room: in the main timeline and in each thread that has something unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub main: Count,
    pub threads: BTreeMap<OwnedEventId, Count>,
}

/// The root of a thread; none for the main timeline.
pub(super) type ThreadId = Option<OwnedEventId>;

/// An event as it bears on one user.
#[derive(Clone, Debug)]
pub(super) struct UserEvent {
    pub(super) position: Position,
    pub(super) thread: ThreadId,
    /// Somebody else said it, whom the user does not ignore, and it notifies.
    pub(super) notifies: bool,
    pub(super) highlights: bool,
    /// The user said it: they have read what was before.
    pub(super) mine: bool,
}

/// The counts of one user, true just after `counted`.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) counted: Position,
    /// Whose words do not count. Once the user ignores others than these, all is counted again.
    ignored: Arc<HashSet<OwnedUserId>>,
    /// Read in every thread: the user joined here, or has an unthreaded receipt.
    read: Position,
    slots: BTreeMap<ThreadId, ThreadTally>,
}

/// One thread.
#[derive(Clone, Debug)]
struct ThreadTally {
    /// Everything up to here is read.
    read: Position,
    count: Count,
    /// The newest event that was counted.
    last: Position,
    /// Some of what was counted has been read since: the count is too high.
    outdated: bool,
}

impl Counts {
    /// Threads included, as clients want it that don't know them.
    pub fn total(&self) -> Count {
        self.threads.values().fold(self.main, |sum, thread| Count {
            notifications: sum.notifications + thread.notifications,
            highlights: sum.highlights + thread.highlights,
        })
    }
}

impl Count {
    /// One more. It has been found to count.
    fn add(&mut self, said: &UserEvent) {
        self.notifications += 1;
        self.highlights += u64::from(said.highlights);
    }

    /// One less. What was lost on the way makes no count negative.
    fn subtract(&mut self, said: &UserEvent) {
        self.notifications = self.notifications.saturating_sub(1);
        self.highlights = self.highlights.saturating_sub(u64::from(said.highlights));
    }
}

impl UserEvent {
    /// Whether it makes a difference to a count.
    fn counts(&self) -> bool {
        self.notifies || self.highlights
    }
}

impl ThreadTally {
    fn new(read: Position) -> Self {
        Self { read, count: Count::default(), last: Position::START, outdated: false }
    }

    /// Everything up to `until` is read. It never goes back.
    fn read(&mut self, until: Position) {
        if until <= self.read {
            return;
        }
        self.read = until;
        // Nothing was counted beyond: what is left is zero for certain.
        if self.last <= until {
            self.count = Count::default();
            self.outdated = false;
        } else if self.count != Count::default() {
            self.outdated = true;
        }
    }
}

impl Tally {
    /// Of a user who joined at `joined` and ignores these, with nothing counted yet.
    pub(super) fn new(joined: Position, ignored: Arc<HashSet<OwnedUserId>>) -> Self {
        Self { counted: joined, ignored, read: joined, slots: BTreeMap::new() }
    }

    /// How many bytes it takes, about, without the list of whom the user ignores.
    pub(super) fn bytes(&self) -> usize {
        let slots =
            self.slots.keys().map(|thread| THREAD_BYTES + thread.as_ref().map_or(0, |root| root.as_str().len()));
        TALLY_BYTES + slots.sum::<usize>()
    }

    /// Whose words do not count.
    pub(super) fn ignored(&self) -> &Arc<HashSet<OwnedUserId>> {
        &self.ignored
    }

    /// Whether it was counted without the words of just these.
    pub(super) fn is_without(&self, ignored: &Arc<HashSet<OwnedUserId>>) -> bool {
        Arc::ptr_eq(&self.ignored, ignored) || self.ignored == *ignored
    }

    /// The user has read so far. It does not matter when this is called: only the event counts.
    pub(super) fn receipt(&mut self, receipt: &Receipt) {
        let until = receipt.event_order.floor();
        match &*receipt.thread_id {
            "" => return self.read_all(until),
            "main" => self.slot(None).read(until),
            thread => {
                if let Ok(root) = OwnedEventId::try_from(thread) {
                    self.slot(Some(root)).read(until);
                }
            }
        }
        self.tidy();
    }

    /// Nothing up to here counts any more, in whatever thread.
    pub(super) fn read_all(&mut self, until: Position) {
        self.read = self.read.max(until);
        for slot in self.slots.values_mut() {
            slot.read(until);
        }
        self.tidy();
    }

    /// The next event.
    pub(super) fn say(&mut self, said: &UserEvent) {
        if said.position <= self.counted {
            return;
        }
        self.counted = said.position;
        if said.mine {
            self.slot(said.thread.clone()).read(said.position);
            self.tidy();
        } else if said.counts() {
            let slot = self.slot(said.thread.clone());
            if said.position > slot.read {
                slot.count.add(said);
                slot.last = said.position;
            }
        }
    }

    /// At `position` an earlier event was redacted. To be called once.
    pub(super) fn redact(&mut self, position: Position, said: &UserEvent) {
        self.counted = position;
        if let Some(slot) = self.slots.get_mut(&said.thread)
            && said.counts()
            && said.position > slot.read
        {
            slot.count.subtract(said);
        }
    }

    /// What the database knows of one thread.
    pub(super) fn take(&mut self, known: &UnreadRow) {
        let slot = self.slot(known.thread_root.clone());
        slot.read(known.read);
        slot.count.notifications += known.notifications;
        slot.count.highlights += known.highlights;
        slot.last = slot.last.max(known.last);
        self.tidy();
    }

    /// Where something may be unread, up to `until`.
    pub(super) fn unread(&self, until: Position) -> UnreadRange {
        let main_after = self.slots.get(&None).map_or(self.read, |main| main.read);
        UnreadRange { threads_after: self.read, main_after, until }
    }

    /// Whether nothing is unread.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.values().all(|slot| slot.count == Count::default())
    }

    /// Threads whose count is too high, with the place from which on it has to be counted again.
    pub(super) fn outdated(&self) -> Vec<(ThreadId, Position)> {
        let outdated = self.slots.iter().filter(|(_, slot)| slot.outdated);
        outdated.map(|(thread, slot)| (thread.clone(), slot.read)).collect()
    }

    /// Takes the count of one thread from a tally of everything after the place where the user has read it.
    pub(super) fn replace(&mut self, thread: &ThreadId, recounted: &Self) {
        let Some(slot) = self.slots.get_mut(thread) else { return };
        let (count, last) =
            recounted.slots.get(thread).map_or((Count::default(), slot.last), |again| (again.count, again.last));
        *slot = ThreadTally { read: slot.read, count, last, outdated: false };
    }

    /// As clients hear of it: a thread in which nothing is unread is left out.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (thread, slot) in self.slots.iter().filter(|(_, slot)| slot.count != Count::default()) {
            match thread {
                None => counts.main = slot.count,
                Some(root) => {
                    counts.threads.insert(root.clone(), slot.count);
                }
            }
        }
        counts
    }

    /// A thread's own tally, begun where the whole room is read.
    fn slot(&mut self, thread: ThreadId) -> &mut ThreadTally {
        let read = self.read;
        self.slots.entry(thread).or_insert_with(|| ThreadTally::new(read))
    }

    /// A thread in which nothing is unread and nothing read beyond the rest of the room need not be remembered.
    fn tidy(&mut self) {
        let read = self.read;
        self.slots.retain(|_, slot| slot.count != Count::default() || slot.read > read);
    }
}
