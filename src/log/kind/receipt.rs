//! Receipts in `receipts`: one of each type for each thread, the one that is furthest ahead.

use std::collections::HashMap;

use ruma::{OwnedRoomId, OwnedUserId};

use super::rows::{Rows, each_once, span};
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::Receipt,
    ground::position::Position,
    store,
};

impl Rows for Receipt {
    async fn write(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<()> {
        let mut furthest = HashMap::new();
        for (at, receipt) in facts {
            let key = (&receipt.room_id, &receipt.user_id, &receipt.receipt_type, &receipt.thread_id);
            let known = furthest.entry(key).or_insert((*at, *receipt));
            // A tie goes to the later one: its timestamp is newer.
            if receipt.event_order >= known.1.event_order {
                *known = (*at, receipt);
            }
        }
        let rows: Vec<_> = furthest.into_values().collect();
        store::ephemeral::upsert_receipts(tx, &rows).await
    }

    /// One that would have moved back was not written. This node's readers do not get it, no more than those of other
    /// nodes, which don't find it in the table.
    async fn list_idle(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<Vec<Position>> {
        let rooms = each_once(facts.iter().map(|(_, receipt)| &*receipt.room_id));
        let written = store::ephemeral::receipts_written(tx, &rooms, span(facts).0).await?;
        Ok(facts.iter().map(|(at, _)| *at).filter(|at| !written.contains(at)).collect())
    }

    async fn read(
        conn: &mut Conn,
        entries: Vec<(Position, (OwnedRoomId, OwnedUserId))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        let rooms = each_once(entries.iter().map(|(_, (room_id, _))| &**room_id));
        let (first, last) = span(&entries);
        store::ephemeral::receipts_between(conn, &rooms, first, last).await
    }
}
