//! What is seen on this node becomes facts in the log, which everybody reads. No request waits for that.
//!
//! Whoever is in the queue twice is looked at once. What is written is worked out from the newest fact and from what
//! this node sees at that moment, so the queue need not remember why somebody is in it.
//!
//! This task and a request in which a user sets their presence each write the whole of it. So on one node neither
//! writes while the other's write is on its way (`PresenceQueue::writing`).

use std::{sync::Arc, time::Duration};

use ruma::{OwnedDeviceId, UserId, presence::PresenceState};

use super::{
    PresenceOfUsers,
    local::derive_state,
    seen,
    timing::{LOOK, is_refreshed, millis_between, offline},
};
use crate::{
    error::Result,
    event::fact::{ConnectedDevice, Fact, Presence, Write},
    ground::{position::Position, tasks::Shutdown},
    store,
};

/// How long after its start the server waits for those who were online before it.
const RETURN: Duration = Duration::from_mins(1);
/// How many changes are written at once.
const CHUNK: usize = 200;

impl PresenceOfUsers {
    /// Writes what has changed about those in the queue, as soon as they are there, until the server stops.
    pub(super) async fn write_on(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = self.0.queue.rung.notified() => {}
            }
            self.write_queued().await;
        }
    }

    /// Looks now and then whose time is up, until the server stops.
    pub(super) async fn watch(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.look().await;
            let waited = u128::from(millis_between(self.0.started, self.0.clock.now()));
            if waited >= RETURN.as_millis() && self.0.duty.is_mine() {
                self.write_lost().await;
            }
        }
    }

    /// Has everybody looked at who is connected here or was.
    pub(super) async fn look(&self) {
        // First, so that no other node takes a device for gone that is here.
        seen::show(&self.0.shared_values, self.0.nodes.id(), &self.0.local.list_seen_within(LOOK)).await;
        let here = self.0.local.list();
        for user_id in &here {
            self.0.local.forget(&self.stored(user_id));
        }
        self.0.queue.extend(here);
    }

    /// Writes what has changed about those in the queue. Once this has returned, it is in the log for whoever was in
    /// there before, unless the database failed.
    pub(super) async fn write_queued(&self) {
        // Held until it is written: see [`PresenceQueue`].
        let _alone = self.0.queue.writing.write().await;
        // Whoever is added from here on rings again.
        let users = std::mem::take(&mut *self.0.queue.users.lock());
        let mut changed = Vec::new();
        for user_id in users {
            match self.find_news(&user_id).await {
                Ok(news) => changed.extend(news),
                Err(error) => tracing::warn!(%error, "could not read somebody's presence"),
            }
        }
        self.write(changed).await;
    }

    /// What is still to be written about a user, as far as this node knows.
    async fn find_news(&self, user_id: &UserId) -> Result<Option<Presence>> {
        self.load_missing(user_id).await?;
        let stored = self.stored(user_id);
        let gone = self.not_elsewhere(user_id, self.0.local.list_leaving(&stored)).await;
        let Some(due) = self.0.local.find_due(&stored, &gone) else { return Ok(None) };
        let is_news = due.state != stored.state
            || due.devices != stored.devices
            || due.claimed != stored.claimed
            || (due.state == PresenceState::Online && is_refreshed(&stored, &due));
        if !is_news {
            // As everybody believes already: nothing of it is to be announced any more.
            self.0.local.announced(&due);
        }
        Ok(is_news.then_some(due))
    }

    /// Whoever was connected to a node that is gone, and has not come to another one, is not connected.
    pub(super) async fn write_lost(&self) {
        // In memory, and looked at again one by one under the lock: meanwhile somebody may have come.
        let mut lost = self.0.cache.list_present();
        lost.retain(|presence| presence.devices.is_empty() || !self.list_lost(presence).is_empty());
        for some in lost.chunks(CHUNK) {
            // Given back between the pieces, so that those who say themselves how they are do not wait for all.
            let _alone = self.0.queue.writing.write().await;
            let mut changed = Vec::new();
            for presence in some {
                changed.extend(self.find_loss(&presence.user_id).await);
            }
            self.write(changed).await;
        }
    }

    /// What is to be written about a user who is not offline, if they have lost devices with a node, or have none.
    async fn find_loss(&self, user_id: &UserId) -> Option<Presence> {
        let stored = self.find_present(user_id)?;
        let gone = self.not_elsewhere(user_id, self.list_lost(&stored)).await;
        if gone.is_empty() && !stored.devices.is_empty() {
            return None;
        }
        let left = || {
            let mut left = Presence::clone(&stored);
            left.devices.retain(|id, _| !gone.contains(id));
            derive_state(left, self.0.clock.now())
        };
        Some(self.0.local.find_due(&stored, &gone).unwrap_or_else(left))
    }

    /// The devices of a user whose node is gone, and that have not come to this one.
    fn list_lost(&self, presence: &Presence) -> Vec<OwnedDeviceId> {
        let is_lost = |(id, device): &(&OwnedDeviceId, &ConnectedDevice)| {
            !self.0.nodes.remembers(&device.node) && !self.0.local.is_here(&presence.user_id, id)
        };
        presence.devices.iter().filter(is_lost).map(|(id, _)| id.clone()).collect()
    }

    /// Those of a user's devices that no other node has said to serve.
    async fn not_elsewhere(&self, user_id: &UserId, mut devices: Vec<OwnedDeviceId>) -> Vec<OwnedDeviceId> {
        // Asked only of those who seem to have gone, which are few.
        let elsewhere = seen::list_elsewhere(&self.0.shared_values, self.0.nodes.id(), user_id, &devices).await;
        devices.retain(|id| !elsewhere.contains(id));
        devices
    }

    /// What could not be written is found again at the next look.
    async fn write(&self, presence: Vec<Presence>) {
        for chunk in presence.chunks(CHUNK) {
            let facts = chunk.iter().cloned().map(Fact::Presence).collect();
            if let Err(error) = self.0.log.append(Write::facts(facts)).await {
                tracing::warn!(%error, "could not write who is online; trying again");
                // The others would fail, too.
                return;
            }
            for known in chunk {
                self.0.local.announced(known);
            }
        }
    }

    /// Reads the presence of somebody who is not remembered, so that their status message is kept.
    pub(super) async fn load_missing(&self, user_id: &UserId) -> Result<()> {
        if self.0.cache.find(user_id).is_none() {
            let found = store::ephemeral::find_presence(&mut self.0.db.read().await?, user_id).await?;
            let (at, presence) = found.unwrap_or_else(|| (Position::START, offline(user_id)));
            self.0.cache.remember(at, &Arc::new(presence));
        }
        Ok(())
    }
}
