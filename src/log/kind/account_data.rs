//! Account data in `account_data`, the newest of each type.

use std::collections::HashMap;

use ruma::{OwnedRoomId, OwnedUserId};

use super::rows::{Rows, each_once, span};
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{AccountData, NewAccountData},
    ground::position::Position,
    store,
};

impl Rows for AccountData {
    /// What the fact was to replace was compared by the judge; here it is written whatever stands there.
    async fn write(tx: &mut Tx, facts: &[(Position, &NewAccountData)]) -> DbResult<()> {
        let mut newest = HashMap::new();
        for (at, NewAccountData { data, .. }) in facts {
            newest.insert((&data.user_id, &data.room_id, &data.kind), (*at, data));
        }
        let rows: Vec<_> = newest.into_values().collect();
        store::account_data::upsert(tx, &rows).await
    }

    /// The entry names no type, so everything of these owners in the stretch is read.
    async fn read(
        conn: &mut Conn,
        entries: Vec<(Position, (OwnedUserId, Option<OwnedRoomId>))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        let owners = each_once(entries.iter().map(|(_, (user_id, _))| &**user_id));
        let (first, last) = span(&entries);
        store::account_data::list_between(conn, &owners, first, last).await
    }
}
