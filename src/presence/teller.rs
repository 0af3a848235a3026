//! Telling everybody how things are: what is seen here becomes facts in the log. Nobody waits for that.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId, UserId, presence::PresenceState};
use tokio::sync::Notify;

use super::{LOOK, PresenceBook, RETURN, attendance::settle, is_refreshed, millis_between, offline, pulse};
use crate::{
    error::Result,
    fact::{ConnectedDevice, Fact, Presence, Write},
    position::Position,
    store,
    tasks::Shutdown,
};

/// How many changes are written at once.
const CHUNK: usize = 200;

/// Those of whom there may be something to tell.
#[derive(Default)]
pub(super) struct Queue {
    users: Mutex<HashSet<OwnedUserId>>,
    rung: Notify,
    /// Held while they are told of.
    telling: tokio::sync::Mutex<()>,
}

impl Queue {
    /// There may be something to tell of these users.
    pub(super) fn extend(&self, users: impl IntoIterator<Item = OwnedUserId>) {
        self.users.lock().extend(users);
        self.rung.notify_one();
    }
}

impl PresenceBook {
    /// Tells what has changed about those in the queue, as soon as they are there, until the server stops.
    pub(super) async fn tell_on(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = self.0.queue.rung.notified() => {}
            }
            self.tell_queued().await;
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
                self.tell_of_lost().await;
            }
        }
    }

    /// Has everybody looked at who is connected here or was.
    pub(super) async fn look(&self) {
        pulse::show(&self.0.board, self.0.nodes.id(), &self.0.attendance.list_seen_within(LOOK)).await;
        let here = self.0.attendance.list();
        for user_id in &here {
            self.0.attendance.forget(&self.stored(user_id));
        }
        self.0.queue.extend(here);
    }

    /// Tells what has changed about those in the queue. Once this has returned, everybody knows of whoever was in there
    /// before, unless the database failed.
    pub(super) async fn tell_queued(&self) {
        let _one_at_a_time = self.0.queue.telling.lock().await;
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

    /// What everybody is still to be told of a user, as far as this node can tell.
    async fn find_news(&self, user_id: &UserId) -> Result<Option<Presence>> {
        self.recall(user_id).await?;
        let stored = self.stored(user_id);
        let gone = self.not_elsewhere(user_id, self.0.attendance.list_leaving(&stored)).await;
        let Some(due) = self.0.attendance.find_due(&stored, &gone) else { return Ok(None) };
        let is_news = due.state != stored.state
            || due.devices != stored.devices
            || due.claimed != stored.claimed
            || (due.state == PresenceState::Online && is_refreshed(&stored, &due));
        if !is_news {
            self.0.attendance.said(&due);
        }
        Ok(is_news.then_some(due))
    }

    /// Whoever was connected to a node that is gone, and has not come to another one, is not connected.
    pub(super) async fn tell_of_lost(&self) {
        let mut lost = Vec::new();
        for presence in self.0.book.list_present() {
            let user_id = &presence.user_id;
            let is_lost = |(id, device): &(&OwnedDeviceId, &ConnectedDevice)| {
                !self.0.nodes.remembers(&device.node) && !self.0.attendance.is_here(user_id, id)
            };
            let gone: Vec<_> = presence.devices.iter().filter(is_lost).map(|(id, _)| id.clone()).collect();
            let gone = self.not_elsewhere(user_id, gone).await;
            if gone.is_empty() && !presence.devices.is_empty() {
                continue;
            }
            let left = || {
                let mut left = Presence::clone(&presence);
                left.devices.retain(|id, _| !gone.contains(id));
                settle(left, self.0.clock.now())
            };
            lost.push(self.0.attendance.find_due(&presence, &gone).unwrap_or_else(left));
        }
        self.write(lost).await;
    }

    /// Those of a user's devices that no other node has said to serve.
    async fn not_elsewhere(&self, user_id: &UserId, mut devices: Vec<OwnedDeviceId>) -> Vec<OwnedDeviceId> {
        let elsewhere = pulse::list_elsewhere(&self.0.board, self.0.nodes.id(), user_id, &devices).await;
        devices.retain(|id| !elsewhere.contains(id));
        devices
    }

    /// What could not be written is found again at the next look.
    async fn write(&self, presence: Vec<Presence>) {
        for chunk in presence.chunks(CHUNK) {
            let facts = chunk.iter().cloned().map(Fact::Presence).collect();
            if let Err(error) = self.0.log.append(Write { events: Vec::new(), facts }).await {
                tracing::warn!(%error, "could not write who is online; trying again");
                return;
            }
            for told in chunk {
                self.0.attendance.said(told);
            }
        }
    }

    /// Reads the presence of somebody who is not remembered, so that their status message is kept.
    pub(super) async fn recall(&self, user_id: &UserId) -> Result<()> {
        if self.0.book.find(user_id).is_none() {
            let found = store::ephemeral::find_presence(&mut self.0.db.read().await?, user_id).await?;
            let (at, presence) = found.unwrap_or_else(|| (Position::START, offline(user_id)));
            self.0.book.remember(at, &Arc::new(presence));
        }
        Ok(())
    }
}
