//! Delayed events: what users have this server send later in their name.
//!
//! Each is a row from the moment it is scheduled. Whoever is to send one claims it for a few seconds, in which nobody
//! else touches it; then it is sent as a transaction of its own, by which the room knows an event that is there
//! already; last the row says what has become of it. A node that dies on the way leaves a claim that runs out. Another
//! then does the same again, and the event is there once.
//!
//! What an event may do is judged twice: when it is scheduled, for an error that the client can show, and when it is
//! sent, because that alone counts. Lock order: the account, then its events. What becomes of the events of a session
//! that ends is settled where it is ended (`people/account/last_words.rs`).
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4140-delayed-events-futures.md>

mod page;
mod send;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedTransactionId, OwnedUserId, UserId, api::error::ErrorKind,
    events::TimelineEventType,
};

pub(crate) use self::page::StatusFilter;
pub(crate) use crate::store::delayed_event::{DelayedEvent, Finalised};
use crate::{
    config,
    db::{Conn, Db},
    error::{Error, Result},
    event::Content,
    ground::{
        clock::{Clock, millis},
        random::Random,
        tasks::Tasks,
    },
    node::{Duty, Nodes},
    people::account::unknown_access_token,
    room::{Rooms, check_transaction_id},
    store::{account, delayed_event as store, device},
};

/// 32 characters of 62 are 190 bits: who knows an identifier may restart, send or cancel what it stands for.
const DELAY_ID_LENGTH: usize = 32;
/// For how long it is remembered what has become of an event, and for how many events of a user.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);
const REMEMBERED_OF_USER: i64 = 1_000;
/// For how long a node has an event to itself that it is about to send.
const CLAIM: Duration = Duration::from_secs(5);
/// For how long to wait for another node that is about to send an event, and how often to look.
const PATIENCE: Duration = Duration::from_secs(8);
const STEP: Duration = Duration::from_millis(50);

/// The delayed events of this server's users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DelayedEvents(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    clock: Clock,
    random: Random,
    limits: Limits,
    /// To send what is due.
    duty: Duty,
}

/// What the operator allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_delay: Duration,
    /// For each user. 0 where there are no delayed events.
    pub(crate) max_scheduled: u32,
}

impl From<&config::DelayedEventsConfig> for Limits {
    fn from(config: &config::DelayedEventsConfig) -> Self {
        Self { max_delay: Duration::from_secs(config.max_delay_seconds), max_scheduled: config.max_scheduled }
    }
}

/// An event to be sent later.
#[derive(Clone, Debug)]
pub(crate) struct NewDelayedEvent {
    pub(crate) sender: OwnedUserId,
    pub(crate) device_id: OwnedDeviceId,
    pub(crate) transaction_id: Option<OwnedTransactionId>,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) kind: TimelineEventType,
    /// None for what is not state.
    pub(crate) state_key: Option<String>,
    pub(crate) content: Content,
    pub(crate) delay: Duration,
}

/// The delay is longer than the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// What can be done to an event that is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It waits from now on.
    Restart,
    /// It waits no longer.
    Send,
    /// It is never sent.
    Cancel,
}

impl DelayedEvents {
    /// Starts the task that sends what is due.
    pub(crate) async fn start(
        (db, rooms, clock, random): (Db, Rooms, Clock, Random),
        limits: Limits,
        nodes: &Nodes,
        tasks: &Tasks,
    ) -> Result<Self> {
        let duty = nodes.duty("delayed events").await?;
        let events = Self(Arc::new(Inner { db, rooms, clock, random, limits, duty }));
        tasks.spawn("delayed events", events.clone().send_on(tasks.shutdown().clone()));
        Ok(events)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Schedules an event, once for each transaction, and returns by what it is known. It has to be one that could be
    /// sent now.
    pub(crate) async fn schedule(&self, new: &NewDelayedEvent) -> Result<Result<String, TooLong>> {
        let Limits { max_delay, max_scheduled } = self.0.limits;
        if max_scheduled == 0 {
            return Err(Error::forbidden("This server sends no delayed events"));
        }
        if new.delay.is_zero() {
            return Err(Error::invalid_param("A delay is at least one millisecond"));
        }
        if new.delay > max_delay {
            return Ok(Err(TooLong));
        }
        if let Some(transaction_id) = &new.transaction_id {
            check_transaction_id(transaction_id)?;
        }
        let before = find_scheduled(&mut self.0.db.read().await?, new).await?;
        if let Some(delay_id) = before {
            return Ok(Ok(delay_id));
        }
        let NewDelayedEvent { sender, room_id, kind, state_key, content, .. } = new;
        self.0.rooms.dry_run(room_id, sender, kind, state_key.as_deref(), content).await?;
        self.insert(new, max_scheduled).await.map(Ok)
    }

    async fn insert(&self, new: &NewDelayedEvent, max_scheduled: u32) -> Result<String> {
        let mut tx = self.0.db.begin().await?;
        // Who holds the account counts right, and schedules nothing for somebody who has just been deactivated.
        if account::lock(&mut tx, &new.sender).await?.is_none_or(|account| account.deactivated) {
            return Err(deactivated());
        }
        if let Some(delay_id) = find_scheduled(&mut tx, new).await? {
            return Ok(delay_id);
        }
        // What is to end with a session can't begin after it.
        if device::find(&mut tx, &new.sender, &new.device_id).await?.is_none() {
            return Err(unknown_access_token());
        }
        let now = self.now();
        let (scheduled, next) = store::count_scheduled(&mut tx, &new.sender).await?;
        if scheduled >= i64::from(max_scheduled) {
            return Err(too_many(max_scheduled, next.unwrap_or(now).saturating_sub(now)));
        }
        let event = DelayedEvent {
            id: self.0.random.token(DELAY_ID_LENGTH),
            user_id: new.sender.clone(),
            room_id: new.room_id.clone(),
            kind: new.kind.clone(),
            state_key: new.state_key.clone(),
            content: serde_json::to_string(&new.content).map_err(Error::broken)?,
            delay_ms: millis(new.delay),
            delayed_since_ts: now,
            sending: false,
            finalised: None,
        };
        let transaction_id = new.transaction_id.as_deref();
        store::insert(&mut tx, &event, store::ScheduledBy { device_id: &new.device_id, transaction_id }).await?;
        store::delete_surplus(&mut tx, &new.sender, REMEMBERED_OF_USER).await?;
        tx.commit().await?;
        Ok(event.id)
    }

    /// Restarts, sends or cancels an event. Where it is known who asks, it has to be theirs.
    ///
    /// `M_NOT_FOUND` also where it has ended already, in another way than was asked for. The proposal has come to say
    /// 409 with `M_UNKNOWN` there, though nothing of `restart` after sending. But clients were built on the text before
    /// it: to matrix-js-sdk `M_NOT_FOUND` means that a new event has to be scheduled, and any other error that the call
    /// has failed (<https://github.com/matrix-org/matrix-js-sdk/pull/5553>). 409 is for the stable endpoints.
    pub(crate) async fn act(&self, delay_id: &str, owner: Option<&UserId>, action: Action) -> Result<()> {
        // It goes round again only where somebody else has done something to the event in between.
        loop {
            let event = self.settled(delay_id, owner).await?;
            if let Some(finalised) = &event.finalised {
                return conclude(finalised, action);
            }
            let mut tx = self.0.db.begin().await?;
            let now = self.now();
            let done = match action {
                Action::Restart => store::restart(&mut tx, delay_id, now).await?,
                Action::Cancel => store::cancel(&mut tx, delay_id, now).await?,
                Action::Send => store::claim_at_once(&mut tx, delay_id, now.saturating_add(millis(CLAIM))).await?,
            };
            tx.commit().await?;
            match action {
                Action::Send if done => return self.send_at_once(&event).await,
                _ if done => return Ok(()),
                _ => {}
            }
        }
    }

    /// An event that nobody is about to send.
    async fn settled(&self, delay_id: &str, owner: Option<&UserId>) -> Result<DelayedEvent> {
        let settled = async {
            loop {
                let event = self.find(delay_id, owner).await?;
                if !event.sending {
                    return Ok(event);
                }
                tokio::time::sleep(STEP).await;
            }
        };
        let gave_up = |_elapsed| Err(Error::Unavailable("another node is about to send the event".to_owned()));
        tokio::time::timeout(PATIENCE, settled).await.unwrap_or_else(gave_up)
    }

    /// A user's event, scheduled or ended; anybody's where it is not known who asks.
    pub(crate) async fn find(&self, delay_id: &str, owner: Option<&UserId>) -> Result<DelayedEvent> {
        let event = store::find(&mut self.0.db.read().await?, delay_id).await?;
        let event = event.filter(|event| owner.is_none_or(|owner| event.user_id == owner));
        event.ok_or_else(|| Error::not_found("There is no such delayed event"))
    }

    /// Forgets what has ended long ago. To be called now and then.
    pub(crate) async fn clear_finalised(&self) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        store::delete_finalised(&mut tx, self.now().saturating_sub(millis(REMEMBERED))).await?;
        Ok(tx.commit().await?)
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}

/// What the same request has scheduled before.
async fn find_scheduled(conn: &mut Conn, new: &NewDelayedEvent) -> Result<Option<String>> {
    let NewDelayedEvent { sender, device_id, transaction_id, room_id, kind, .. } = new;
    let Some(transaction_id) = transaction_id else { return Ok(None) };
    Ok(store::find_by_transaction(conn, sender, device_id, room_id, kind, transaction_id).await?)
}

/// What somebody is answered who wants something of an event that has ended.
fn conclude(finalised: &Finalised, action: Action) -> Result<()> {
    match (action, &finalised.event_id) {
        (Action::Send, Some(_)) | (Action::Cancel, None) => Ok(()),
        (_, Some(_)) => Err(Error::not_found("This delayed event has been sent already")),
        (_, None) => Err(Error::not_found("This delayed event was cancelled and is not sent any more")),
    }
}

fn deactivated() -> Error {
    Error::refused(ErrorKind::UserDeactivated, "The account has been deactivated")
}

/// `wait`: until the first of the user's events is sent, in milliseconds.
fn too_many(max_scheduled: u32, wait: i64) -> Error {
    let message =
        format!("You have {max_scheduled} delayed events scheduled, and no more before one is sent or cancelled");
    Error::wait(&message, Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}
