//! A room's state at one moment: for each type and state key the event that holds it.
//!
//! The map is persistent: a copy shares everything with the original until one of them changes, so every
//! pending event and every reader can hold the state that it needs.
//!
//! <https://spec.matrix.org/v1.19/#room-state> and, for its use, <https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution>

use std::sync::Arc;

use rpds::HashTrieMapSync;
use ruma::{
    UserId,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};
use serde::Deserialize;

use crate::event::{Pdu, StateChange};

type Keys = HashTrieMapSync<Box<str>, Arc<Pdu>>;

/// The state of a room at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct State(HashTrieMapSync<Box<str>, Keys>);

impl State {
    /// The event at a type and state key.
    pub fn get(&self, kind: &str, state_key: &str) -> Option<&Arc<Pdu>> {
        self.0.get(kind)?.get(state_key)
    }

    /// The same by ruma's name for the type, with an empty state key.
    pub fn find(&self, kind: &StateEventType) -> Option<&Arc<Pdu>> {
        self.get(&kind.to_string(), "")
    }

    /// The content of the event of a type with an empty state key, where it can be read as `T`.
    pub fn content<'a, T: Deserialize<'a>>(&'a self, kind: &StateEventType) -> Option<T> {
        self.find(kind)?.content_as().ok()
    }

    /// Every event of a type, by state key.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = (&str, &Arc<Pdu>)> {
        self.0.get(kind).into_iter().flat_map(|keys| keys.iter().map(|(key, pdu)| (&**key, pdu)))
    }

    /// Every event, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pdu>> {
        self.0.values().flat_map(|keys| keys.values())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.values().map(HashTrieMapSync::size).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a state event at its key.
    pub fn insert(&mut self, pdu: Arc<Pdu>) {
        let kind = pdu.kind().to_string();
        let state_key = pdu.state_key().unwrap_or_default().to_owned();
        self.set(&kind, &state_key, Some(pdu));
    }

    /// Applies a change and tells what was there before.
    pub fn apply(&mut self, change: &StateChange) -> Option<Arc<Pdu>> {
        self.set(&change.kind, &change.state_key, change.event.clone())
    }

    fn set(&mut self, kind: &str, state_key: &str, event: Option<Arc<Pdu>>) -> Option<Arc<Pdu>> {
        let old = self.get(kind, state_key).cloned();
        let keys = self.0.get(kind);
        match event {
            Some(pdu) => {
                let keys = keys.map_or_else(Keys::default, Clone::clone).insert(state_key.into(), pdu);
                self.0.insert_mut(kind.into(), keys);
            }
            None => {
                if let Some(keys) = keys.map(|keys| keys.remove(state_key)) {
                    if keys.is_empty() {
                        self.0.remove_mut(kind);
                    } else {
                        self.0.insert_mut(kind.into(), keys);
                    }
                }
            }
        }
        old
    }

    /// Replaces an event by its redacted form, if it is still part of the state. Of a redaction that is itself redacted
    /// no more is kept with what it had redacted, either.
    pub fn redact(&mut self, redacted: &Arc<Pdu>) {
        let changed: Vec<Arc<Pdu>> = if *redacted.kind() == TimelineEventType::RoomRedaction {
            self.iter().filter_map(|pdu| pdu.after_redaction_of(redacted)).collect()
        } else {
            let key = redacted.state_key().map(|state_key| (redacted.kind().to_string(), state_key));
            let held = key.and_then(|(kind, state_key)| self.get(&kind, state_key));
            held.and_then(|pdu| pdu.after_redaction_of(redacted)).into_iter().collect()
        };
        for pdu in changed {
            self.insert(pdu);
        }
    }

    /// What leads from this state to `other`.
    pub fn changes_to(&self, other: &Self) -> Vec<StateChange> {
        let mut changes = Vec::new();
        for pdu in other.iter() {
            let (kind, state_key) = (pdu.kind().to_string(), pdu.state_key().unwrap_or_default());
            if self.get(&kind, state_key).is_none_or(|mine| mine.event_id() != pdu.event_id()) {
                changes.push(StateChange { kind, state_key: state_key.to_owned(), event: Some(Arc::clone(pdu)) });
            }
        }
        for pdu in self.iter() {
            let (kind, state_key) = (pdu.kind().to_string(), pdu.state_key().unwrap_or_default());
            if other.get(&kind, state_key).is_none() {
                changes.push(StateChange { kind, state_key: state_key.to_owned(), event: None });
            }
        }
        changes
    }

    /// The membership of a user; `leave` for somebody who was never here.
    pub fn membership(&self, user_id: &UserId) -> MembershipState {
        self.member(user_id).map_or(MembershipState::Leave, membership_of)
    }

    /// The membership event of a user.
    pub fn member(&self, user_id: &UserId) -> Option<&Arc<Pdu>> {
        self.get("m.room.member", user_id.as_str())
    }

    /// Everybody with a membership, each with its event.
    pub fn members(&self) -> impl Iterator<Item = (&UserId, &Arc<Pdu>)> {
        self.of_kind("m.room.member").filter_map(|(key, pdu)| Some((<&UserId>::try_from(key).ok()?, pdu)))
    }

    /// Who may read what was said, as the state has it.
    pub fn history_visibility(&self) -> HistoryVisibility {
        visibility_of(self.find(&StateEventType::RoomHistoryVisibility).map(AsRef::as_ref))
    }
}

impl FromIterator<Arc<Pdu>> for State {
    fn from_iter<I: IntoIterator<Item = Arc<Pdu>>>(pdus: I) -> Self {
        let mut state = Self::default();
        for pdu in pdus {
            state.insert(pdu);
        }
        state
    }
}

/// The membership that a membership event gives.
pub fn membership_of(pdu: &Arc<Pdu>) -> MembershipState {
    #[derive(Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    pdu.content_as::<Content>().map_or(MembershipState::Leave, |content| content.membership)
}

/// The visibility that an event gives to the history. One that is not understood means `shared`, as does none.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>
pub fn visibility_of(pdu: Option<&Pdu>) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    let visibility = pdu.and_then(|pdu| pdu.content_as::<Content>().ok()).map(|content| content.history_visibility);
    match visibility {
        Some(
            known @ (HistoryVisibility::Invited
            | HistoryVisibility::Joined
            | HistoryVisibility::Shared
            | HistoryVisibility::WorldReadable),
        ) => known,
        _ => HistoryVisibility::Shared,
    }
}
