//! Events as they go to other servers.

use std::sync::Arc;

use ruma::OwnedEventId;
use serde_json::value::RawValue;

use crate::event::Pdu;

pub(super) fn json_of(pdus: &[Arc<Pdu>]) -> Vec<Box<RawValue>> {
    pdus.iter().map(|pdu| pdu.json().to_owned()).collect()
}

pub(super) fn ids_of(pdus: &[Arc<Pdu>]) -> Vec<OwnedEventId> {
    pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect()
}
