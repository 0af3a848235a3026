//! What the log has to be able to do with a kind of fact.

use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::Kind,
    ground::position::Position,
};

/// A kind of fact in the database.
pub(super) trait Rows: Kind {
    /// Writes what a batch says, in the order of the places. There is something. Of several facts about one thing the
    /// newest stays, unless the kind has a better one.
    async fn write(tx: &mut Tx, facts: &[(Position, &Self::Fact)]) -> DbResult<()>;

    /// The places of facts that came to nothing because something better stood there already: no reader gets them.
    /// Asked once the whole batch is written.
    async fn list_idle(_tx: &mut Tx, _facts: &[(Position, &Self::Fact)]) -> DbResult<Vec<Position>> {
        Ok(Vec::new())
    }

    /// What stands at the places of entries, of which there are some, in order. What has been replaced since stands at a
    /// later place and is left out.
    async fn read(conn: &mut Conn, entries: Vec<(Position, Self::Entry)>) -> DbResult<Vec<(Position, Self)>>;
}

/// The first and the last place of entries.
pub(super) fn span<T>(entries: &[(Position, T)]) -> (Position, Position) {
    let place = |entry: Option<&(Position, T)>| entry.map_or(Position::START, |(at, _)| *at);
    (place(entries.first()), place(entries.last()))
}

/// What entries name, each once.
pub(super) fn each_once<'a, T: Ord + ?Sized + 'a>(named: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut named: Vec<&T> = named.collect();
    named.sort_unstable();
    named.dedup();
    named
}
