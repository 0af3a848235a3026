//! Messages to devices, in `to_device_messages`, and the requests that they come from, in `to_device_requests`.

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{NewToDevice, ToDevice, ToDeviceRequest},
    ground::position::Position,
    store::{self, to_device::MessageRow},
};

/// What the judge lets through of a batch's messages. What is for a device that is not there, or whose inbox is full, is
/// for nobody.
#[derive(Debug, Default)]
pub(in crate::log) struct Deliveries {
    /// For each fact with messages, in the order of the batch, and each of its messages: the sum along the inbox with it.
    /// None where it is left out.
    totals: Vec<Vec<Option<i64>>>,
    /// The devices whose inboxes were full, once for each message that was left out for it.
    full: Vec<(OwnedUserId, OwnedDeviceId)>,
}

impl Deliveries {
    /// What becomes of the messages of the batch's next fact.
    pub(in crate::log) fn push(&mut self, totals: Vec<Option<i64>>) {
        self.totals.push(totals);
    }

    /// A message was left out because so much waits for its device.
    pub(in crate::log) fn note_full(&mut self, user_id: &UserId, device_id: &DeviceId) {
        self.full.push((user_id.to_owned(), device_id.to_owned()));
    }

    /// The devices that were left out because so much waits for them.
    pub(in crate::log) fn full(&self) -> &[(OwnedUserId, OwnedDeviceId)] {
        &self.full
    }

    /// For each fact with messages, in the order of the batch, what becomes of them.
    pub(in crate::log) fn each(&self) -> impl Iterator<Item = &[Option<i64>]> {
        self.totals.iter().map(Vec::as_slice)
    }
}

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

/// What readers are handed of messages, on this node and by the batch's row on others: for which devices they are, of
/// those that get them. Nobody is to remember anything of others.
pub(in crate::log) fn news(new: &NewToDevice, totals: &[Option<i64>]) -> ToDevice {
    let delivered = new.messages.iter().zip(totals).filter(|(_, total)| total.is_some());
    let device_ids = delivered.map(|((device_id, _), _)| device_id.clone()).collect();
    ToDevice { user_id: new.user_id.clone(), device_ids }
}

/// Writes the messages that are delivered, and by which requests they were sent.
pub(in crate::log) async fn write(
    tx: &mut Tx,
    facts: &[(Position, &NewToDevice)],
    requests: &[(Position, &ToDeviceRequest)],
    deliveries: &Deliveries,
) -> DbResult<()> {
    let mut rows = Vec::new();
    for ((at, new), totals) in facts.iter().zip(deliveries.each()) {
        for ((device_id, content, size), total) in new.sizes().zip(totals) {
            let Some(total) = *total else { continue };
            rows.push(MessageRow {
                user_id: &new.user_id,
                device_id,
                position: *at,
                sender: &new.sender,
                kind: &new.kind,
                content: content.get(),
                size,
                total,
            });
        }
    }
    if !rows.is_empty() {
        store::to_device::insert(tx, &rows).await?;
    }
    if requests.is_empty() { Ok(()) } else { store::to_device::insert_requests(tx, requests).await }
}
