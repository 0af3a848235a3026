//! Sending what is due: the duty of one node, and at once for whoever asks for it.
//!
//! An event's transaction id is its delay id, so sending it again returns the event that is there. That is what makes a
//! claim that runs out safe.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::error::{ErrorKind, StandardErrorBody},
};

use super::{CLAIM, DelayedEvent, DelayedEvents, Finalised, deactivated, store};
use crate::{
    error::{Error, Result},
    event::{Content, Transaction},
    ground::{clock::millis, tasks::Shutdown},
    people::account::author_of,
    room::{Message, NewState},
    store::account,
};

/// How often to look whether something is due. What another node has scheduled comes up with the next look, so no node
/// has to be notified of it: the look is one range scan of an index that holds only what is scheduled, and mostly finds
/// nothing. Calls wait for seconds.
const LOOK: Duration = Duration::from_millis(500);
/// How often a node looks whether the duty has become its own.
const OTHERS: Duration = Duration::from_secs(1);
/// How long to wait after the database has failed: until what was claimed then is due again, so that what comes after
/// it in its room doesn't overtake it.
const PAUSE: Duration = CLAIM;
/// How many events are read at once.
const BATCH: i64 = 200;
/// In how many rooms at once events are sent. In one room they keep their order, unless a node dies over one of them.
const ROOMS_AT_ONCE: usize = 16;

impl DelayedEvents {
    /// Sends what is due until the server stops.
    pub(super) async fn send_on(self, shutdown: Shutdown) {
        loop {
            // Another node may believe the same for a moment. Claims keep the two apart.
            let pause = if self.0.duty.is_mine() {
                match self.send_due().await {
                    Ok(true) => Duration::ZERO,
                    Ok(false) => LOOK,
                    Err(error) => {
                        tracing::warn!(%error, "delayed events could not be sent; trying again");
                        PAUSE
                    }
                }
            } else {
                OTHERS
            };
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Sends what is due, and returns whether there may be more.
    async fn send_due(&self) -> Result<bool> {
        let due = store::list_due(&mut self.0.db.read().await?, self.now(), BATCH).await?;
        let more = i64::try_from(due.len()).is_ok_and(|count| count >= BATCH);
        let mut rooms: BTreeMap<OwnedRoomId, Vec<DelayedEvent>> = BTreeMap::new();
        for event in due {
            rooms.entry(event.room_id.clone()).or_default().push(event);
        }
        // Room by room, so that one that is slow holds up no other.
        let sent = stream::iter(rooms.into_values())
            .map(|events| async move {
                // What fails leaves the rest of its room for later: nothing is overtaken.
                for event in events {
                    self.send_if_due(&event).await?;
                }
                Ok(())
            })
            .buffer_unordered(ROOMS_AT_ONCE);
        let sent: Result<()> = sent.fold(Ok(()), |so_far, sent| async { so_far.and(sent) }).await;
        sent.map(|()| more)
    }

    /// Sends an event that is due, unless somebody else is about to.
    async fn send_if_due(&self, event: &DelayedEvent) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        let now = self.now();
        // Looked at again: the list may have taken a while, and an event that was restarted is not due any more.
        let claimed = self.0.duty.is_mine()
            && store::claim_due(&mut tx, &event.id, now, now.saturating_add(millis(CLAIM))).await?;
        tx.commit().await?;
        if !claimed {
            return Ok(());
        }
        let outcome = match self.deliver(event).await {
            Ok(event_id) => Ok(event_id),
            Err(Error::Refused { kind, message }) => Err(StandardErrorBody::new(kind, message)),
            // It is tried again when the claim has run out.
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                tracing::error!(%error, room_id = %event.room_id, "a delayed event could not be sent");
                let message = "The server failed to send this. Its operator finds the reason in the log";
                Err(StandardErrorBody::new(ErrorKind::Unknown, message.to_owned()))
            }
        };
        self.finalise(event, outcome).await
    }

    /// Sends what this node has claimed. What is refused stays scheduled for its time.
    pub(super) async fn send_at_once(&self, event: &DelayedEvent) -> Result<()> {
        match self.deliver(event).await {
            Ok(event_id) => self.finalise(event, Ok(event_id)).await,
            Err(refusal @ Error::Refused { .. }) => {
                let mut tx = self.0.db.begin().await?;
                store::release(&mut tx, &event.id).await?;
                tx.commit().await?;
                Err(refusal)
            }
            // Nobody knows whether it was sent. The claim runs out, and whose duty it is sends it then.
            Err(error) => Err(error),
        }
    }

    /// Puts an event into its room, unless it is there already.
    async fn deliver(&self, event: &DelayedEvent) -> Result<OwnedEventId> {
        // As the account is now: who is locked or suspended by then sends nothing.
        let sender = account::find(&mut self.0.db.read().await?, &event.user_id).await?;
        let sender = sender.filter(|sender| !sender.deactivated).ok_or_else(deactivated)?;
        sender.restrictions.check_unlocked()?;
        sender.restrictions.check_not_suspended()?;
        let content: Content = serde_json::from_str(&event.content).map_err(Error::broken)?;
        let (room_id, author, kind) = (event.room_id.clone(), author_of(&sender), event.kind.clone());
        // By this the room knows the event, should it be sent twice.
        let transaction = Transaction::delayed(&event.id);
        match event.state_key.clone() {
            None => {
                let message = Message { room_id, author, kind, content, transaction };
                self.0.rooms.send(&message).await
            }
            Some(state_key) => {
                let transaction = Some(transaction);
                let new = NewState { room_id, author, kind, state_key, content, transaction };
                self.0.rooms.set_state(&new).await
            }
        }
    }

    /// Writes down how it has ended. Should the process die before, the event is sent again and is found to be there.
    async fn finalise(&self, event: &DelayedEvent, outcome: Result<OwnedEventId, StandardErrorBody>) -> Result<()> {
        let (event_id, error) = match outcome {
            Ok(event_id) => (Some(event_id), None),
            Err(error) => (None, Some(serde_json::to_string(&error).map_err(Error::broken)?)),
        };
        let mut tx = self.0.db.begin().await?;
        store::finalise(&mut tx, &event.id, &Finalised { ts: self.now(), event_id, error }).await?;
        Ok(tx.commit().await?)
    }
}

/// Whether the same may succeed soon.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unavailable(_) | Error::Conflict => true,
        Error::Db(error) => error.is_unavailable(),
        _ => false,
    }
}
