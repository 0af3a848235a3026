//! Changes of accounts. Whoever makes one writes its rows, but for what only the log writes: `erasures`, which name the
//! place from which on somebody is erased, and up to which place everything was for devices that have ended.

use std::collections::{BTreeMap, HashMap};

use ruma::OwnedUserId;

use super::rows::{Rows, span};
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
        // Here and not where devices are deleted, because it has to be under the log's lock: something may have been sent to
        // them since. Only the transaction that ends them has anything to settle.
        let users: BTreeMap<_, _> = facts.iter().map(|(at, change)| (change.user_id(), *at)).collect();
        for (user_id, at) in users {
            store::to_device::settle_ended(tx, user_id, at).await?;
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
