//! Events as ruma's rules see them: as they are, but for the keys of state that belongs to somebody.
//!
//! By ruma's rules nobody writes at a key that begins with `@`, unless it is their own identifier and nothing more.
//! Where `owned_state.rs` judges instead, ruma is shown a key that begins otherwise.

use std::{ops::Deref, sync::Arc};

use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UserId, events::TimelineEventType, state_res::Event};
use serde_json::value::RawValue;

use super::owned_state;
use crate::event::Pdu;

/// What stands in front of a key that ruma's rules are not to judge. No key has it, because no event may.
const COVER: char = '\0';

/// An event, held or borrowed, with whether it was rejected.
#[derive(Clone, Debug)]
pub(super) struct RulesEvent<P> {
    pub(super) pdu: P,
    /// State resolution passes over rejected events.
    rejected: bool,
    /// In place of the event's own.
    state_key: Option<Arc<str>>,
}

impl<P: Deref<Target = Pdu>> RulesEvent<P> {
    /// For the rules alone: `owned_state::check` has the word on whose state it is.
    pub(super) fn alone(pdu: P) -> Self {
        Self::with_key(pdu, false, |_, _| true)
    }

    /// For state resolution, in which nobody but ruma is asked. What owners write is left to the other rules; what
    /// somebody with more power has put in its place is refused, so that where history has forked, and only there, the
    /// owner's word stands. There ruma would have to know the rule.
    pub(super) fn among_others(pdu: P, rejected: bool) -> Self {
        Self::with_key(pdu, rejected, |pdu, owner| pdu.sender() == owner)
    }

    /// `is_covered` is asked only of state that belongs to somebody.
    fn with_key(pdu: P, rejected: bool, is_covered: impl Fn(&Pdu, &UserId) -> bool) -> Self {
        let owner = owned_state::owner(&pdu).ok().flatten();
        let covered = owner.filter(|owner| is_covered(&pdu, owner)).and(pdu.state_key());
        let state_key = covered.map(|key| format!("{COVER}{key}").into());
        Self { pdu, rejected, state_key }
    }

    /// The state key that ruma is shown. None of a message.
    pub(super) fn key(&self) -> Option<&str> {
        self.state_key.as_deref().or_else(|| self.pdu.state_key())
    }
}

impl<P: Deref<Target = Pdu>> Event for RulesEvent<P> {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        Event::event_id(&*self.pdu)
    }

    fn room_id(&self) -> Option<&RoomId> {
        Event::room_id(&*self.pdu)
    }

    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.pdu.origin_server_ts()
    }

    fn event_type(&self) -> &TimelineEventType {
        self.pdu.kind()
    }

    fn content(&self) -> &RawValue {
        self.pdu.content()
    }

    fn state_key(&self) -> Option<&str> {
        self.key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Event::prev_events(&*self.pdu)
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Event::auth_events(&*self.pdu)
    }

    fn redacts(&self) -> Option<&Self::Id> {
        Event::redacts(&*self.pdu)
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}
