//! An event of a room's past, before it has a place here.

use std::sync::Arc;

use ruma::OwnedEventId;

use crate::{
    event::{Pdu, Standing, StateChange},
    room::{State, graph::early::Redaction},
};

/// An event of a chunk with what was found out about it.
pub(super) struct Fetched {
    pub(super) pdu: Arc<Pdu>,
    pub(super) standing: Standing,
    /// The state before it.
    pub(super) before: State,
    pub(super) thread_root: Option<OwnedEventId>,
    pub(super) replaces: Option<Arc<Pdu>>,
    pub(super) redaction: Redaction,
}

impl Fetched {
    /// What it changes in the room's state.
    pub(super) fn change(&self) -> Option<StateChange> {
        let state_key = self.pdu.state_key().filter(|_| self.standing != Standing::Rejected)?;
        let (kind, state_key) = (self.pdu.kind().to_string(), state_key.to_owned());
        Some(StateChange { kind, state_key, event: Some(Arc::clone(&self.pdu)) })
    }
}
