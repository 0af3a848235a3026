//! Which devices are connected to this node, in which state, and how active their users are: what presence is worked
//! out from.
//!
//! This is memory only, on purpose: what it leads to is written into the log, and after a restart the clients
//! connect again.
//!
//! All of it is under one lock, held for a few lookups and never over an `await`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId, UserId, presence::PresenceState};

use super::timing::{IDLE, OFFLINE, millis_between};
use crate::{
    event::fact::{ConnectedDevice, NodeId, Presence},
    ground::clock::Clock,
};

/// How many devices of one user are written into a fact: more of them would not change how the user is.
const MAX_DEVICES: usize = 50;

/// Everybody who is connected to this node or was a moment ago.
#[derive(Clone)]
pub(super) struct LocalPresence {
    users: Arc<Mutex<HashMap<OwnedUserId, LocalUser>>>,
    clock: Clock,
    here: NodeId,
}

/// One user with their devices.
#[derive(Default)]
struct LocalUser {
    devices: HashMap<OwnedDeviceId, LocalDevice>,
    /// When they last did something.
    active: Option<MilliSecondsSinceUnixEpoch>,
    /// When the last request began that says that they are online.
    came: Option<MilliSecondsSinceUnixEpoch>,
}

/// A device that is connected, or was a moment ago.
struct LocalDevice {
    /// What its newest request says: online or unavailable. Older ones that are still open don't count.
    state: PresenceState,
    /// How many of its requests are open.
    open: usize,
    /// When the last one began or ended.
    seen: MilliSecondsSinceUnixEpoch,
    /// Whether its state is still to be written into the log. Once it has been, what another node writes about it is
    /// newer.
    unannounced: bool,
}

/// Held while a user's request waits for news.
#[must_use = "the user is connected for as long as this is held"]
pub struct ConnectionGuard(Option<(LocalPresence, OwnedUserId, OwnedDeviceId)>);

impl LocalDevice {
    fn is_recent(&self, now: MilliSecondsSinceUnixEpoch, time: Duration) -> bool {
        self.open > 0 || !has_passed(self.seen, now, time)
    }
}

impl LocalUser {
    /// The device, with its state where that was not known or no longer.
    fn device(
        &mut self,
        device_id: &DeviceId,
        state: &PresenceState,
        now: MilliSecondsSinceUnixEpoch,
    ) -> &mut LocalDevice {
        let new = || LocalDevice { state: state.clone(), open: 0, seen: now, unannounced: true };
        let device = self.devices.entry(device_id.to_owned()).or_insert_with(new);
        if !device.is_recent(now, OFFLINE) {
            device.state.clone_from(state);
        }
        device
    }

    /// Whether what the user has said of themselves at a time is over: a rest ends with the next thing that they do, an
    /// absence when a client says that they are online.
    fn ends_claim(&self, state: &PresenceState, at: MilliSecondsSinceUnixEpoch) -> bool {
        let since = if *state == PresenceState::Offline { self.came } else { self.active };
        since.is_some_and(|since| since > at)
    }
}

fn has_passed(since: MilliSecondsSinceUnixEpoch, now: MilliSecondsSinceUnixEpoch, time: Duration) -> bool {
    u128::from(millis_between(since, now)) >= time.as_millis()
}

/// The user's presence with these devices: the best that any of them says, unless the user says otherwise. Who has no
/// device is offline, whatever they have said.
pub(super) fn derive_state(mut presence: Presence, now: MilliSecondsSinceUnixEpoch) -> Presence {
    let is_online = |device: &ConnectedDevice| device.state == PresenceState::Online;
    if presence.devices.is_empty() {
        (presence.state, presence.claimed) = (PresenceState::Offline, None);
    } else if presence.claimed.is_none() {
        let is_active = presence.last_active.get() > ruma::UInt::MIN && !has_passed(presence.last_active, now, IDLE);
        let is_online = is_active && presence.devices.values().any(is_online);
        presence.state = if is_online { PresenceState::Online } else { PresenceState::Unavailable };
    }
    presence
}

impl LocalPresence {
    /// For one node, to which nobody is connected yet.
    pub(super) fn new(clock: Clock, here: NodeId) -> Self {
        Self { users: Arc::default(), clock, here }
    }

    /// A request of a device, which says online or unavailable. To come online is to do something, to go on being so is
    /// not. `stored` is what everybody believes now; where it `holds`, nothing has to be written because of this
    /// request.
    pub(super) fn connect(
        &self,
        (user_id, device_id): (&UserId, &DeviceId),
        state: &PresenceState,
        stored: &Presence,
        holds: bool,
    ) -> ConnectionGuard {
        let now = self.clock.now();
        let mut users = self.users.lock();
        let user = users.entry(user_id.to_owned()).or_default();
        let own = user.devices.get(device_id).filter(|device| device.is_recent(now, OFFLINE));
        let unannounced = own.filter(|device| device.unannounced).map(|device| device.state.clone());
        let known = stored.devices.get(device_id).map(|device| device.state.clone());
        let before = unannounced.or(known).or_else(|| own.map(|device| device.state.clone()));
        if *state == PresenceState::Online {
            user.came = Some(now);
            if before != Some(PresenceState::Online) {
                user.active = Some(now);
            }
        }
        let device = user.device(device_id, state, now);
        device.state.clone_from(state);
        device.unannounced |= !holds;
        device.open += 1;
        device.seen = now;
        ConnectionGuard(Some((self.clone(), user_id.to_owned(), device_id.to_owned())))
    }

    /// A user has done something, which counts for those who are connected. Returns whether it does.
    pub(super) fn act(&self, user_id: &UserId) -> bool {
        let mut users = self.users.lock();
        let Some(user) = users.get_mut(user_id) else { return false };
        user.active = Some(self.clock.now());
        true
    }

    /// A user says themselves what their presence is. The device is connected for a moment.
    pub(super) fn claim(&self, user_id: &UserId, device_id: &DeviceId, state: &PresenceState) {
        let now = self.clock.now();
        let mut users = self.users.lock();
        let user = users.entry(user_id.to_owned()).or_default();
        user.active = Some(now);
        let online = *state == PresenceState::Online;
        let device = user.device(device_id, if online { state } else { &PresenceState::Unavailable }, now);
        if online {
            device.state = PresenceState::Online;
        }
        device.unannounced = true;
        device.seen = now;
    }

    /// The devices that everybody believes to be connected to this node, and that are not any more.
    pub(super) fn list_leaving(&self, stored: &Presence) -> Vec<OwnedDeviceId> {
        let now = self.clock.now();
        let users = self.users.lock();
        let user = users.get(&stored.user_id);
        let is_here = |id: &DeviceId| {
            user.and_then(|user| user.devices.get(id)).is_some_and(|device| device.is_recent(now, OFFLINE))
        };
        let ours = stored.devices.iter().filter(|(_, device)| device.node == self.here);
        ours.filter(|(id, _)| !is_here(id)).map(|(id, _)| id.clone()).collect()
    }

    /// What the presence of a user ought to be who is connected to this node or was a moment ago. `stored` is what
    /// everybody believes, `gone` lists the devices that are not connected any more.
    pub(super) fn find_due(&self, stored: &Presence, gone: &[OwnedDeviceId]) -> Option<Presence> {
        let now = self.clock.now();
        let users = self.users.lock();
        let user = users.get(&stored.user_id)?;
        let mut due = stored.clone();
        due.devices.retain(|id, _| !gone.contains(id));
        for (id, device) in user.devices.iter().filter(|(_, device)| device.is_recent(now, OFFLINE)) {
            if device.unannounced || !due.devices.contains_key(id) {
                let device = ConnectedDevice { state: device.state.clone(), node: self.here.clone() };
                due.devices.insert(id.clone(), device);
            }
        }
        for state in [PresenceState::Unavailable, PresenceState::Online] {
            let mut surplus = due.devices.len().saturating_sub(MAX_DEVICES);
            due.devices.retain(|_, device| {
                let stays = surplus == 0 || device.state != state;
                surplus -= usize::from(!stays);
                stays
            });
        }
        due.last_active = user.active.map_or(due.last_active, |active| active.max(due.last_active));
        due.claimed = due.claimed.filter(|at| !user.ends_claim(&due.state, *at));
        Some(derive_state(due, now))
    }

    /// This has been written into the log.
    pub(super) fn announced(&self, known: &Presence) {
        let mut users = self.users.lock();
        let Some(user) = users.get_mut(&known.user_id) else { return };
        for (id, device) in &mut user.devices {
            // What is left out, because the user has so many devices, is not tried again and again.
            device.unannounced &= known.devices.get(id).is_some_and(|known| known.state != device.state);
        }
    }

    /// When a user was last active, if this node knows.
    pub(super) fn find_active(&self, user_id: &UserId) -> Option<MilliSecondsSinceUnixEpoch> {
        self.users.lock().get(user_id)?.active
    }

    /// Whether a device is connected to this node.
    pub(super) fn is_here(&self, user_id: &UserId, device_id: &DeviceId) -> bool {
        let now = self.clock.now();
        let users = self.users.lock();
        let device = users.get(user_id).and_then(|user| user.devices.get(device_id));
        device.is_some_and(|device| device.is_recent(now, OFFLINE))
    }

    /// The devices that have been connected within this time.
    pub(super) fn list_seen_within(&self, time: Duration) -> Vec<(OwnedUserId, OwnedDeviceId)> {
        let now = self.clock.now();
        let users = self.users.lock();
        let devices = users.iter().flat_map(|(user_id, user)| user.devices.iter().map(move |device| (user_id, device)));
        let recent = devices.filter(|(_, (_, device))| device.is_recent(now, time));
        recent.map(|(user_id, (id, _))| (user_id.clone(), id.clone())).collect()
    }

    /// Everybody here.
    pub(super) fn list(&self) -> Vec<OwnedUserId> {
        self.users.lock().keys().cloned().collect()
    }

    /// Forgets what devices of a user are not connected any more and of which nobody believes that they are.
    pub(super) fn forget(&self, stored: &Presence) {
        let now = self.clock.now();
        let mut users = self.users.lock();
        let Some(user) = users.get_mut(&stored.user_id) else { return };
        let is_ours = |id: &DeviceId| stored.devices.get(id).is_some_and(|device| device.node == self.here);
        user.devices.retain(|id, device| device.is_recent(now, OFFLINE) || is_ours(id));
        if user.devices.is_empty() && !stored.devices.values().any(|device| device.node == self.here) {
            users.remove(&stored.user_id);
        }
    }
}

impl ConnectionGuard {
    /// A request that leaves presence alone.
    pub(super) fn unseen() -> Self {
        Self(None)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let Some((local, user_id, device_id)) = self.0.take() else { return };
        let now = local.clock.now();
        let mut users = local.users.lock();
        if let Some(device) = users.get_mut(&user_id).and_then(|user| user.devices.get_mut(&device_id)) {
            device.open = device.open.saturating_sub(1);
            device.seen = now;
        }
    }
}
