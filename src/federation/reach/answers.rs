//! What other servers have answered lately, so that they are not asked too often.
//!
//! An answer is remembered as what one server has said. That a server can't be reached is remembered for a shorter time:
//! whoever comes next need not wait for it as well. What was refused is asked for again, as it may be granted now.

use std::{sync::Arc, time::Duration};

use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};

use super::{profile::Profile, room_elsewhere::RoomElsewhere};
use crate::{
    edge::federation_client::RemoteError,
    ground::{
        clock::Clock,
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
};

/// About how many answers are remembered.
const KEPT: usize = 4_096;
/// An answer that is larger than the part of a shard is not kept: there is one shard.
const SHARDS: usize = 1;
/// What an answer takes beside what it says, in bytes.
const ANSWER_BYTES: usize = 320;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    Profile(OwnedUserId),
    /// How a room looks from outside, to one server.
    Room(OwnedServerName, OwnedRoomId),
    /// What is missing before, or is, this event.
    History(OwnedRoomId, OwnedEventId),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Remembered {
    Profile(Arc<Profile>),
    Room(Arc<RoomElsewhere>),
    /// The servers have no history that is not here, as far as they could be asked.
    NoHistory,
    Failure(RemoteError),
}

impl Remembered {
    fn bytes(&self) -> usize {
        match self {
            Self::Profile(profile) => profile.bytes,
            Self::Room(room) => room.bytes(),
            Self::NoHistory | Self::Failure(_) => 0,
        }
    }
}

#[derive(Clone)]
struct Entry {
    remembered: Remembered,
    /// In milliseconds since the Unix epoch.
    until: i64,
}

/// What other servers have answered lately.
pub(super) struct Answers {
    entries: Cache<Question, Entry, ByBytes>,
    limit: u64,
    clock: Clock,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Question, Entry> for ByBytes {
    fn weight(&self, question: &Question, entry: &Entry) -> u64 {
        let asked = match question {
            Question::Profile(user_id) => user_id.as_str().len(),
            Question::Room(server, room_id) => server.as_str().len() + room_id.as_str().len(),
            Question::History(room_id, event_id) => room_id.as_str().len() + event_id.as_str().len(),
        };
        (ANSWER_BYTES + asked + entry.remembered.bytes()) as u64
    }
}

impl Answers {
    pub(super) fn new(clock: Clock, sizes: &CacheSizes) -> Self {
        let limit = sizes.elsewhere;
        Self { entries: weighed::by_bytes(KEPT, limit, SHARDS, ByBytes), limit, clock }
    }

    pub(super) fn find(&self, question: &Question) -> Option<Remembered> {
        let entry = self.entries.get(question)?;
        if entry.until <= self.now() {
            self.entries.remove(question);
            return None;
        }
        Some(entry.remembered)
    }

    pub(super) fn remember(&self, question: Question, remembered: Remembered, lifetime: Duration) {
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let until = self.now().saturating_add(lifetime);
        self.entries.insert(question, Entry { remembered, until });
    }

    /// Remembers why there is no answer, where it will be so for a while.
    pub(super) fn remember_failure(&self, question: Question, error: &RemoteError) {
        const SILENT: Duration = Duration::from_mins(1);
        if let RemoteError::Unreachable(_) = error {
            self.remember(question, Remembered::Failure(error.clone()), SILENT);
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().get().into()
    }
}

impl Weighed for Answers {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "elsewhere", bytes: self.entries.weight(), limit: self.limit }
    }
}
