//! What the database held at one place of the log, for whoever puts it beside what follows the log.
//!
//! A reading ends with [`LogSnapshot::close`], which returns its place: it gives the connection back and waits until this
//! node has read as far. So rows are not put beside a cache that is behind them, and nobody waits for the follower with
//! a connection in hand that it may need.

use std::ops::{Deref, DerefMut};

use super::tail::Tail;
use crate::{
    db::{Conn, Db, DbResult, Tx},
    ground::position::Position,
    store,
};

/// The database at one place of the log. Read through it as through a connection.
pub(crate) struct LogSnapshot<'a> {
    tx: Tx,
    position: Position,
    tail: &'a Tail,
}

impl Tail {
    /// Begins to read what the database holds now.
    pub(crate) async fn snapshot(&self, db: &Db) -> DbResult<LogSnapshot<'_>> {
        let mut tx = db.snapshot().await?;
        // The first statement, so everything after it is as it was at this position.
        let position = store::log::last_position(&mut tx).await?;
        Ok(LogSnapshot { tx, position, tail: self })
    }
}

impl LogSnapshot<'_> {
    /// The place of what is read, for statements that name it. It is put beside nothing before [`Self::close`].
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Ends the reading. Returns the place of what was read, which this node has read by then.
    pub(crate) async fn close(self) -> Position {
        let Self { tx, position, tail } = self;
        drop(tx);
        tail.reach(position).await;
        position
    }
}

impl Deref for LogSnapshot<'_> {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.tx
    }
}

impl DerefMut for LogSnapshot<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.tx
    }
}
