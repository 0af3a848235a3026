//! Events that are known without a place in their room: what others cite, and the state before a gap.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#pdus>

use std::{collections::BTreeMap, sync::Arc};

use ruma::{EventId, RoomId};

use super::rooms::Rooms;
use crate::{
    error::{Error, Result},
    event::{Pdu, Standing},
    ground::position::{EventKey, Order},
    store::{self, event::NewRow},
};

impl Rooms {
    /// Keeps events of a room of this server whose signatures and hashes have been verified and whose place in the room is
    /// not known. Those that are known already stay as they are.
    pub async fn keep_outliers(&self, room_id: &RoomId, pdus: &[Arc<Pdu>]) -> Result<()> {
        if let Some(pdu) = pdus.iter().find(|pdu| pdu.room_id() != room_id) {
            return Err(Error::bad_json(format!("the event {} is of another room", pdu.event_id())));
        }
        let mut new: BTreeMap<&EventId, &Pdu> = pdus.iter().map(|pdu| (pdu.event_id(), &**pdu)).collect();
        let wanted: Vec<&EventId> = new.keys().copied().collect();
        for (known, _) in store::event::keys(&mut self.0.db.read().await?, &wanted).await? {
            new.remove(&*known);
        }
        if new.is_empty() {
            return Ok(());
        }
        let mut tx = self.0.db.begin().await?;
        let highest = store::history::take_keys(&mut tx, i64::try_from(new.len()).unwrap_or(i64::MAX)).await?;
        let rows: Vec<NewRow<'_>> =
            (0_i64..).zip(new.into_values()).map(|(steps, pdu)| outlier(EventKey(highest.0 - steps), pdu)).collect();
        store::event::insert_unless_known(&mut tx, &rows).await?;
        tx.commit().await?;
        // What is state before a gap is shown, and may have been redacted before it was fetched.
        self.try_to_settle_redactions(&wanted).await;
        Ok(())
    }
}

fn outlier(key: EventKey, pdu: &Pdu) -> NewRow<'_> {
    NewRow {
        key,
        order: Order::START,
        missing: &[],
        pdu,
        standing: Standing::Outlier,
        fork: None,
        notifies: false,
        thread_root: None,
        transaction: None,
        replaces: None,
        moment: None,
    }
}
