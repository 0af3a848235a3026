//! The log on its way into the index, and history that was fetched later, of which the log does not tell.

use std::time::Duration;

use ruma::EventId;
use tokio::time::Instant;

use super::{document::text_of, searches::Searches};
use crate::{
    error::Result,
    event::{Stored, fact::News},
    ground::{
        position::{Order, Position},
        tasks::Shutdown,
    },
    log::cursor::{self, Cursor, Follower, KnownPlace, Mover},
    node::Duty,
    store::{self, search::Document},
};

/// How far the index has come.
pub(in crate::reader::search) const CURSOR: Cursor = Cursor::new("search");
/// How long what is said waits until it is indexed, so that much is done at once.
const REST: Duration = Duration::from_millis(500);
/// How often it is looked whether history has come.
const LOOK: Duration = Duration::from_secs(5);
/// How long a search waits for the index to catch up.
const PATIENCE: Duration = Duration::from_secs(3);

impl Searches {
    /// Has the index hold everything up to `until`, unless there is so much to take that it would be waited for too long:
    /// then what is newest is not found yet. Returns up to where, or up to where at least, it holds the log.
    ///
    /// History that was fetched later is not waited for: it is found within [`LOOK`].
    pub(super) async fn catch_up(&self, until: Position) -> Result<Position> {
        cursor::bring_up(self, until, PATIENCE).await
    }

    /// Takes history into the index as it comes, wherever that is this node's duty, until the server stops.
    pub(super) async fn follow_history(self, duty: Duty, shutdown: Shutdown) {
        let mut pause = LOOK;
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let begun = Instant::now();
            let taken = if duty.is_mine() { self.take_history().await } else { Ok(false) };
            pause = match taken {
                // It rests as long as it has worked, so that whoever writes gets on meanwhile.
                Ok(true) => begun.elapsed(),
                Ok(false) => LOOK,
                Err(error) => {
                    tracing::warn!(%error, "could not take history into the search index; trying again");
                    LOOK
                }
            };
        }
    }

    /// Takes some of the history that has come. Returns whether there may be more.
    ///
    /// Whoever writes the index is alone with it, by the cursor's row, and the events are read in the transaction. So one
    /// that was redacted is read as the redaction left it, or the stretch of the log that tells of the redaction is taken
    /// after this and takes it out. Whoever moves an event (`room/graph/history/write.rs`) takes it first out of what
    /// waits, then out of the index: it is not read here, or taken out again.
    async fn take_history(&self) -> Result<bool> {
        if !store::search::is_history_waiting(&mut self.0.db.read().await?).await? {
            return Ok(false);
        }
        let _turn = self.0.turn.lock().await;
        let mut tx = self.0.db.begin().await?;
        // The words of all that is read are split before the next statement.
        tx.may_rest().await?;
        CURSOR.lock(&mut tx).await?;
        let keys = store::search::take_history(&mut tx, self.0.sizes.taken).await?;
        let mut events = store::event::list_at(&mut tx, &keys).await?;
        events.sort_unstable_by_key(|event| event.order);
        let documents: Vec<Document<'_>> = events.iter().filter_map(document).collect();
        let rows = store::search::rows(self.0.db.engine(), &documents, &self.0.sizes.index);
        store::search::add(&mut tx, &rows).await?;
        tx.commit().await?;
        Ok(keys.len() == self.0.sizes.taken)
    }

    /// Takes whatever there is to take, however long that takes.
    #[cfg(test)]
    pub(crate) async fn take_everything(&self) -> Result<()> {
        let until = self.0.rooms.log().tail().reached();
        while self.take(until, Mover::Anybody).await? < until {}
        while self.take_history().await? {}
        Ok(())
    }
}

impl Follower for Searches {
    fn cursor(&self) -> Cursor {
        CURSOR
    }

    fn known(&self) -> &KnownPlace {
        &self.0.known
    }

    fn rest(&self) -> Duration {
        REST
    }

    async fn take(&self, until: Position, mover: Mover) -> Result<Position> {
        let _turn = self.0.turn.lock().await;
        let from = CURSOR.position(&mut self.0.db.read().await?).await?;
        if from >= until {
            return Ok(from);
        }
        // What is in memory stands there as it was written: what has been redacted later is taken, and taken out again
        // with the stretch that redacts it.
        let stretch = self.0.rooms.log().read_after(from, self.0.sizes.taken).await?;
        let events: Vec<&Stored> = stretch.events().map(|logged| &logged.stored).collect();
        // What was redacted in this stretch may have been indexed before it. It may also stand, if nobody was allowed
        // to redact it.
        let targets: Vec<&EventId> = events.iter().filter_map(|event| event.pdu.redacts()).collect();
        let targets = if targets.is_empty() {
            Vec::new()
        } else {
            store::event::list(&mut self.0.db.read().await?, &targets).await?
        };
        let gone = targets.iter().filter(|event| text_of(event).is_none()).map(|event| event.order);
        let gone: Vec<Order> = gone.chain(stretch.entries.iter().filter_map(redacted_late)).collect();
        let documents: Vec<Document<'_>> = events.into_iter().filter_map(document).collect();
        let rows = store::search::rows(self.0.db.engine(), &documents, &self.0.sizes.index);

        let mut tx = self.0.db.begin().await?;
        if !CURSOR.advance(&mut tx, from, stretch.until, mover).await? {
            return Ok(from);
        }
        store::search::add(&mut tx, &rows).await?;
        store::search::remove(&mut tx, &gone).await?;
        tx.commit().await?;
        Ok(stretch.until)
    }
}

/// Where an event stands that is redacted later than its redaction arrived.
fn redacted_late((_, news): &(Position, News)) -> Option<Order> {
    if let News::LateRedaction(late) = news { Some(late.order) } else { None }
}

fn document(event: &Stored) -> Option<Document<'_>> {
    Some(Document { order: event.order, room_id: event.pdu.room_id(), text: text_of(event)? })
}
