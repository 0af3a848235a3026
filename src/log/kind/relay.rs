//! Events that are passed on to other servers: the entry says it all, and there are no rows.

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};

use super::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::Relay,
    ground::position::Position,
};

impl Rows for Relay {
    /// The event itself is written as an event.
    async fn write(_tx: &mut Tx, _facts: &[(Position, &Self)]) -> DbResult<()> {
        Ok(())
    }

    async fn read(
        _conn: &mut Conn,
        entries: Vec<(Position, (OwnedRoomId, OwnedEventId, OwnedServerName))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        let relay = |(room_id, event_id, from)| Self { room_id, event_id, from };
        Ok(entries.into_iter().map(|(at, entry)| (at, relay(entry))).collect())
    }
}
