//! Work on one destination: one transaction after the other, in order, until it has everything or can't be reached.
//!
//! A destination that can't be reached is owed what it has not got: that is written down with how long it is left alone, and
//! what was queued for it is forgotten. It gets it when that time is over, or when something comes from there
//! (`catch_up.rs`).
//!
//! A transaction that is refused for what is in it is cut in half, and again, until the event that is not wanted is alone.
//! That one is stepped over, so that it is in nobody's way.

use std::time::Duration;

use super::{
    FederationSender,
    catch_up::CaughtUp,
    ledger::Lost,
    outbox::{LaneKey, Next},
    queue::{QueuedEvent, fitting},
    transaction::{is_about_content, transaction},
    trouble::{Refusals, Trouble},
};
use crate::edge::federation_client::RemoteError;

/// How many events in a row are stepped over. A destination that wants nothing at all is left alone, as one that is not
/// there.
const MOST_REFUSED: usize = 10;
/// How long to wait after the database has failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Ends the work on a destination, in whatever way it ends.
struct Shift<'a> {
    sender: &'a FederationSender,
    key: &'a LaneKey,
    /// Whether that has been done: somebody else may be at work on it by now.
    is_over: bool,
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.sender.0.outbox.rest(self.key);
        }
    }
}

impl FederationSender {
    /// Sends a destination everything that there is for it. The caller has been given it to work on by the outbox.
    pub(super) async fn serve(&self, key: LaneKey) {
        let mut shift = Shift { sender: self, key: &key, is_over: false };
        let mut refusals = Refusals::default();
        loop {
            match self.serve_next(&key, &mut refusals).await {
                Ok(true) => {}
                Ok(false) => {
                    shift.is_over = true;
                    return;
                }
                Err(Trouble::Remote(error)) => return self.leave_alone(&key, &error).await,
                Err(Trouble::Lost) => return self.0.outbox.lose(&key),
                Err(Trouble::Here(error)) => {
                    tracing::warn!(%error, server = %key.server, "nothing could be sent to a server; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Does the next thing that is to be done for a destination. False if there is nothing.
    async fn serve_next(&self, key: &LaneKey, refusals: &mut Refusals) -> Result<bool, Trouble> {
        match self.0.outbox.next(key) {
            Next::Rest => return Ok(false),
            Next::Send(events) => {
                let count = self.send(key, &events, refusals).await?;
                self.0.outbox.sent(key, count);
            }
            Next::Owe(from) => {
                tracing::info!(server = %key.server, "a server takes events more slowly than they come");
                self.0.ledger.owe(key, from).await??;
                self.0.outbox.owed(key, from);
            }
            Next::CatchUp => {
                while self.catch_up(key, refusals).await? == CaughtUp::InPart {}
                // Here and not in the last round: it is live by now, so nothing that comes meanwhile is overlooked.
                self.settle(key).await?;
            }
            Next::Settle => self.settle(key).await?,
        }
        Ok(true)
    }

    /// Writes down from where on a live destination is still owed something, which is nothing, unless something waits that
    /// came while it was owed more.
    async fn settle(&self, key: &LaneKey) -> Result<(), Trouble> {
        let from = self.0.outbox.unsettled(key);
        self.0.ledger.settle(key, from, false, None).await??;
        self.0.outbox.settled(key, from);
        Ok(())
    }

    /// Sends events of which there is at least one, as many as the destination takes at once. Returns how many are done
    /// with, from the first on: they have arrived, or will never.
    pub(super) async fn send(
        &self,
        key: &LaneKey,
        events: &[QueuedEvent],
        refusals: &mut Refusals,
    ) -> Result<usize, Trouble> {
        let mut count = fitting(events);
        loop {
            let piece = events.get(..count).unwrap_or(events);
            match self.deliver(key, piece).await {
                Ok(()) => {
                    refusals.0 = 0;
                    return Ok(piece.len());
                }
                Err(error) if is_about_content(&error) && piece.len() > 1 => count = piece.len() / 2,
                Err(error) if is_about_content(&error) && refusals.0 < MOST_REFUSED => {
                    refusals.0 += 1;
                    let event_id = piece.first().map(|event| event.pdu.event_id());
                    tracing::warn!(server = %key.server, event_id = ?event_id, %error, "a server does not take an event");
                    self.0.metrics.federation_events_refused(1);
                    return Ok(piece.len());
                }
                Err(error) => return Err(Trouble::Remote(error)),
            }
        }
    }

    /// One transaction. What the destination says of single events is logged: it has dealt with them in its way.
    async fn deliver(&self, key: &LaneKey, events: &[QueuedEvent]) -> Result<(), RemoteError> {
        let server = &key.server;
        let transaction = transaction(self.0.rooms.server_name(), self.0.clock.now(), &self.0.random, events);
        let delivered = {
            // So many connections at a time, however many servers are in a room.
            let _place = self.0.places.acquire().await.ok();
            self.0.carrier.deliver(server, transaction).await
        };
        self.0.metrics.federation_transaction(delivered.is_ok());
        let refused = delivered?;
        for (event_id, reason) in &refused {
            // What another server writes is cut and escaped: it may be anything.
            let reason: String = reason.chars().take(200).collect();
            tracing::info!(%server, %event_id, ?reason, "a server has refused an event");
        }
        self.0.metrics.federation_events_refused(refused.len());
        self.0.metrics.federation_events_sent(events.len().saturating_sub(refused.len()));
        Ok(())
    }

    /// A destination can't be reached. That is written down, however long the database takes: until then the events stay in
    /// memory and hold back the cursor.
    async fn leave_alone(&self, key: &LaneKey, error: &RemoteError) {
        let server = &key.server;
        while let Some(owing) = self.0.outbox.owing(key) {
            match self.0.ledger.fail(key, &owing, &error.to_string()).await {
                Ok(Ok(pause)) => {
                    let seconds = pause.as_secs();
                    tracing::info!(%server, %error, seconds, "a server can't be reached and is left alone for a while");
                    return self.0.outbox.owed(key, owing.from);
                }
                Ok(Err(Lost)) => return self.0.outbox.lose(key),
                Err(failure) => {
                    tracing::warn!(%server, error = %failure, "could not write down that a server can't be reached");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Has somebody work on each of these destinations, in the background.
    pub(super) fn spawn_all(&self, keys: Vec<LaneKey>) {
        for key in keys {
            let (sender, shutdown) = (self.clone(), self.0.tasks.shutdown().clone());
            self.0.tasks.spawn("federation destination", async move {
                tokio::select! {
                    // What was under way is sent again after the next start.
                    () = shutdown.started() => {}
                    () = sender.serve(key) => {}
                }
            });
        }
    }
}
