//! Typing notifications: who is writing something right now.
//!
//! Whoever types does so until a time, after which the server says that they have stopped. That is a fact in the
//! log like any other, written by the node whose duty it is; two that write it both do no harm. Clients say every
//! few seconds that somebody goes on: that goes to Redis, where it expires, and into the log where there is no Redis.
//!
//! Only members type: that is checked against the room in memory first, and again where the batch is written, because
//! somebody may leave in between.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

mod cache;
mod kept;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedUserId, RoomId, UInt, UserId,
    events::{
        AnySyncEphemeralRoomEvent,
        room::member::MembershipState,
        typing::{SyncTypingEvent, TypingEventContent},
    },
    serde::Raw,
};

pub use self::cache::TypingCache;
use self::cache::TypingSince;
use crate::{
    db::Db,
    edge::hub::SharedValues,
    error::{Error, Result},
    event::fact::{Fact, Typing, Write},
    ground::{
        clock::Clock,
        position::Position,
        tasks::{Shutdown, Tasks},
    },
    node::{Duty, Nodes},
    room::Rooms,
    store,
};

/// For how long somebody types who does not say.
const USUAL: Duration = Duration::from_secs(30);
/// For how long somebody types at most.
const LONGEST: Duration = Duration::from_mins(2);
/// How long before somebody's time is up it is looked whether they go on.
const AHEAD: Duration = Duration::from_secs(2);
/// How often the clock is looked at while somebody is typing.
const LOOK: Duration = Duration::from_millis(250);
/// How often a node looks whether the duty has become its own.
const OTHERS: Duration = Duration::from_secs(1);
/// How long to wait after the database has failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Everybody who is typing. Cheap to clone.
#[derive(Clone)]
pub struct Typists(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    clock: Clock,
    cache: Arc<TypingCache>,
    shared_values: SharedValues,
    /// To say that somebody has stopped who does not say so themselves.
    duty: Duty,
}

impl Typists {
    /// Reads who was typing when the server stopped, and starts the task that writes who has stopped since. `cache` has
    /// to follow the log.
    pub(crate) async fn start(
        (db, rooms, clock): (Db, Rooms, Clock),
        cache: Arc<TypingCache>,
        nodes: &Nodes,
        shared_values: SharedValues,
        tasks: &Tasks,
    ) -> Result<Self> {
        let duty = nodes.duty("typing").await?;
        let typists = Self(Arc::new(Inner { db, rooms, clock, cache, shared_values, duty }));
        typists.load().await?;
        tasks.spawn("typing expiry", typists.clone().expire(tasks.shutdown().clone()));
        Ok(typists)
    }

    /// Reads who was typing when the server stopped, and follows the log from there.
    async fn load(&self) -> Result<()> {
        loop {
            let tail = self.0.rooms.log().tail();
            let mut snapshot = tail.snapshot(&self.0.db).await?;
            let typists = store::ephemeral::list_typists(&mut snapshot).await?;
            let position = snapshot.close().await;
            let load = |missed: &[_]| self.0.cache.load(position, &typists, missed);
            if tail.catch_up(position, load).is_some() {
                return Ok(());
            }
        }
    }

    /// A member of the room types for so long, 30 seconds if they don't say and two minutes at most.
    pub async fn begin(&self, user_id: &UserId, room_id: &RoomId, timeout: Option<Duration>) -> Result<()> {
        let now = self.0.clock.now();
        let until = later(now, timeout.unwrap_or(USUAL).min(LONGEST));
        self.check_member(user_id, room_id).await?;
        // What ends sooner than everybody believes is news.
        let goes_on = self.0.cache.find(room_id, user_id).is_some_and(|believed| now < believed && believed <= until);
        // Said in any case: what was said before could prolong what ends sooner.
        let kept = kept::keep(&self.0.shared_values, room_id, user_id, until, LONGEST).await;
        if goes_on && kept {
            return Ok(());
        }
        self.write(user_id, room_id, Some(until)).await
    }

    /// A member of the room has stopped typing.
    pub async fn stop(&self, user_id: &UserId, room_id: &RoomId) -> Result<()> {
        self.check_member(user_id, room_id).await?;
        kept::end(&self.0.shared_values, room_id, user_id).await;
        self.write(user_id, room_id, None).await
    }

    /// By the room in memory. Whoever writes the batch looks again.
    async fn check_member(&self, user_id: &UserId, room_id: &RoomId) -> Result<()> {
        let room = self.0.rooms.find(room_id).await?;
        if room.is_none_or(|room| room.view(|view| view.state.membership(user_id)) != MembershipState::Join) {
            return Err(Error::forbidden(format!("Join {room_id} first: only its members can type there")));
        }
        Ok(())
    }

    /// `until`: none where they have stopped.
    async fn write(&self, user_id: &UserId, room_id: &RoomId, until: Option<MilliSecondsSinceUnixEpoch>) -> Result<()> {
        let typing = Typing { room_id: room_id.to_owned(), user_id: user_id.to_owned(), until };
        self.0.rooms.log().append(Write::fact(Fact::Typing(typing))).await?;
        Ok(())
    }

    /// Everybody who types in a room, if somebody has begun or stopped after `after`, up to `until`.
    pub async fn since(
        &self,
        room_id: &RoomId,
        after: Position,
        until: Position,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Option<Vec<OwnedUserId>>> {
        let began = self.0.rooms.log().tail().began();
        match self.0.cache.since(room_id, (after, until), now, began) {
            TypingSince::Unchanged => Ok(None),
            TypingSince::Changed(typists) => Ok(Some(typists)),
            TypingSince::Unknown => {
                let rows = store::ephemeral::list_typing(&mut self.0.db.read().await?, room_id).await?;
                // Nobody types there now, but somebody has stopped: that is news.
                Ok(rows.iter().any(|(at, _)| *at > after && *at <= until).then(Vec::new))
            }
        }
    }

    /// Writes of everybody whose time is up that they have stopped, until the server itself stops.
    async fn expire(self, shutdown: Shutdown) {
        loop {
            let mine = self.0.duty.is_mine();
            let facts = if mine { self.list_news().await } else { Vec::new() };
            let mut pause = None;
            if !facts.is_empty()
                && let Err(error) = self.0.rooms.log().append(Write::facts(facts)).await
            {
                tracing::warn!(%error, "could not write that somebody has stopped typing; trying again");
                pause = Some(PAUSE);
            }
            let pause = pause.or_else(|| if mine { self.time_to_next() } else { Some(OTHERS) });
            tokio::select! {
                () = shutdown.started() => return,
                () = self.0.cache.begun() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// What has become of those whose time is up or soon will be: they go on, or they have stopped.
    async fn list_news(&self) -> Vec<Fact> {
        let now = self.0.clock.now();
        let due = self.0.cache.list_due(later(now, AHEAD));
        let announced = kept::read(&self.0.shared_values, &due).await;
        let news = due.into_iter().zip(announced).filter_map(|(typing, announced)| {
            let until = announced.filter(|announced| Some(*announced) > typing.until && *announced > now);
            let is_news = until.is_some() || typing.until.is_none_or(|until| until <= now);
            is_news.then_some(Fact::Typing(Typing { until, ..typing }))
        });
        news.collect()
    }

    /// How long to sleep, if anybody is typing. The clock may be moved, so it is looked at now and then.
    fn time_to_next(&self) -> Option<Duration> {
        let next = self.0.cache.find_next_expiry()?;
        let left = u64::from(next.get()).saturating_sub(self.0.clock.now().get().into());
        Some(Duration::from_millis(left.max(1)).min(LOOK))
    }
}

fn later(now: MilliSecondsSinceUnixEpoch, by: Duration) -> MilliSecondsSinceUnixEpoch {
    let by = UInt::try_from(by.as_millis()).unwrap_or(UInt::MAX);
    MilliSecondsSinceUnixEpoch(now.get().saturating_add(by))
}

/// Those who type as clients read it.
pub fn typing_event(typists: Vec<OwnedUserId>) -> Option<Raw<AnySyncEphemeralRoomEvent>> {
    let event = SyncTypingEvent::new(TypingEventContent::new(typists));
    Raw::new(&event)
        .map(Raw::cast)
        .inspect_err(|error| tracing::error!(%error, "typing could not be written as JSON"))
        .ok()
}
