//! Messages to devices, in `to_device_messages`, and the requests that they come from, in `to_device_requests`.

use ruma::{OwnedDeviceId, OwnedUserId};

use super::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{Kind, NewToDevice, ToDevice, ToDeviceRequest},
    ground::position::Position,
    store::{
        self,
        to_device::{Inboxes, MessageRow},
    },
};

impl Rows for ToDevice {
    /// Messages go on the sums that run along inboxes, of which the judge knows: [`write`] does it.
    async fn write(_tx: &mut Tx, _facts: &[(Position, &NewToDevice)]) -> DbResult<()> {
        Ok(())
    }

    /// The entry says it all: what waits is read by whom it is for.
    async fn read(
        _conn: &mut Conn,
        entries: Vec<(Position, (OwnedUserId, Vec<OwnedDeviceId>))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        Ok(entries.into_iter().map(|(at, (user_id, device_ids))| (at, Self { user_id, device_ids })).collect())
    }
}

/// What readers are handed of messages: for which devices they are, of those that there are. Nobody is to remember
/// anything of others.
pub(in crate::log) fn news(new: &NewToDevice, inboxes: &Inboxes) -> ToDevice {
    let mut news = ToDevice::of(new);
    let of_user = inboxes.get(&new.user_id);
    news.device_ids.retain(|device_id| of_user.is_some_and(|of_user| of_user.contains_key(device_id)));
    news
}

/// Writes messages for those devices of which there are inboxes, and by which requests they were sent. What is for
/// others is for nobody. `inboxes`: as they stand before the batch.
pub(in crate::log) async fn write(
    tx: &mut Tx,
    facts: &[(Position, &NewToDevice)],
    requests: &[&ToDeviceRequest],
    mut inboxes: Inboxes,
) -> DbResult<()> {
    let mut rows = Vec::new();
    for (at, new) in facts {
        let Some(of_user) = inboxes.get_mut(&new.user_id) else { continue };
        for (device_id, content, size) in new.sizes() {
            let Some(inbox) = of_user.get_mut(device_id) else { continue };
            inbox.newest += size;
            rows.push(MessageRow {
                user_id: &new.user_id,
                device_id,
                position: *at,
                sender: &new.sender,
                kind: &new.kind,
                content: content.get(),
                size,
                total: inbox.newest,
            });
        }
    }
    if !rows.is_empty() {
        store::to_device::insert(tx, &rows).await?;
    }
    if requests.is_empty() { Ok(()) } else { store::to_device::insert_requests(tx, requests).await }
}
