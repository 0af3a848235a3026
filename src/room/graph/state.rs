//! A room's state at one moment: for each type and state key the event that holds it.
//!
//! The map is persistent: a copy shares everything with the original until one of them changes, so every
//! pending event and every reader can hold the state that it needs.
//!
//! <https://spec.matrix.org/v1.19/#room-state> and, for its use, <https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution>
//!
//! Two numbers are kept with it, how many keys there are and about how many bytes they take, because counting would
//! mean going through all of it. Every change goes through [`State::set`], which alone keeps them right.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rpds::HashTrieSetSync;
use ruma::{
    EventId, UserId,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};
use serde::Deserialize;

use super::{
    packed::{Packed, Pattern},
    trie::Trie,
};
use crate::event::{Pdu, StateChange};

const MEMBER: &str = "m.room.member";
/// In a room with so many memberships, the events of the further ones are packed.
const PACKED_FROM: usize = 256;
/// So many events may lie unpacked because somebody has looked at them.
const UNPACKED: usize = 1_024;
/// What an unpacked event takes, about.
const UNPACKED_BYTES: usize = 2_000;
/// What a key takes beside its text and its event.
const KEY_BYTES: usize = 130;

/// The state of a room at one moment. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct State {
    kinds: Trie<Keys>,
    len: usize,
    /// How many bytes its events and keys take, about.
    bytes: usize,
    /// The types and state keys whose events are redacted, none of which are packed. They are few, and a redaction that
    /// is itself redacted concerns no others: rooms may be large, and everybody may redact what they have said.
    redacted: HashTrieSetSync<(Box<str>, Box<str>)>,
    /// By which memberships are packed, in a large room. Copies of the state share it, so that what one of them unpacks
    /// is counted for all.
    pattern: Option<Arc<Pattern>>,
}

/// What holds the state keys of one type.
type Keys = Trie<HeldEvent>;

/// An event that is part of the state.
#[derive(Clone, Debug)]
enum HeldEvent {
    Whole(Arc<Pdu>),
    Packed(Arc<Packed>),
}

impl HeldEvent {
    /// The event, unpacked and remembered.
    fn get(&self) -> &Arc<Pdu> {
        match self {
            Self::Whole(pdu) => pdu,
            Self::Packed(packed) => packed.get(),
        }
    }

    /// The event, which nobody is expected to ask for again soon.
    fn pdu(&self) -> Arc<Pdu> {
        match self {
            Self::Whole(pdu) => Arc::clone(pdu),
            Self::Packed(packed) => packed.pdu(),
        }
    }

    fn membership(&self) -> MembershipState {
        match self {
            Self::Whole(pdu) => membership_of(pdu),
            Self::Packed(packed) => packed.membership(),
        }
    }

    /// By identifier: the same event may be whole on one side and packed on the other, or redacted on one.
    fn is_same_event(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => one.event_id() == other.event_id(),
            (Self::Packed(one), Self::Packed(other)) => one.is_same_event(other),
            (Self::Whole(pdu), Self::Packed(packed)) | (Self::Packed(packed), Self::Whole(pdu)) => {
                *pdu.event_id() == *packed.event_id()
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Whole(pdu) => pdu.bytes(),
            Self::Packed(packed) => packed.bytes(),
        }
    }
}

/// Somebody with a membership of the room. Asking for the membership unpacks nothing.
pub struct Member<'a> {
    pub user_id: &'a UserId,
    held: &'a HeldEvent,
}

impl Member<'_> {
    pub fn membership(&self) -> MembershipState {
        self.held.membership()
    }

    pub fn has_joined(&self) -> bool {
        self.membership() == MembershipState::Join
    }

    /// The depth of the membership event.
    pub fn depth(&self) -> i64 {
        match self.held {
            HeldEvent::Whole(pdu) => pdu.depth(),
            HeldEvent::Packed(packed) => packed.depth(),
        }
    }

    /// The membership event.
    pub fn pdu(&self) -> Arc<Pdu> {
        self.held.pdu()
    }
}

impl State {
    /// The event at a type and state key.
    pub fn get(&self, kind: &str, state_key: &str) -> Option<&Arc<Pdu>> {
        Some(self.kinds.get(kind)?.get(state_key)?.get())
    }

    /// The event at a type and state key, which nobody is expected to ask for again soon.
    pub(super) fn pdu(&self, kind: &str, state_key: &str) -> Option<Arc<Pdu>> {
        Some(self.kinds.get(kind)?.get(state_key)?.pdu())
    }

    /// Whether an event holds its key.
    pub fn holds(&self, kind: &str, state_key: &str, event_id: &EventId) -> bool {
        match self.kinds.get(kind).and_then(|keys| keys.get(state_key)) {
            Some(HeldEvent::Whole(pdu)) => pdu.event_id() == event_id,
            Some(HeldEvent::Packed(packed)) => *packed.event_id() == *event_id,
            None => false,
        }
    }

    /// The event of a type, by ruma's name for that, with an empty state key.
    pub fn find(&self, kind: &StateEventType) -> Option<&Arc<Pdu>> {
        self.get(&kind.to_string(), "")
    }

    /// The content of the event of a type with an empty state key, where it can be read as `T`.
    pub fn content<'a, T: Deserialize<'a>>(&'a self, kind: &StateEventType) -> Option<T> {
        self.find(kind)?.content_as().ok()
    }

    /// Every event of a type, by state key.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = (&str, &Arc<Pdu>)> {
        self.kinds.get(kind).into_iter().flat_map(|keys| keys.iter().map(|(key, held)| (key, held.get())))
    }

    /// Every event, in no particular order. Packed ones are unpacked one at a time and not remembered.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Pdu>> {
        self.kinds.iter().flat_map(|(_, keys)| keys.iter().map(|(_, held)| held.pdu()))
    }

    /// The type and state key of every event.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.kinds.iter().flat_map(|(kind, keys)| keys.iter().map(move |(key, _)| (kind, key)))
    }

    /// Every event but the memberships, of which there may be many.
    pub fn iter_without_members(&self) -> impl Iterator<Item = Arc<Pdu>> {
        let others = self.kinds.iter().filter(|(kind, _)| *kind != MEMBER);
        others.flat_map(|(_, keys)| keys.iter().map(|(_, held)| held.pdu()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it takes, about, if it shares nothing with another.
    pub fn bytes(&self) -> usize {
        self.bytes + self.pattern.as_ref().map_or(0, |pattern| pattern.unpacked() * UNPACKED_BYTES)
    }

    /// Packs again what somebody has looked at, if that has become much. Called by the log's reader with each event,
    /// and cheap unless [`UNPACKED`] is exceeded.
    pub(in crate::room) fn settle(&mut self) {
        if self.pattern.as_ref().is_none_or(|pattern| pattern.unpacked() <= UNPACKED) {
            return;
        }
        let Some(keys) = self.kinds.get_mut(MEMBER) else { return };
        let forgetting = |(key, held): (&str, &HeldEvent)| match held {
            HeldEvent::Packed(packed) => Some((key.to_owned(), packed.forgetting()?)),
            HeldEvent::Whole(_) => None,
        };
        for (key, packed) in keys.iter().filter_map(forgetting).collect::<Vec<_>>() {
            keys.insert(&key, HeldEvent::Packed(Arc::new(packed)));
        }
    }

    /// Puts a state event at its key. A message, which has no state key, would take the place of the state at the empty
    /// key: callers don't hand one over.
    pub fn insert(&mut self, pdu: Arc<Pdu>) {
        let kind = pdu.kind().to_string();
        let state_key = pdu.state_key().unwrap_or_default().to_owned();
        self.set(&kind, &state_key, Some(pdu));
    }

    /// Applies a change and returns what was there before.
    pub fn apply(&mut self, change: &StateChange) -> Option<Arc<Pdu>> {
        self.set(&change.kind, &change.state_key, change.event.clone())
    }

    /// Where there is no event, the key is taken out. Types without keys are not kept.
    fn set(&mut self, kind: &str, state_key: &str, event: Option<Arc<Pdu>>) -> Option<Arc<Pdu>> {
        let bytes = |held: &HeldEvent| KEY_BYTES + state_key.len() + held.bytes();
        self.note_redacted(kind, state_key, event.as_ref());
        let old = if let Some(pdu) = event {
            let held = self.hold(kind, pdu);
            self.bytes += bytes(&held);
            self.len += 1;
            if self.kinds.get(kind).is_none() {
                self.kinds.insert(kind, Keys::default());
            }
            self.kinds.get_mut(kind)?.insert(state_key, held)?
        } else {
            self.kinds.get(kind)?.get(state_key)?;
            let keys = self.kinds.get_mut(kind)?;
            let old = keys.remove(state_key)?;
            if keys.is_empty() {
                self.kinds.remove(kind);
            }
            old
        };
        self.bytes = self.bytes.saturating_sub(bytes(&old));
        self.len -= 1;
        Some(old.pdu())
    }

    /// Notes whether the event that is about to be put at a key is redacted.
    fn note_redacted(&mut self, kind: &str, state_key: &str, event: Option<&Arc<Pdu>>) {
        let old = self.kinds.get(kind).and_then(|keys| keys.get(state_key));
        let was_redacted = matches!(old, Some(HeldEvent::Whole(pdu)) if pdu.redacted_because().is_some());
        match (was_redacted, event.is_some_and(|pdu| pdu.redacted_because().is_some())) {
            (false, true) => self.redacted.insert_mut((kind.into(), state_key.into())),
            (true, false) => drop(self.redacted.remove_mut(&(kind.into(), state_key.into()))),
            _ => {}
        }
    }

    /// The event as it is kept here.
    fn hold(&mut self, kind: &str, pdu: Arc<Pdu>) -> HeldEvent {
        if kind != MEMBER {
            return HeldEvent::Whole(pdu);
        }
        if self.pattern.is_none() && self.kinds.get(MEMBER).is_some_and(|members| members.len() >= PACKED_FROM) {
            self.pattern = Some(Arc::new(Pattern::new(&pdu)));
        }
        let packed = self.pattern.as_ref().and_then(|pattern| pattern.pack(&pdu, &membership_of(&pdu)));
        packed.map_or(HeldEvent::Whole(pdu), |packed| HeldEvent::Packed(Arc::new(packed)))
    }

    /// Replaces an event by its redacted form, if it is still part of the state. Of a redaction that is itself redacted
    /// no more is kept with what it had redacted, either.
    pub fn redact(&mut self, redacted: &Arc<Pdu>) {
        let own = redacted.state_key().map(|state_key| (redacted.kind().to_string().into(), state_key.into()));
        let mut keys: Vec<(Box<str>, Box<str>)> = own.into_iter().collect();
        if *redacted.kind() == TimelineEventType::RoomRedaction {
            keys.extend(self.redacted.iter().cloned());
        }
        for (kind, state_key) in keys {
            if let Some(pdu) = self.get(&kind, &state_key).and_then(|pdu| pdu.after_redaction_of(redacted)) {
                self.set(&kind, &state_key, Some(pdu));
            }
        }
    }

    /// What leads from this state to `other`. Looks only at what the two do not share. In no particular order. A change
    /// without an event is a key that `other` lacks. What costs is what they do not share, not their size.
    pub fn changes_to(&self, other: &Self) -> Vec<StateChange> {
        let mut changes = Vec::new();
        let nothing = Keys::default();
        self.kinds.compare(&other.kinds, &mut |kind: &str, (mine, theirs): (Option<&Keys>, Option<&Keys>)| {
            let (mine, theirs) = (mine.unwrap_or(&nothing), theirs.unwrap_or(&nothing));
            mine.compare(theirs, &mut |state_key: &str, (mine, theirs): (Option<&HeldEvent>, Option<&HeldEvent>)| {
                if mine.zip(theirs).is_none_or(|(mine, theirs)| !mine.is_same_event(theirs)) {
                    let (kind, state_key) = (kind.to_owned(), state_key.to_owned());
                    changes.push(StateChange { kind, state_key, event: theirs.map(HeldEvent::pdu) });
                }
            });
        });
        changes
    }

    /// The membership of a user; `leave` for somebody who was never here.
    pub fn membership(&self, user_id: &UserId) -> MembershipState {
        self.find_membership(user_id.as_str()).unwrap_or(MembershipState::Leave)
    }

    /// The membership at a state key, if there is one.
    pub fn find_membership(&self, state_key: &str) -> Option<MembershipState> {
        Some(self.kinds.get(MEMBER)?.get(state_key)?.membership())
    }

    /// The membership event of a user.
    pub fn member(&self, user_id: &UserId) -> Option<&Arc<Pdu>> {
        self.get(MEMBER, user_id.as_str())
    }

    /// Everybody with a membership. Also those who have left or are banned. A membership at a key that is no user's
    /// identifier is passed over.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let members = self.kinds.get(MEMBER).into_iter().flat_map(Trie::iter);
        members.filter_map(|(key, held)| Some(Member { user_id: <&UserId>::try_from(key).ok()?, held }))
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

/// The membership that a membership event gives. `leave` where it can't be read: nobody is let in by a membership that
/// nobody understands.
pub fn membership_of(pdu: &Arc<Pdu>) -> MembershipState {
    #[derive(Deserialize)]
    struct MembershipValue {
        membership: MembershipState,
    }
    pdu.content_as::<MembershipValue>().map_or(MembershipState::Leave, |content| content.membership)
}

/// The visibility that an event gives to the history. One that is not understood means `shared`, as does none.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>
pub fn visibility_of(pdu: Option<&Pdu>) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct VisibilityContent {
        history_visibility: HistoryVisibility,
    }
    let visibility =
        pdu.and_then(|pdu| pdu.content_as::<VisibilityContent>().ok()).map(|content| content.history_visibility);
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
