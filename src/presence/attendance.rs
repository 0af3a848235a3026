//! Who is connected to this node, in which state and how active: what presence is worked out from.
//!
//! This is memory only, on purpose: what it leads to is written into the log, and after a restart the clients
//! connect again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UserId, presence::PresenceState};

use super::{IDLE, OFFLINE, millis_between};
use crate::clock::Clock;

/// Everybody who is connected to this node or was a moment ago.
#[derive(Clone)]
pub(super) struct Attendance {
    users: Arc<Mutex<HashMap<OwnedUserId, Attendant>>>,
    clock: Clock,
}

/// One user with all their devices.
#[derive(Clone, Default)]
struct Attendant {
    /// The requests that say that they are online, and those that say that they are not at their device.
    online: Polls,
    unavailable: Polls,
    /// When they last did something.
    active: Option<MilliSecondsSinceUnixEpoch>,
    /// That they are idle or gone, if they have said so themselves.
    claim: Option<PresenceState>,
}

/// Requests of one kind.
#[derive(Clone, Default)]
struct Polls {
    open: usize,
    /// When the last one began or ended.
    seen: Option<MilliSecondsSinceUnixEpoch>,
}

/// Held while a user's request waits for news.
#[must_use = "the user is connected for as long as this is held"]
pub struct Connected(Option<(Attendance, OwnedUserId, PresenceState)>);

/// What a user's presence ought to be, and when they were last active, if this node knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) state: PresenceState,
    pub(super) active: Option<MilliSecondsSinceUnixEpoch>,
}

impl Polls {
    fn are_recent(&self, now: MilliSecondsSinceUnixEpoch) -> bool {
        self.open > 0 || self.seen.is_some_and(|seen| !has_passed(seen, now, OFFLINE))
    }
}

impl Attendant {
    fn polls(&mut self, state: &PresenceState) -> &mut Polls {
        if *state == PresenceState::Online { &mut self.online } else { &mut self.unavailable }
    }

    fn due(&self, now: MilliSecondsSinceUnixEpoch, stored: Option<MilliSecondsSinceUnixEpoch>) -> Due {
        let active = self.active.max(stored);
        let online = self.online.are_recent(now);
        let state = if !online && !self.unavailable.are_recent(now) {
            PresenceState::Offline
        } else if let Some(claim) = &self.claim {
            claim.clone()
        } else if online && active.is_some_and(|active| !has_passed(active, now, IDLE)) {
            PresenceState::Online
        } else {
            PresenceState::Unavailable
        };
        Due { state, active }
    }
}

fn has_passed(since: MilliSecondsSinceUnixEpoch, now: MilliSecondsSinceUnixEpoch, time: Duration) -> bool {
    u128::from(millis_between(since, now)) >= time.as_millis()
}

impl Attendance {
    pub(super) fn new(clock: Clock) -> Self {
        Self { users: Arc::default(), clock }
    }

    /// A request of a user, online or unavailable. To come online is to do something, to go on being so is not.
    /// `stored` is what everybody believes now.
    pub(super) fn connect(&self, user_id: &UserId, state: PresenceState, stored: &PresenceState) -> Connected {
        let now = self.clock.now();
        let mut users = self.users.lock();
        let known = users.contains_key(user_id);
        let user = users.entry(user_id.to_owned()).or_default();
        let comes_online = state == PresenceState::Online && !user.online.are_recent(now);
        // Who is idle when the server restarts stays idle.
        if comes_online && (known || *stored != PresenceState::Unavailable) {
            user.active = Some(now);
        }
        if comes_online || (state == PresenceState::Online && user.claim == Some(PresenceState::Offline)) {
            user.claim = None;
        }
        let polls = user.polls(&state);
        polls.open += 1;
        polls.seen = Some(now);
        Connected(Some((self.clone(), user_id.to_owned(), state)))
    }

    /// A user has done something. That counts for those who are connected, and ends a rest but no absence. Tells
    /// whether it counts.
    pub(super) fn act(&self, user_id: &UserId) -> bool {
        let mut users = self.users.lock();
        let Some(user) = users.get_mut(user_id) else { return false };
        user.active = Some(self.clock.now());
        if user.claim == Some(PresenceState::Unavailable) {
            user.claim = None;
        }
        true
    }

    /// A user says themselves what their presence is. Who says online is connected for a moment.
    pub(super) fn claim(&self, user_id: &UserId, state: &PresenceState) {
        let now = self.clock.now();
        let mut users = self.users.lock();
        let user = users.entry(user_id.to_owned()).or_default();
        user.active = Some(now);
        user.claim = Some(state.clone()).filter(|state| *state != PresenceState::Online);
        user.polls(state).seen = Some(now);
    }

    /// What the presence of a user ought to be, if they are connected to this node or were a moment ago. `stored` is
    /// when they were last active, as everybody knows.
    pub(super) fn find_due(&self, user_id: &UserId, stored: Option<MilliSecondsSinceUnixEpoch>) -> Option<Due> {
        Some(self.users.lock().get(user_id)?.due(self.clock.now(), stored))
    }

    /// When a user was last active, if this node knows.
    pub(super) fn find_active(&self, user_id: &UserId) -> Option<MilliSecondsSinceUnixEpoch> {
        self.users.lock().get(user_id)?.active
    }

    /// Everybody who has been connected within this time.
    pub(super) fn list_seen_within(&self, time: Duration) -> Vec<OwnedUserId> {
        let now = self.clock.now();
        let seen = |polls: &Polls| polls.open > 0 || polls.seen.is_some_and(|seen| !has_passed(seen, now, time));
        let users = self.users.lock();
        let recent = users.iter().filter(|(_, user)| seen(&user.online) || seen(&user.unavailable));
        recent.map(|(user_id, _)| user_id.clone()).collect()
    }

    /// Everybody here.
    pub(super) fn list(&self) -> Vec<OwnedUserId> {
        self.users.lock().keys().cloned().collect()
    }

    /// Forgets a user who is not connected any more.
    pub(super) fn forget(&self, user_id: &UserId) {
        let now = self.clock.now();
        let mut users = self.users.lock();
        if users.get(user_id).is_some_and(|user| !user.online.are_recent(now) && !user.unavailable.are_recent(now)) {
            users.remove(user_id);
        }
    }
}

impl Connected {
    /// A request that leaves presence alone.
    pub(super) fn unseen() -> Self {
        Self(None)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let Some((attendance, user_id, state)) = self.0.take() else { return };
        let now = attendance.clock.now();
        if let Some(user) = attendance.users.lock().get_mut(&user_id) {
            let polls = user.polls(&state);
            polls.open = polls.open.saturating_sub(1);
            polls.seen = Some(now);
        }
    }
}
