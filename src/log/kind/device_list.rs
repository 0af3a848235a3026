//! Changes of devices and keys in `device_list_changes`, every one of them. What has changed is written by whoever
//! changes it.

use super::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{DeviceListChange, DeviceListEntry},
    ground::position::Position,
    store,
};

impl Rows for DeviceListChange {
    async fn write(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<()> {
        let rows: Vec<_> = facts
            .iter()
            .map(|(at, change)| (*at, &*change.user_id, change.device_id.as_deref(), change.seen_by.as_deref()))
            .collect();
        store::device_list::insert(tx, &rows).await
    }

    /// The entry says it all.
    async fn read(_conn: &mut Conn, entries: Vec<(Position, DeviceListEntry)>) -> DbResult<Vec<(Position, Self)>> {
        let change = |DeviceListEntry(user_id, device_id, seen_by)| Self { user_id, device_id, seen_by };
        Ok(entries.into_iter().map(|(at, entry)| (at, change(entry))).collect())
    }
}
