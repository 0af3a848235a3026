//! Presence: who is online, and how recently they did something.
//!
//! A user is online while a client of theirs is connected and they do something now and then, unavailable while
//! they are connected and idle, offline half a minute after the last client has gone. Who is connected is known to
//! the node that serves them; what everybody else sees is a fact in the log, written when it changes, and once a
//! minute for as long as somebody goes on doing things.
//!
//! A user is what the best of their devices says, and a device what its newest request says. So each fact lists the
//! user's connected devices, each with the node that it is connected to: every node works out the same from it. That
//! node says when the device has gone, and where the node itself is gone, another says so. A client whose requests go
//! to several nodes is seen by each of them now and then; they share in Redis which devices they have seen, so that
//! none writes too early that one has left. Without Redis, a device belongs to the node that saw it last.
//!
//! Whoever asks for news never waits until what that says of them is written: a task of its own does that ([`writer`]).
//!
//! Bounds: a fact is written when something changes, and once in [`REFRESH`] for somebody who is active; [`OFFLINE`]
//! after the last request they are gone. So an idle server writes nothing, and ten thousand active users write some 170
//! facts a second.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

mod cache;
mod local;
mod queue;
mod seen;
#[cfg(test)]
mod tests;
mod timing;
mod writer;

use std::sync::Arc;

use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::error::ErrorKind,
    events::presence::{PresenceEvent, PresenceEventContent},
    presence::PresenceState,
};

pub use self::{cache::PresenceCache, local::ConnectionGuard};
use self::{
    local::LocalPresence,
    queue::PresenceQueue,
    timing::{ACTIVE, REFRESH, is_refreshed, millis_between, offline},
};
use crate::{
    db::Db,
    edge::hub::SharedValues,
    error::{Error, Result},
    event::fact::{Fact, NodeId, Presence, Write},
    ground::{clock::Clock, position::Position, tasks::Tasks},
    log::Log,
    node::{Duty, Nodes},
    store,
};

/// In bytes.
const MAX_STATUS: usize = 2_048;

/// Everybody's presence. Cheap to clone.
#[derive(Clone)]
pub struct PresenceOfUsers(Arc<Inner>);

struct Inner {
    db: Db,
    log: Log,
    clock: Clock,
    enabled: bool,
    started: MilliSecondsSinceUnixEpoch,
    local: LocalPresence,
    cache: Arc<PresenceCache>,
    nodes: Nodes,
    shared_values: SharedValues,
    queue: PresenceQueue,
    /// To speak for those whose node is gone.
    duty: Duty,
}

impl PresenceOfUsers {
    /// Reads who was there when the server stopped, and starts the task that notices who falls idle and who goes.
    /// `cache` has to follow the log.
    pub(crate) async fn start(
        (db, log, clock): (Db, Log, Clock),
        enabled: bool,
        cache: Arc<PresenceCache>,
        nodes: Nodes,
        shared_values: SharedValues,
        tasks: &Tasks,
    ) -> Result<Self> {
        let duty = nodes.duty("presence").await?;
        let local = LocalPresence::new(clock.clone(), nodes.id().clone());
        let (started, queue) = (clock.now(), PresenceQueue::default());
        let inner = Inner { db, log, clock, enabled, started, local, cache, nodes, shared_values, queue, duty };
        let presence = Self(Arc::new(inner));
        presence.load().await?;
        if enabled {
            tasks.spawn("presence", presence.clone().watch(tasks.shutdown().clone()));
            tasks.spawn("presence writer", presence.clone().write_on(tasks.shutdown().clone()));
        }
        Ok(presence)
    }

    async fn load(&self) -> Result<()> {
        loop {
            let mut snapshot = self.0.log.tail().snapshot(&self.0.db).await?;
            let present = store::ephemeral::list_present(&mut snapshot).await?;
            let position = snapshot.close().await;
            let load = |missed: &[_]| self.0.cache.load(position, present, missed);
            if self.0.log.tail().catch_up(position, load).is_some() {
                return Ok(());
            }
        }
    }

    /// Whether users see each other's presence at all.
    pub fn is_enabled(&self) -> bool {
        self.0.enabled
    }

    /// A device of the user asks for news: it is connected until what is returned is dropped. `state` is what it says
    /// of the user; a request that says `offline` does not count.
    pub fn seen(&self, user_id: &UserId, device_id: &DeviceId, state: &PresenceState) -> ConnectionGuard {
        if !self.0.enabled || !matches!(state, PresenceState::Online | PresenceState::Unavailable) {
            return ConnectionGuard::unseen();
        }
        let stored = self.stored(user_id);
        let holds = stored.devices.get(device_id).is_some_and(|known| known.state == *state && self.keeps(&known.node));
        let connected = self.0.local.connect((user_id, device_id), state, &stored, holds);
        if !holds || stored.claimed.is_some() {
            self.0.queue.extend([user_id.to_owned()]);
        }
        connected
    }

    /// Whether a device can stay with the node that has said to serve it: this one, or another that lives and shares in
    /// Redis what it sees.
    fn keeps(&self, node: &NodeId) -> bool {
        node == self.0.nodes.id() || (self.0.nodes.remembers(node) && self.0.shared_values.is_there())
    }

    /// The user has done something: sent an event, read, typed.
    pub fn active(&self, user_id: &UserId) {
        if !self.0.enabled || !self.0.local.act(user_id) {
            return;
        }
        let stored = self.stored(user_id);
        let ago = u128::from(millis_between(stored.last_active, self.0.clock.now()));
        if stored.state != PresenceState::Online || ago >= REFRESH.as_millis() {
            self.0.queue.extend([user_id.to_owned()]);
        }
    }

    /// The user says themselves how things are, from one of their devices.
    pub async fn set(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        state: PresenceState,
        status_msg: Option<String>,
    ) -> Result<()> {
        if !self.0.enabled {
            let message = "Presence is switched off on this server: nobody would see it";
            return Err(Error::refused(ErrorKind::Unrecognized, message));
        }
        if !matches!(state, PresenceState::Online | PresenceState::Unavailable | PresenceState::Offline) {
            return Err(Error::invalid_param("presence is one of online, unavailable and offline"));
        }
        if status_msg.as_ref().is_some_and(|status| status.len() > MAX_STATUS || status.contains('\0')) {
            let message = format!("A status message has at most {MAX_STATUS} bytes and no NUL character");
            return Err(Error::invalid_param(message));
        }
        let _undisturbed = self.0.queue.writing.read().await;
        self.load_missing(user_id).await?;
        self.0.local.claim(user_id, device_id, &state);
        let stored = self.stored(user_id);
        let due = self.0.local.find_due(&stored, &[]).unwrap_or_else(|| Presence::clone(&stored));
        let now = self.0.clock.now();
        let claimed = (state != PresenceState::Online).then_some(now);
        let presence = Presence { state, status_msg, last_active: now, claimed, ..due };
        let is_known = claimed.is_none()
            && presence.state == stored.state
            && presence.status_msg == stored.status_msg
            && presence.devices == stored.devices
            && stored.claimed.is_none()
            && !is_refreshed(&stored, &presence);
        if !is_known {
            self.0.log.append(Write::fact(Fact::Presence(presence.clone()))).await?;
        }
        self.0.local.announced(&presence);
        Ok(())
    }

    /// The presence of a user, for somebody who shares a room with them.
    pub async fn get(&self, reader: &UserId, user_id: &UserId) -> Result<PresenceEvent> {
        let mut conn = self.0.db.read().await?;
        if reader != user_id && !store::membership::share_room(&mut conn, reader, user_id).await? {
            let message = format!("You share no room with {user_id}, so you can't see their presence");
            return Err(Error::forbidden(message));
        }
        if !self.0.enabled {
            return Ok(self.event(&offline(user_id)));
        }
        if let Some(presence) = self.0.cache.find(user_id) {
            return Ok(self.event(&presence));
        }
        let found = store::ephemeral::find_presence(&mut conn, user_id).await?;
        Ok(self.event(&found.map_or_else(|| offline(user_id), |(_, presence)| presence)))
    }

    /// Whose presence has changed after `after`, up to `until`, among the users whom `concerns` picks: those who share
    /// a room with the reader. From the start of the log that is everybody who is not offline.
    pub async fn since(
        &self,
        after: Position,
        until: Position,
        concerns: impl Fn(&UserId) -> bool,
    ) -> Result<Vec<Arc<Presence>>> {
        if !self.0.enabled {
            return Ok(Vec::new());
        }
        let began = self.0.log.tail().began();
        if let Some(presence) = self.0.cache.between(after, until, began, &concerns) {
            return Ok(presence);
        }
        let rows = store::ephemeral::presence_between(&mut self.0.db.read().await?, after, until).await?;
        let concerned = rows.into_iter().filter(|(_, presence)| concerns(&presence.user_id));
        Ok(concerned.map(|(_, presence)| Arc::new(presence)).collect())
    }

    /// Those who are not offline.
    pub fn list_present(&self) -> Vec<Arc<Presence>> {
        if self.0.enabled { self.0.cache.list_present() } else { Vec::new() }
    }

    /// The presence of a user who is not offline.
    pub fn find_present(&self, user_id: &UserId) -> Option<Arc<Presence>> {
        self.0.cache.find(user_id).filter(|presence| self.0.enabled && presence.state != PresenceState::Offline)
    }

    /// Presence as clients read it now.
    pub fn event(&self, presence: &Presence) -> PresenceEvent {
        let here = self.0.local.find_active(&presence.user_id);
        let last_active = here.map_or(presence.last_active, |here| here.max(presence.last_active));
        let ago = millis_between(last_active, self.0.clock.now());
        let mut content = PresenceEventContent::new(presence.state.clone());
        content.status_msg.clone_from(&presence.status_msg);
        if last_active.get() > UInt::MIN {
            content.last_active_ago = UInt::try_from(ago).ok();
        }
        if presence.state == PresenceState::Online {
            content.currently_active = Some(u128::from(ago) < ACTIVE.as_millis());
        }
        PresenceEvent { content, sender: presence.user_id.clone() }
    }

    /// What everybody believes about a user.
    fn stored(&self, user_id: &UserId) -> Arc<Presence> {
        self.0.cache.find(user_id).unwrap_or_else(|| Arc::new(offline(user_id)))
    }
}
