//! The log on its way into the index.
//!
//! Whoever takes a stretch of it notes in the same transaction how far the index has come: a stretch is taken once,
//! whatever breaks, and by however many nodes at the same time.

use std::time::Duration;

use ruma::EventId;
use tokio::time::Instant;

use super::{Searches, document::text_of};
use crate::{
    error::Result,
    event::Stored,
    fact::{Batch, News},
    node::Duty,
    position::Position,
    store::{self, search::Document},
    tasks::Shutdown,
};

/// How many entries of the log are taken at once.
const STEP: i64 = if cfg!(test) { 3 } else { 500 };
/// How long what is said waits until it is indexed, so that much is done at once.
const REST: Duration = Duration::from_millis(500);
/// How often a node looks whether the duty has become its own, and how long it waits after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a search waits for the index to catch up.
const PATIENCE: Duration = Duration::from_secs(3);

impl Searches {
    /// Takes the log into the index as it grows, until the server stops.
    pub(super) async fn feed(self, duty: Duty, shutdown: Shutdown) {
        let mut taken = Position::START;
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = self.0.rooms.log().tail().wait_for(taken.next()) => {}
            }
            let begun = Instant::now();
            let pause = if duty.is_mine() {
                match self.take(self.0.rooms.log().tail().reached()).await {
                    Ok(reached) => {
                        taken = reached;
                        // Where there is much to take, it rests as long as it has worked, so that whoever writes gets
                        // on meanwhile. Somebody who searches does not wait for that.
                        if reached < self.0.rooms.log().tail().reached() { begun.elapsed() } else { REST }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "could not take the log into the search index; trying again");
                        PAUSE
                    }
                }
            } else {
                PAUSE
            };
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Has the index hold everything up to `until`, unless there is so much to take that it would be waited for too
    /// long: then what is newest is not found yet. Tells up to where, or up to where at least, it holds the log.
    pub(super) async fn catch_up(&self, until: Position) -> Result<Position> {
        let begun = Instant::now();
        loop {
            let reached = self.take(until).await?;
            if reached >= until {
                return Ok(until);
            }
            if begun.elapsed() >= PATIENCE {
                tracing::warn!("the search index lags behind the log: a search may miss what is newest");
                return Ok(reached);
            }
        }
    }

    /// Takes a stretch of the log, if the index does not hold everything up to `until`, and tells how far it has come.
    async fn take(&self, until: Position) -> Result<Position> {
        let _turn = self.0.turn.lock().await;
        let mut conn = self.0.db.read().await?;
        let from = store::search::progress(&mut conn).await?;
        if from >= until {
            return Ok(from);
        }
        let until = until.min(Position(from.0.saturating_add(STEP)));
        // What is remembered stands there as it was written: what has been redacted later is taken, and taken out again
        // with the stretch that redacts it.
        let remembered = self.0.rooms.log().tail().catch_up(from, |missed| {
            missed.iter().take_while(|batch| batch.first <= until).cloned().collect::<Vec<_>>()
        });
        let stored;
        let events: Vec<&Stored> = if let Some(batches) = &remembered {
            batches.iter().flat_map(|batch| events_within(batch, from, until)).collect()
        } else {
            stored = store::event::list_between(&mut conn, from.next(), until).await?;
            stored.iter().collect()
        };
        // What was redacted in this stretch may have been indexed before it. It may also stand, if nobody was allowed
        // to redact it.
        let targets: Vec<&EventId> = events.iter().filter_map(|event| event.pdu.redacts()).collect();
        let targets = if targets.is_empty() { Vec::new() } else { store::event::list(&mut conn, &targets).await? };
        drop(conn);
        let gone: Vec<i64> =
            targets.iter().filter(|event| text_of(event).is_none()).map(|event| event.position.0).collect();
        let documents: Vec<Document<'_>> = events.into_iter().filter_map(document).collect();
        let rows = store::search::rows(self.0.db.engine(), &documents);

        let mut tx = self.0.db.begin().await?;
        if !store::search::move_progress(&mut tx, from, until).await? {
            // Another node was quicker.
            return Ok(from);
        }
        store::search::add(&mut tx, &rows).await?;
        store::search::remove(&mut tx, &gone).await?;
        tx.commit().await?;
        Ok(until)
    }
}

/// The events of a batch after one place, up to another.
fn events_within(batch: &Batch, after: Position, until: Position) -> impl Iterator<Item = &Stored> {
    let within = batch.entries().filter(move |(at, _)| after < *at && *at <= until);
    within.filter_map(|(_, news)| match news {
        News::Event(logged) => Some(&logged.stored),
        _ => None,
    })
}

fn document(event: &Stored) -> Option<Document<'_>> {
    Some(Document { position: event.position, room_id: event.pdu.room_id(), text: text_of(event)? })
}
