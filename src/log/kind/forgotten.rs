//! Forgotten rooms: a mark in `memberships`, and in `outside_memberships`, which are written before.

use ruma::{OwnedRoomId, OwnedUserId};

use super::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::Forgotten,
    ground::position::Position,
    store,
};

impl Rows for Forgotten {
    /// One statement each: rooms are forgotten one at a time, by people.
    async fn write(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<()> {
        for (_, Self { user_id, room_id }) in facts {
            store::membership::forget(tx, user_id, room_id).await?;
            store::outside_membership::forget(tx, user_id, room_id).await?;
        }
        Ok(())
    }

    /// The entry says it all.
    async fn read(
        _conn: &mut Conn,
        entries: Vec<(Position, (OwnedUserId, OwnedRoomId))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        Ok(entries.into_iter().map(|(at, (user_id, room_id))| (at, Self { user_id, room_id })).collect())
    }
}
