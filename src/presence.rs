//! Presence: who is online, and how recently they did something.
//!
//! A user is online while a client of theirs is connected and they do something now and then, unavailable while
//! they are connected and idle, offline half a minute after the last client has gone. Who is connected is known to
//! the node that serves them; what everybody else sees is a fact in the log, written when it changes, and once a
//! minute for as long as somebody goes on doing things.
//!
//! Each fact names the node that speaks for the user. Another one takes over when that node is gone. A client whose
//! requests go to several nodes is seen by each of them now and then; they tell each other through Redis whom they
//! have seen, so that none says too early that somebody has left. Without Redis, who saw the user last speaks.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

mod attendance;
mod book;
mod pulse;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedUserId, UInt, UserId,
    api::error::ErrorKind,
    events::presence::{PresenceEvent, PresenceEventContent},
    presence::PresenceState,
};

use self::attendance::Attendance;
pub use self::{attendance::Connected, book::Book};
use crate::{
    clock::Clock,
    db::Db,
    error::{Error, Result},
    fact::{Fact, NodeId, Presence, Write},
    hub::Board,
    log::Log,
    node::{Duty, Nodes},
    position::Position,
    store,
    tasks::{Shutdown, Tasks},
};

/// Who has done nothing for so long is idle.
const IDLE: Duration = Duration::from_mins(5);
/// Whose last client has gone for so long is offline.
const OFFLINE: Duration = Duration::from_secs(30);
/// How often everybody is told at most that somebody still does things.
const REFRESH: Duration = Duration::from_mins(1);
/// Who has done something within this time is currently active. Longer than the time between two refreshes.
const ACTIVE: Duration = Duration::from_mins(2);
/// How often it is looked whose time is up.
const LOOK: Duration = Duration::from_secs(5);
/// How long after its start the server waits for those who were online before it.
const RETURN: Duration = Duration::from_mins(1);
/// In bytes.
const MAX_STATUS: usize = 2_048;
/// How many changes are written at once.
const CHUNK: usize = 200;

/// Everybody's presence. Cheap to clone.
#[derive(Clone)]
pub struct PresenceBook(Arc<Inner>);

struct Inner {
    db: Db,
    log: Log,
    clock: Clock,
    enabled: bool,
    started: MilliSecondsSinceUnixEpoch,
    attendance: Attendance,
    book: Arc<Book>,
    nodes: Nodes,
    board: Board,
    /// To speak for those whose node is gone.
    duty: Duty,
}

impl PresenceBook {
    /// Reads who was there when the server stopped, and starts the task that notices who falls idle and who goes.
    /// `book` has to follow the log.
    pub(crate) async fn start(
        (db, log, clock): (Db, Log, Clock),
        enabled: bool,
        book: Arc<Book>,
        nodes: Nodes,
        board: Board,
        tasks: &Tasks,
    ) -> Result<Self> {
        let duty = nodes.duty("presence").await?;
        let attendance = Attendance::new(clock.clone());
        let started = clock.now();
        let presence = Self(Arc::new(Inner { db, log, clock, enabled, started, attendance, book, nodes, board, duty }));
        presence.load().await?;
        if enabled {
            tasks.spawn("presence", presence.clone().watch(tasks.shutdown().clone()));
        }
        Ok(presence)
    }

    async fn load(&self) -> Result<()> {
        loop {
            let mut snapshot = self.0.db.snapshot().await?;
            let position = store::log::last_position(&mut snapshot).await?;
            let present = store::ephemeral::list_present(&mut snapshot).await?;
            drop(snapshot);
            self.0.log.tail().reach(position).await;
            let load = |missed: &[_]| self.0.book.load(position, present, missed);
            if self.0.log.tail().catch_up(position, load).is_some() {
                return Ok(());
            }
        }
    }

    /// Whether users see each other's presence at all.
    pub fn is_enabled(&self) -> bool {
        self.0.enabled
    }

    /// A client of the user asks for news: they are connected until what is returned is dropped. `state` is what the
    /// client says of them; one that says `offline` does not count.
    pub async fn seen(&self, user_id: &UserId, state: &PresenceState) -> Connected {
        if !self.0.enabled || !matches!(state, PresenceState::Online | PresenceState::Unavailable) {
            return Connected::unseen();
        }
        if let Err(error) = self.recall(user_id).await {
            tracing::warn!(%error, "could not read somebody's presence");
        }
        let connected = self.0.attendance.connect(user_id, state.clone(), &self.stored(user_id).state);
        self.tell(&[user_id.to_owned()]).await;
        connected
    }

    /// The user has done something: sent an event, read, typed.
    pub async fn active(&self, user_id: &UserId) {
        if self.0.enabled && self.0.attendance.act(user_id) {
            self.tell(&[user_id.to_owned()]).await;
        }
    }

    /// The user says themselves how things are.
    pub async fn set(&self, user_id: &UserId, state: PresenceState, status_msg: Option<String>) -> Result<()> {
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
        self.recall(user_id).await?;
        self.0.attendance.claim(user_id, &state);
        let (node, last_active) = (self.0.nodes.id().clone(), self.0.clock.now());
        let presence = Presence { user_id: user_id.to_owned(), state, status_msg, last_active, node };
        let stored = self.stored(user_id);
        if presence.state == stored.state
            && presence.status_msg == stored.status_msg
            && !is_refreshed(&stored, &presence)
        {
            return Ok(());
        }
        self.0.log.append(Write::fact(Fact::Presence(presence))).await?;
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
        if let Some(presence) = self.0.book.find(user_id) {
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
        if let Some(presence) = self.0.book.between(after, until, began, &concerns) {
            return Ok(presence);
        }
        let rows = store::ephemeral::presence_between(&mut self.0.db.read().await?, after, until).await?;
        let concerned = rows.into_iter().filter(|(_, presence)| concerns(&presence.user_id));
        Ok(concerned.map(|(_, presence)| Arc::new(presence)).collect())
    }

    /// Presence as clients read it now.
    pub fn event(&self, presence: &Presence) -> PresenceEvent {
        let here = self.0.attendance.find_active(&presence.user_id);
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

    /// Looks now and then whose time is up, until the server stops.
    async fn watch(self, shutdown: Shutdown) {
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

    /// Tells what has changed about those who are connected here or were.
    async fn look(&self) {
        pulse::show(&self.0.board, self.0.nodes.id(), &self.0.attendance.list_seen_within(LOOK)).await;
        let here = self.0.attendance.list();
        self.tell(&here).await;
        for user_id in &here {
            if self.stored(user_id).state == PresenceState::Offline {
                self.0.attendance.forget(user_id);
            }
        }
    }

    /// Those whose node is gone, and who have not come to another one, are offline.
    async fn tell_of_lost(&self) {
        let mut lost = Vec::new();
        for presence in self.0.book.list_present() {
            let is_gone = !self.0.nodes.remembers(&presence.node)
                && self.0.attendance.find_due(&presence.user_id, None).is_none()
                && !self.is_elsewhere(&presence.user_id).await;
            if is_gone {
                let node = self.0.nodes.id().clone();
                lost.push(Presence { state: PresenceState::Offline, node, ..Presence::clone(&presence) });
            }
        }
        self.write(lost).await;
    }

    /// Writes what has changed about these users, as far as this node can tell.
    async fn tell(&self, users: &[OwnedUserId]) {
        let mut changed = Vec::new();
        for user_id in users {
            let stored = self.stored(user_id);
            let Some(due) = self.0.attendance.find_due(user_id, Some(stored.last_active)) else { continue };
            let (nodes, mine) = (&self.0.nodes, stored.node == *self.0.nodes.id());
            let node = nodes.id().clone();
            let last_active = due.active.unwrap_or(stored.last_active);
            let status_msg = stored.status_msg.clone();
            let presence = Presence { user_id: user_id.clone(), state: due.state, status_msg, last_active, node };
            let is_news = match presence.state {
                // Whoever speaks for the user says that they have gone; others may see them still.
                PresenceState::Offline => {
                    stored.state != PresenceState::Offline
                        && (mine || !nodes.remembers(&stored.node))
                        && !self.is_elsewhere(user_id).await
                }
                _ => {
                    presence.state != stored.state
                        || (presence.state == PresenceState::Online && is_refreshed(&stored, &presence))
                        || !(mine || (nodes.remembers(&stored.node) && self.0.board.is_there()))
                }
            };
            if is_news {
                changed.push(presence);
            }
        }
        self.write(changed).await;
    }

    /// Whether another node has said that it serves the user.
    async fn is_elsewhere(&self, user_id: &OwnedUserId) -> bool {
        pulse::is_elsewhere(&self.0.board, self.0.nodes.id(), user_id).await.unwrap_or(false)
    }

    /// Nobody waits for this: what could not be written is found again at the next look.
    async fn write(&self, presence: Vec<Presence>) {
        for chunk in presence.chunks(CHUNK) {
            let facts = chunk.iter().cloned().map(Fact::Presence).collect();
            if let Err(error) = self.0.log.append(Write { events: Vec::new(), facts }).await {
                tracing::warn!(%error, "could not write who is online; trying again");
                return;
            }
        }
    }

    /// Reads the presence of somebody who is not remembered, so that their status message is kept.
    async fn recall(&self, user_id: &UserId) -> Result<()> {
        if self.0.book.find(user_id).is_none() {
            let found = store::ephemeral::find_presence(&mut self.0.db.read().await?, user_id).await?;
            let (at, presence) = found.unwrap_or_else(|| (Position::START, offline(user_id)));
            self.0.book.remember(at, &Arc::new(presence));
        }
        Ok(())
    }

    /// What everybody believes about a user.
    fn stored(&self, user_id: &UserId) -> Arc<Presence> {
        self.0.book.find(user_id).unwrap_or_else(|| Arc::new(offline(user_id)))
    }
}

/// Somebody of whom nothing is known.
fn offline(user_id: &UserId) -> Presence {
    Presence {
        user_id: user_id.to_owned(),
        state: PresenceState::Offline,
        status_msg: None,
        last_active: MilliSecondsSinceUnixEpoch(UInt::MIN),
        node: NodeId::default(),
    }
}

/// Whether everybody is to be told again that a user still does things.
fn is_refreshed(old: &Presence, new: &Presence) -> bool {
    u128::from(millis_between(old.last_active, new.last_active)) >= REFRESH.as_millis()
}

fn millis_between(earlier: MilliSecondsSinceUnixEpoch, later: MilliSecondsSinceUnixEpoch) -> u64 {
    u64::from(later.get()).saturating_sub(earlier.get().into())
}
