//! Changes of accounts. Whoever makes one writes its rows, but for what only the log writes: `erasures`, which name the
//! place from which on somebody is erased, and what waits for devices that are gone, which goes with them.

use std::collections::HashMap;

use ruma::OwnedUserId;

use super::rows::{Rows, each_once, span};
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::AccountChange,
    ground::position::Position,
    store,
};

impl Rows for AccountChange {
    async fn write(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<()> {
        let erased = facts.iter().filter(|(_, change)| matches!(change, Self::Erased(_)));
        let rows: Vec<_> = erased.map(|(at, change)| (change.user_id(), *at)).collect();
        store::erasure::insert(tx, &rows).await?;
        // Here and not where devices are deleted, because it has to be under the log's lock: what is sent to them
        // meanwhile would stay. What had come before is gone by now where somebody was logged out.
        for user_id in each_once(facts.iter().map(|(_, change)| change.user_id())) {
            store::to_device::delete_orphans(tx, user_id).await?;
        }
        Ok(())
    }

    /// Both changes have one kind of entry, because both make nodes look the account up again. Which one it was follows
    /// from the table.
    async fn read(conn: &mut Conn, entries: Vec<(Position, OwnedUserId)>) -> DbResult<Vec<(Position, Self)>> {
        let (first, last) = span(&entries);
        let erased: HashMap<_, _> = store::erasure::list_between(conn, first, last).await?.into_iter().collect();
        let change = |(at, user_id): (Position, OwnedUserId)| {
            let is_erased = erased.get(&at) == Some(&user_id);
            (at, if is_erased { Self::Erased(user_id) } else { Self::Devices(user_id) })
        };
        Ok(entries.into_iter().map(change).collect())
    }
}
