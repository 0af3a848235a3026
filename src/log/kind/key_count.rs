//! Changes of one-time and fallback keys. Whoever makes one writes its rows.

use ruma::{OwnedDeviceId, OwnedUserId};

use super::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::KeyCountChange,
    ground::position::Position,
};

impl Rows for KeyCountChange {
    /// There is nothing to write: keys are claimed often, and all that anybody has to know is in their own tables.
    async fn write(_tx: &mut Tx, _facts: &[(Position, &Self)]) -> DbResult<()> {
        Ok(())
    }

    /// The entry says it all.
    async fn read(
        _conn: &mut Conn,
        entries: Vec<(Position, (OwnedUserId, OwnedDeviceId))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        Ok(entries.into_iter().map(|(at, (user_id, device_id))| (at, Self { user_id, device_id })).collect())
    }
}
