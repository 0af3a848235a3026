//! What this node has to send, in memory: for each of its buckets how far the log has been read, and for each destination
//! what it still has to get.
//!
//! A destination that has everything, and nothing to come, has no lane here: there may be thousands in a room. A lane is in
//! one of three modes:
//! - *live*: what happens is queued, and sent in order. What waits there holds back the bucket's cursor.
//! - *owed*: it could not be reached, or not fast enough. Its row says from where on it is owed something, so the cursor
//!   goes on, and nothing is remembered of what happens.
//! - *catching up*: it is sent what it is owed. What happens meanwhile is queued, for when it is live again.
//!
//! A lane becomes owed only once its row says so, and its row says no longer that it is owed something only once it is
//! live. So at each moment everything after the cursor is in memory or follows from a row, and a node that dies loses
//! nothing: the next one reads on from the cursor and sends some of it again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

use super::{
    bucket::Bucket,
    outgoing::Outgoing,
    queue::{Queue, QueuedEvent},
};
use crate::{ground::position::Position, node::Epoch};

/// How many events wait in memory for all destinations together.
const MOST_QUEUED_IN_ALL: usize = 500_000;

/// What this node has to send. Locked for a look or a change; nothing is awaited meanwhile.
#[derive(Default)]
pub(super) struct Outbox(Mutex<Buckets>);

#[derive(Default)]
struct Buckets {
    held: BTreeMap<Bucket, HeldBucket>,
    /// How often a bucket was taken over, by which one holding of it is known from the next.
    takeovers: u64,
}

/// A bucket that this node deals with.
struct HeldBucket {
    epoch: Epoch,
    holding: u64,
    /// Up to here the log has been read for its destinations.
    routed: Position,
    /// Where its cursor stands in the database.
    written: Position,
    lanes: HashMap<OwnedServerName, Lane>,
    /// What destinations that are not live are owed one by one, and which the database does not know yet.
    departures: Vec<(OwnedServerName, QueuedEvent)>,
    /// Who has taken something since that was written down.
    reached: BTreeSet<OwnedServerName>,
}

/// A destination that something is to be sent to.
#[derive(Default)]
struct Lane {
    mode: Mode,
    queue: Queue,
    /// The first event for which there was no room. Nothing behind it is queued, so that nothing overtakes it.
    refused_from: Option<Position>,
    /// What its row says.
    owed_from: Option<Position>,
    /// Whether somebody is at work on it: one transaction is on its way at a time.
    is_busy: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Live,
    Owed,
    CatchingUp,
}

/// A destination of a bucket, for as long as the bucket is this node's without a break.
#[derive(Clone, Debug)]
pub(super) struct LaneKey {
    pub(super) server: OwnedServerName,
    pub(super) bucket: Bucket,
    pub(super) epoch: Epoch,
    holding: u64,
}

/// What is to be done next for a destination.
#[derive(Debug)]
pub(super) enum Next {
    Send(Vec<QueuedEvent>),
    /// There was no room for what came from a place on: it is owed that.
    Owe(Position),
    CatchUp,
    /// It has everything, and its row is to say so.
    Settle,
    /// Nothing. Whoever was at work on it is so no longer.
    Rest,
}

/// A round of catching up.
#[derive(Debug)]
pub(super) struct Round {
    /// From where on something is owed.
    pub(super) from: Position,
    /// What is sent up to here in this round need not be sent again.
    pub(super) until: Position,
    /// What is owed one by one and is in memory alone.
    pub(super) departures: Vec<QueuedEvent>,
}

/// What a destination is owed that could not be reached.
#[derive(Debug)]
pub(super) struct Owing {
    pub(super) from: Position,
    /// What it is owed one by one.
    pub(super) departures: Vec<QueuedEvent>,
}

/// A step of a bucket's cursor, and what is to be written with it.
#[derive(Debug)]
pub(super) struct CursorStep {
    pub(super) bucket: Bucket,
    pub(super) epoch: Epoch,
    holding: u64,
    pub(super) from: Position,
    pub(super) until: Position,
    pub(super) departures: Vec<(OwnedServerName, QueuedEvent)>,
    pub(super) reached: BTreeSet<OwnedServerName>,
}

/// How many destinations are in which mode, and how many events wait for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) live: usize,
    pub(super) owed: usize,
    pub(super) catching_up: usize,
    pub(super) queued: usize,
}

impl Outbox {
    /// Begins to deal with a bucket, at its cursor, with those who are owed something.
    pub(super) fn take_over(
        &self,
        (bucket, epoch): (Bucket, Epoch),
        position: Position,
        owed: Vec<(OwnedServerName, Position)>,
    ) {
        let mut buckets = self.0.lock();
        buckets.takeovers += 1;
        let lane = |(server, from)| (server, Lane { mode: Mode::Owed, owed_from: Some(from), ..Lane::default() });
        let taken = HeldBucket {
            epoch,
            holding: buckets.takeovers,
            routed: position,
            written: position,
            lanes: owed.into_iter().map(lane).collect(),
            departures: Vec::new(),
            reached: BTreeSet::new(),
        };
        buckets.held.insert(bucket, taken);
    }

    /// Forgets a bucket that is another node's by now.
    pub(super) fn give_up(&self, bucket: Bucket) {
        self.0.lock().held.remove(&bucket);
    }

    /// The bucket of a lane is another node's by now, unless it has been given up and taken over again since.
    pub(super) fn lose(&self, key: &LaneKey) {
        let mut buckets = self.0.lock();
        if buckets.find(key).is_some() {
            buckets.held.remove(&key.bucket);
        }
    }

    /// Under which lease a bucket is dealt with.
    pub(super) fn epoch(&self, bucket: Bucket) -> Option<Epoch> {
        self.0.lock().held.get(&bucket).map(|held| held.epoch)
    }

    /// The place up to which the log has been read for each of this node's buckets. None where it has none.
    pub(super) fn routed(&self) -> Option<Position> {
        self.0.lock().held.values().map(|held| held.routed).min()
    }

    /// Takes a stretch of the log, up to a place, and returns who has something to send now and nobody at work on it.
    pub(super) fn route(&self, until: Position, stretch: &[Outgoing]) -> Vec<LaneKey> {
        let mut buckets = self.0.lock();
        let mut queued = buckets.queued();
        let mut woken = Vec::new();
        for outgoing in stretch {
            for server in outgoing.recipients() {
                let bucket = Bucket::of(server);
                let held = buckets.held.get_mut(&bucket).filter(|held| held.routed < outgoing.entry_at);
                let Some(held) = held else { continue };
                if held.offer(server, outgoing.event_for(server), &mut queued) {
                    let (epoch, holding) = (held.epoch, held.holding);
                    woken.push(LaneKey { server: server.to_owned(), bucket, epoch, holding });
                }
            }
        }
        for held in buckets.held.values_mut() {
            held.routed = held.routed.max(until);
        }
        woken
    }

    /// What is to be done next for a destination by whoever is at work on it.
    pub(super) fn next(&self, key: &LaneKey) -> Next {
        let mut buckets = self.0.lock();
        let Some(held) = buckets.find(key) else { return Next::Rest };
        let Some(lane) = held.lanes.get_mut(&key.server) else { return Next::Rest };
        match lane.mode {
            Mode::Owed | Mode::CatchingUp => Next::CatchUp,
            Mode::Live if !lane.queue.is_empty() => Next::Send(lane.queue.head()),
            Mode::Live => match (lane.refused_from, lane.owed_from) {
                (Some(from), _) => Next::Owe(from),
                (None, Some(_)) => Next::Settle,
                (None, None) => {
                    held.lanes.remove(&key.server);
                    Next::Rest
                }
            },
        }
    }

    /// The oldest so many events of a destination have arrived, or will never.
    pub(super) fn sent(&self, key: &LaneKey, count: usize) {
        if let Some(held) = self.0.lock().find(key) {
            held.reached.insert(key.server.clone());
            if let Some(lane) = held.lanes.get_mut(&key.server) {
                lane.queue.drop_head(count);
            }
        }
    }

    /// What a destination is owed if nothing more is sent to it now. None where there is no such lane any more.
    pub(super) fn owing(&self, key: &LaneKey) -> Option<Owing> {
        let mut buckets = self.0.lock();
        let held = buckets.find(key)?;
        held.reached.remove(&key.server);
        let routed = held.routed;
        let lane = held.lanes.get(&key.server)?;
        let from = [lane.queue.first(), lane.refused_from, lane.owed_from].into_iter().flatten().min();
        let departures = lane.queue.iter().filter(|event| event.departs).cloned().collect();
        Some(Owing { from: from.unwrap_or(routed.next()), departures })
    }

    /// A destination's row says from where on it is owed something: nothing is remembered of it any more.
    pub(super) fn owed(&self, key: &LaneKey, from: Position) {
        let mut buckets = self.0.lock();
        let Some(held) = buckets.find(key) else { return };
        let Some(lane) = held.lanes.get_mut(&key.server) else { return };
        let from = lane.owed_from.map_or(from, |owed| owed.min(from));
        let queue = mem::take(&mut lane.queue);
        *lane = Lane { mode: Mode::Owed, owed_from: Some(from), is_busy: lane.is_busy, ..Lane::default() };
        // Some may have come since the row was written. Those in it are noted twice, which makes one row.
        held.departures.extend(departing(&key.server, queue));
    }

    /// Nobody is at work on a destination any more, in whatever way that has ended.
    pub(super) fn rest(&self, key: &LaneKey) {
        let mut buckets = self.0.lock();
        let Some(held) = buckets.find(key) else { return };
        if let Some(lane) = held.lanes.get_mut(&key.server) {
            lane.is_busy = false;
            if lane.mode == Mode::CatchingUp {
                lane.mode = Mode::Owed;
                lane.refused_from = None;
                let queue = mem::take(&mut lane.queue);
                held.departures.extend(departing(&key.server, queue));
            }
        }
    }

    /// A destination that is owed something is to be tried again. None where somebody is at work on it, or it is owed
    /// nothing any more.
    pub(super) fn wake(&self, server: &ServerName) -> Option<LaneKey> {
        let bucket = Bucket::of(server);
        let mut buckets = self.0.lock();
        let held = buckets.held.get_mut(&bucket)?;
        let lane = held.lanes.get_mut(server).filter(|lane| lane.mode == Mode::Owed && !lane.is_busy)?;
        lane.is_busy = true;
        Some(LaneKey { server: server.to_owned(), bucket, epoch: held.epoch, holding: held.holding })
    }

    /// Begins a round: what was queued so far is part of what the destination gets in it.
    pub(super) fn begin_round(&self, key: &LaneKey) -> Option<Round> {
        let mut buckets = self.0.lock();
        let held = buckets.find(key)?;
        let until = held.routed;
        let lane = held.lanes.get_mut(&key.server)?;
        lane.mode = Mode::CatchingUp;
        lane.refused_from = None;
        let queue = mem::take(&mut lane.queue);
        let from = lane.owed_from.unwrap_or(until.next());
        held.departures.extend(departing(&key.server, queue));
        let own = held.departures.iter().filter(|(server, _)| *server == key.server);
        Some(Round { from, until, departures: own.map(|(_, event)| event.clone()).collect() })
    }

    /// What a destination was owed one by one up to a place has arrived.
    pub(super) fn departed(&self, key: &LaneKey, until: Position) {
        if let Some(held) = self.0.lock().find(key) {
            held.departures.retain(|(server, event)| *server != key.server || event.at > until);
        }
    }

    /// A round has ended and more are to come, and the row says from where on.
    pub(super) fn caught_up_until(&self, key: &LaneKey, from: Position) {
        if let Some(lane) = self.0.lock().find(key).and_then(|held| held.lanes.get_mut(&key.server)) {
            lane.owed_from = Some(from);
        }
    }

    /// The last round has ended. True if the destination is live from now on; false where more has come than there was room
    /// for, which takes another round.
    pub(super) fn go_live(&self, key: &LaneKey) -> bool {
        let mut buckets = self.0.lock();
        let Some(held) = buckets.find(key) else { return true };
        let has_departures = held.departures.iter().any(|(server, _)| *server == key.server);
        let Some(lane) = held.lanes.get_mut(&key.server) else { return true };
        let is_live = lane.refused_from.is_none() && !has_departures;
        if is_live {
            lane.mode = Mode::Live;
        }
        is_live
    }

    /// From where on a live destination may still lack something that its row has to say: what is in its queue may be
    /// before the cursor, where it was queued while the destination was catching up.
    pub(super) fn unsettled(&self, key: &LaneKey) -> Option<Position> {
        self.0.lock().find(key)?.lanes.get(&key.server)?.queue.first()
    }

    /// A live destination's row says so much.
    pub(super) fn settled(&self, key: &LaneKey, from: Option<Position>) {
        if let Some(lane) = self.0.lock().find(key).and_then(|held| held.lanes.get_mut(&key.server)) {
            lane.owed_from = from;
        }
    }

    /// How the cursors can be moved, and what has to be written with that. Only those of which there is anything to write.
    pub(super) fn steps(&self) -> Vec<CursorStep> {
        let buckets = self.0.lock();
        let step = |(bucket, held): (&Bucket, &HeldBucket)| CursorStep {
            bucket: *bucket,
            epoch: held.epoch,
            holding: held.holding,
            from: held.written,
            until: held.settled_until().max(held.written),
            departures: held.departures.clone(),
            reached: held.reached.clone(),
        };
        buckets.held.iter().map(step).filter(|step| step.until > step.from || !step.departures.is_empty()).collect()
    }

    /// A step has been written.
    pub(super) fn stepped(&self, step: &CursorStep) {
        let mut buckets = self.0.lock();
        let Some(held) = buckets.held.get_mut(&step.bucket).filter(|held| held.holding == step.holding) else { return };
        held.written = step.until;
        held.reached.retain(|server| !step.reached.contains(server));
        let is_written = |(server, event): &(OwnedServerName, QueuedEvent)| {
            step.departures.iter().any(|(other, written)| other == server && written.at == event.at)
        };
        held.departures.retain(|departure| !is_written(departure));
    }

    /// The buckets of this node in which somebody is owed something and nobody is at work on it.
    pub(super) fn list_owing(&self) -> Vec<Bucket> {
        let is_owed = |lane: &Lane| lane.mode == Mode::Owed && !lane.is_busy;
        let buckets = self.0.lock();
        let owing = buckets.held.iter().filter(|(_, held)| held.lanes.values().any(is_owed));
        owing.map(|(bucket, _)| *bucket).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let buckets = self.0.lock();
        let mut counts = Counts { queued: buckets.queued(), ..Counts::default() };
        for lane in buckets.held.values().flat_map(|held| held.lanes.values()) {
            match lane.mode {
                Mode::Live => counts.live += 1,
                Mode::Owed => counts.owed += 1,
                Mode::CatchingUp => counts.catching_up += 1,
            }
        }
        counts
    }
}

impl CursorStep {
    /// Whether there is something to be written with it that should not be lost, or repeated after a crash.
    pub(super) fn is_urgent(&self) -> bool {
        !self.reached.is_empty() || !self.departures.is_empty()
    }
}

impl Buckets {
    /// The bucket of a lane, unless it has been given up since.
    fn find(&mut self, key: &LaneKey) -> Option<&mut HeldBucket> {
        self.held.get_mut(&key.bucket).filter(|held| held.holding == key.holding)
    }

    fn queued(&self) -> usize {
        self.held.values().flat_map(|held| held.lanes.values()).map(|lane| lane.queue.len()).sum()
    }
}

impl HeldBucket {
    /// Takes an event for a destination. True if somebody has to begin to work on it.
    fn offer(&mut self, server: &ServerName, event: QueuedEvent, queued: &mut usize) -> bool {
        if !self.lanes.contains_key(server) {
            self.lanes.insert(server.to_owned(), Lane::default());
        }
        let Some(lane) = self.lanes.get_mut(server) else { return false };
        let is_whole = lane.mode == Mode::Live && lane.refused_from.is_none();
        if lane.mode == Mode::Owed || (event.departs && !is_whole) {
            // The rest follows from the rooms that it is in.
            if event.departs {
                self.departures.push((server.to_owned(), event));
            }
            return false;
        }
        let (at, departs) = (event.at, event.departs);
        let has_room = lane.refused_from.is_none() && *queued < MOST_QUEUED_IN_ALL && lane.queue.push(event.clone());
        if has_room {
            *queued += 1;
        } else {
            lane.refused_from.get_or_insert(at);
            if departs {
                self.departures.push((server.to_owned(), event));
            }
        }
        let begins = lane.mode == Mode::Live && !lane.is_busy;
        lane.is_busy |= begins;
        begins
    }

    /// Up to where everything has arrived, or follows from rows.
    fn settled_until(&self) -> Position {
        let live = self.lanes.values().filter(|lane| lane.mode == Mode::Live);
        let waiting = live.filter_map(|lane| [lane.queue.first(), lane.refused_from].into_iter().flatten().min());
        waiting.min().map_or(self.routed, |first| first.before().min(self.routed))
    }
}

/// Those events of a queue that a destination has to get one by one.
fn departing(server: &ServerName, mut queue: Queue) -> Vec<(OwnedServerName, QueuedEvent)> {
    queue.drain().filter(|event| event.departs).map(|event| (server.to_owned(), event)).collect()
}
