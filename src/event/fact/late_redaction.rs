//! Redactions that take effect later than they arrive: their target was not known, or they came with fetched history.
//!
//! A redaction that the log takes in as it happens needs no fact of its own: its entry says what it redacts. These have
//! no entry, or had one before their target was known, and yet every node has to forget what they redact.
//!
//! <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>

use std::sync::Arc;

use ruma::{OwnedEventId, RoomId};

use super::kind::{Audience, Kind};
use crate::{event::Pdu, ground::position::Order};

/// An event that is redacted from now on.
#[derive(Clone, Debug)]
pub struct LateRedaction {
    /// The event as the redaction leaves it, with the redaction.
    pub redacted: Arc<Pdu>,
    /// Its place in its room. [`Order::START`] of an outlier.
    pub order: Order,
}

impl Kind for LateRedaction {
    type Fact = Self;
    /// The redacted event.
    type Entry = OwnedEventId;

    fn of(fact: &Self) -> Self {
        fact.clone()
    }

    fn entry(&self) -> Self::Entry {
        self.redacted.event_id().to_owned()
    }

    /// Whoever remembers something of the room has to look: less may be unread there.
    fn room_id(&self) -> Option<&RoomId> {
        Some(self.redacted.room_id())
    }

    /// `/sync` has nothing to say of it. What is unread comes with the room's next news, as always.
    fn audience(&self) -> Audience<'_> {
        Audience::Nobody
    }
}
