//! Events on their way out, and whom they are for.

use std::sync::Arc;

use ruma::{OwnedServerName, ServerName};

use super::queue::QueuedEvent;
use crate::{event::Pdu, ground::position::Position, room::Servers};

/// An event and whom it is for.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// The place of the entry by which it is to be sent. It may be behind the event's own.
    pub(super) entry_at: Position,
    /// The event's own place.
    pub(super) at: Position,
    pub(super) pdu: Arc<Pdu>,
    /// Those that were in the room.
    pub(super) servers: Arc<Servers>,
    /// A server whose user it takes out of the room, or from its door, if it does.
    pub(super) departing: Option<OwnedServerName>,
    /// Those that have it: this server, and who has handed it over.
    pub(super) known_to: Vec<OwnedServerName>,
}

impl Outgoing {
    /// Whom it is sent to, each once.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &OwnedServerName> {
        let departing = self.departing.iter().filter(|server| !self.servers.contains_key(*server));
        self.servers.keys().chain(departing).filter(|server| !self.known_to.contains(server))
    }

    /// The event as it is queued for one of them.
    pub(super) fn event_for(&self, server: &ServerName) -> QueuedEvent {
        let departs = self.departing.as_deref() == Some(server);
        QueuedEvent { at: self.at, pdu: Arc::clone(&self.pdu), departs }
    }
}
