//! Presence in `presence`, the newest of each user.

use std::collections::HashMap;

use ruma::OwnedUserId;

use super::rows::{Rows, span};
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::Presence,
    ground::position::Position,
    store,
};

impl Rows for Presence {
    async fn write(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<()> {
        let newest: HashMap<_, _> = facts.iter().map(|(at, presence)| (&presence.user_id, (*at, *presence))).collect();
        let rows: Vec<_> = newest.into_values().collect();
        store::ephemeral::upsert_presence(tx, &rows).await
    }

    /// The statement counts from after a place, hence `before`.
    async fn read(conn: &mut Conn, entries: Vec<(Position, OwnedUserId)>) -> DbResult<Vec<(Position, Self)>> {
        let (first, last) = span(&entries);
        store::ephemeral::presence_between(conn, first.before(), last).await
    }
}
