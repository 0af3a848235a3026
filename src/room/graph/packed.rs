//! Membership events in memory, packed: a large room has tens of thousands of them, and hardly one is ever looked at.
//!
//! Such events differ in little but a few names, numbers and hashes. So the JSON is cut at its quotation marks, and
//! each piece that another membership event of the room has is given by its number there; hashes and signatures, which
//! are base64, are kept as the bytes that they stand for. What comes out when it is unpacked is the same text, byte for
//! byte: whatever would not be is not packed.
//!
//! Whoever looks at an event unpacks it, and it stays unpacked until the room's memory is tidied
//! ([`Packed::forgetting`]); whoever looks at all of them ([`Packed::pdu`]) leaves nothing behind.
//!
//! An event that is packed never changes; its redacted form takes its place as another one, which is kept whole.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma::{OwnedEventId, events::room::member::MembershipState, room_version_rules::RoomVersionRules};

use crate::event::Pdu;

/// How many bytes a packed event takes beside the packed text. The struct itself, the allocator's share and the slot in
/// the state.
const BESIDE: usize = 128;

/// A membership event of a room, by which others are packed.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Its JSON, cut at the quotation marks.
    pieces: Vec<Box<str>>,
    /// Where each piece stands first.
    places: HashMap<Box<str>, usize>,
    /// An event under other rules is not packed by this.
    rules: &'static RoomVersionRules,
    /// How many events have been unpacked and are remembered.
    unpacked: AtomicUsize,
}

/// A packed event.
#[derive(Debug)]
pub(super) struct Packed {
    /// Without the dollar sign and base64: a SHA-256 hash, as in every room version since 4.
    event_id: [u8; 32],
    /// The pieces of its JSON in order, each as an [`Op`] with its operands.
    bytes: Arc<[u8]>,
    /// These two are kept beside it, because they are asked of many events at once.
    depth: i64,
    membership: PackedMembership,
    /// Shared by all packed events of a room, and alive as long as one of them.
    pattern: Arc<Pattern>,
    /// Whether the pattern counts the unpacked form.
    is_counted: AtomicBool,
    /// As it is once somebody has looked at it.
    unpacked: OnceLock<Arc<Pdu>>,
}

/// The memberships that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PackedMembership {
    Join,
    Invite,
    Leave,
    Ban,
    Knock,
}

/// How a piece is given. Each is followed by its numbers and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    /// Pieces of the pattern: the first one's number, and how many.
    Known,
    /// A text: its length and itself.
    Text,
    /// An earlier text: its number.
    Again,
    /// 32 bytes in base64: a hash.
    Hash,
    /// 64 bytes in base64: a signature.
    Signature,
    /// 32 bytes in base64 for URLs behind a dollar sign: an event's identifier.
    EventId,
}

impl Op {
    /// Only in memory, so the numbers may change with any release.
    fn of(byte: u8) -> Option<Self> {
        [Self::Known, Self::Text, Self::Again, Self::Hash, Self::Signature, Self::EventId]
            .into_iter()
            .find(|op| *op as u8 == byte)
    }
}

impl Pattern {
    /// Any membership event of the room will do: which one only decides how much is saved.
    pub(super) fn new(event: &Pdu) -> Self {
        let pieces: Vec<Box<str>> = event.json().get().split('"').map(Box::from).collect();
        let mut places = HashMap::new();
        for (place, piece) in pieces.iter().enumerate() {
            places.entry(piece.clone()).or_insert(place);
        }
        Self { pieces, places, rules: event.rules(), unpacked: AtomicUsize::new(0) }
    }

    /// How many of the events that are packed by it have been looked at, and take their whole space.
    pub(super) fn unpacked(&self) -> usize {
        self.unpacked.load(Ordering::Relaxed)
    }

    /// Packs an event that gives its user this membership. None where it would not come out again as it is.
    pub(super) fn pack(self: &Arc<Self>, event: &Pdu, membership: &MembershipState) -> Option<Packed> {
        if event.redacted_because().is_some() || !std::ptr::eq(event.rules(), self.rules) {
            return None;
        }
        let event_id = bytes_of_id(event.event_id().as_str())?;
        let membership = PackedMembership::of(membership)?;
        let bytes: Arc<[u8]> = self.pack_text(event.json().get()).into();
        // Tried rather than argued: with one byte changed, it would be another event.
        if self.unpack_text(&bytes)? != event.json().get() {
            return None;
        }
        let (pattern, is_counted, unpacked) = (Arc::clone(self), AtomicBool::new(false), OnceLock::new());
        Some(Packed { event_id, bytes, depth: event.depth(), membership, pattern, is_counted, unpacked })
    }

    /// Pieces that follow each other in the pattern become one run.
    fn pack_text(&self, text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(320);
        // By what they say: whoever writes thousands of different ones holds up nobody.
        let mut texts: HashMap<&str, usize> = HashMap::new();
        // The first piece and how many.
        let mut run: Option<(usize, usize)> = None;
        for piece in text.split('"') {
            if let Some((first, count)) = run
                && self.pieces.get(first + count).is_some_and(|next| **next == *piece)
            {
                run = Some((first, count + 1));
                continue;
            }
            end_run(&mut out, run.take());
            if let Some(place) = self.places.get(piece) {
                run = Some((*place, 1));
            } else if let Some((op, bytes)) = bytes_of(piece) {
                out.push(op as u8);
                out.extend(bytes);
            } else if let Some(number) = texts.get(piece) {
                out.push(Op::Again as u8);
                push_number(&mut out, *number);
            } else {
                out.push(Op::Text as u8);
                push_number(&mut out, piece.len());
                out.extend(piece.as_bytes());
                let number = texts.len();
                texts.insert(piece, number);
            }
        }
        end_run(&mut out, run);
        out
    }

    /// None where the bytes are not what [`Self::pack_text`] writes.
    fn unpack_text(&self, mut bytes: &[u8]) -> Option<String> {
        let mut pieces: Vec<String> = Vec::with_capacity(self.pieces.len());
        let mut texts: Vec<&str> = Vec::new();
        while let Some((op, rest)) = bytes.split_first() {
            bytes = rest;
            match Op::of(*op)? {
                Op::Known => {
                    let (first, count) = (take_number(&mut bytes)?, take_number(&mut bytes)?);
                    pieces.extend(self.pieces.get(first..first + count)?.iter().map(|piece| (**piece).to_owned()));
                }
                Op::Text => {
                    let length = take_number(&mut bytes)?;
                    let text = std::str::from_utf8(take(&mut bytes, length)?).ok()?;
                    texts.push(text);
                    pieces.push(text.to_owned());
                }
                Op::Again => pieces.push((*texts.get(take_number(&mut bytes)?)?).to_owned()),
                Op::Hash => pieces.push(STANDARD_NO_PAD.encode(take(&mut bytes, 32)?)),
                Op::Signature => pieces.push(STANDARD_NO_PAD.encode(take(&mut bytes, 64)?)),
                Op::EventId => pieces.push(id_of_bytes(take(&mut bytes, 32)?)),
            }
        }
        Some(pieces.join("\""))
    }
}

/// One that is replaced by another, as whoever changes their name replaces theirs, is counted no longer.
impl Drop for Packed {
    fn drop(&mut self) {
        self.uncount();
    }
}

impl Packed {
    /// The event, remembered from now on.
    pub(super) fn get(&self) -> &Arc<Pdu> {
        self.unpacked.get_or_init(|| {
            self.is_counted.store(true, Ordering::Relaxed);
            self.pattern.unpacked.fetch_add(1, Ordering::Relaxed);
            self.unpack()
        })
    }

    /// Its unpacked form is counted by the pattern no longer.
    fn uncount(&self) {
        if self.is_counted.swap(false, Ordering::Relaxed) {
            self.pattern.unpacked.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The event, and nothing is remembered. For whoever goes through all members: remembering each would undo the
    /// packing.
    pub(super) fn pdu(&self) -> Arc<Pdu> {
        self.unpacked.get().map_or_else(|| self.unpack(), Arc::clone)
    }

    fn unpack(&self) -> Arc<Pdu> {
        let json = self.pattern.unpack_text(&self.bytes).expect("what was packed can be unpacked");
        Arc::new(Pdu::from_stored(self.event_id(), json, self.pattern.rules).expect("what was an event is one"))
    }

    pub(super) fn event_id(&self) -> OwnedEventId {
        OwnedEventId::try_from(id_of_bytes(&self.event_id)).expect("what was an identifier is one")
    }

    pub(super) fn is_same_event(&self, other: &Self) -> bool {
        self.event_id == other.event_id
    }

    pub(super) fn membership(&self) -> MembershipState {
        match self.membership {
            PackedMembership::Join => MembershipState::Join,
            PackedMembership::Invite => MembershipState::Invite,
            PackedMembership::Leave => MembershipState::Leave,
            PackedMembership::Ban => MembershipState::Ban,
            PackedMembership::Knock => MembershipState::Knock,
        }
    }

    pub(super) fn depth(&self) -> i64 {
        self.depth
    }

    /// How many bytes it takes, about. Of the packed form alone; what is unpacked is counted by the pattern.
    pub(super) fn bytes(&self) -> usize {
        BESIDE + self.bytes.len()
    }

    /// This event without its unpacked form, if that is remembered. None if nothing is remembered. Others may still
    /// hold the unpacked event, which lives as long as they do.
    pub(super) fn forgetting(&self) -> Option<Self> {
        self.unpacked.get()?;
        self.uncount();
        Some(Self {
            event_id: self.event_id,
            bytes: Arc::clone(&self.bytes),
            depth: self.depth,
            membership: self.membership,
            pattern: Arc::clone(&self.pattern),
            is_counted: AtomicBool::new(false),
            unpacked: OnceLock::new(),
        })
    }
}

impl PackedMembership {
    fn of(membership: &MembershipState) -> Option<Self> {
        Some(match membership {
            MembershipState::Join => Self::Join,
            MembershipState::Invite => Self::Invite,
            MembershipState::Leave => Self::Leave,
            MembershipState::Ban => Self::Ban,
            MembershipState::Knock => Self::Knock,
            _ => return None,
        })
    }
}

/// What a piece in base64 stands for, if it is the one way to write that. 43 characters are 32 bytes without padding,
/// 86 are 64, and 44 an event's identifier with its sign.
fn bytes_of(piece: &str) -> Option<(Op, Vec<u8>)> {
    match piece.len() {
        43 | 86 => {
            let bytes = STANDARD_NO_PAD.decode(piece).ok()?;
            let op = if piece.len() == 43 { Op::Hash } else { Op::Signature };
            Some((op, bytes))
        }
        44 => bytes_of_id(piece).map(|bytes| (Op::EventId, bytes.to_vec())),
        _ => None,
    }
}

fn bytes_of_id(event_id: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(event_id.strip_prefix('$')?).ok()?.try_into().ok()
}

fn id_of_bytes(bytes: &[u8]) -> String {
    let mut id = String::with_capacity(44);
    id.push('$');
    URL_SAFE_NO_PAD.encode_string(bytes, &mut id);
    id
}

fn end_run(out: &mut Vec<u8>, run: Option<(usize, usize)>) {
    if let Some((first, count)) = run {
        out.push(Op::Known as u8);
        push_number(out, first);
        push_number(out, count);
    }
}

/// Seven bits a byte, the last one without the eighth.
fn push_number(out: &mut Vec<u8>, mut number: usize) {
    let low = |number: usize| u8::try_from(number & 0x7f).unwrap_or_default();
    while number > 0x7f {
        out.push(low(number) | 0x80);
        number >>= 7;
    }
    out.push(low(number));
}

/// None where the bytes end before the number does.
fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::RoomVersionId;
    use serde_json::json;

    use super::*;
    use crate::{ground::room_version::rules, room::testing::pdu_of};

    fn member(user: &str, content: &serde_json::Value) -> Arc<Pdu> {
        Arc::new(pdu_of(&json!({
            "type": "m.room.member",
            "sender": user,
            "state_key": user,
            "content": content,
            "prev_events": ["$dGhpcnR5LXR3byBieXRlcyB0byBuYW1lIGEgZXZlbnQ"],
            "hashes": { "sha256": "dGhpcnR5LXR3byBieXRlcyB0aGF0IGFyZSBhIGhhc2g" },
        })))
    }

    #[test]
    fn what_is_packed_takes_little_and_comes_out_as_it_was() {
        let alice = member("@alice:example.org", &json!({ "membership": "join", "displayname": "Alice" }));
        let bob = member("@bob:example.org", &json!({ "membership": "leave", "displayname": "Bob" }));
        let pattern = Arc::new(Pattern::new(&alice));
        let packed = pattern.pack(&bob, &MembershipState::Leave).unwrap();
        assert!(packed.bytes.len() * 2 < bob.json().get().len(), "{} bytes", packed.bytes.len());
        assert_eq!(packed.pdu().json().get(), bob.json().get());
        assert_eq!((packed.membership(), packed.depth()), (MembershipState::Leave, bob.depth()));
        assert_eq!(packed.event_id(), bob.event_id());
        assert_eq!(pattern.unpacked(), 0);
        assert_eq!(packed.get().event_id(), bob.event_id());
        assert_eq!(pattern.unpacked(), 1);
        assert_eq!(packed.forgetting().unwrap().pdu().json().get(), bob.json().get());
        assert_eq!(pattern.unpacked(), 0);
    }

    #[test]
    fn whoever_is_replaced_is_not_counted_any_more() {
        let alice = member("@alice:example.org", &json!({ "membership": "join", "displayname": "Alice" }));
        let pattern = Arc::new(Pattern::new(&alice));
        let packed = pattern.pack(&alice, &MembershipState::Join).unwrap();
        packed.get();
        assert_eq!(pattern.unpacked(), 1);
        drop(packed);
        assert_eq!(pattern.unpacked(), 0);
    }

    #[test]
    fn what_is_odd_is_not_packed() {
        let alice = member("@alice:example.org", &json!({ "membership": "join" }));
        let pattern = Arc::new(Pattern::new(&alice));
        assert!(pattern.pack(&alice, &MembershipState::from("lurk")).is_none());
        let redacted = Arc::new(alice.redacted(Arc::clone(&alice)).unwrap());
        assert!(pattern.pack(&redacted, &MembershipState::Join).is_none(), "what redacted it would be lost");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_text_comes_out_as_it_was(
            pieces in prop::collection::vec(prop_oneof![
                "[a-z:,{}\\\\é]{0,6}",
                "[A-Za-z0-9+/]{43}",
                "[A-Za-z0-9+/]{86}",
                "\\$[A-Za-z0-9_-]{43}",
                "\\PC{120,200}",
                Just("membership".to_owned()),
                Just("m.room.member".to_owned()),
            ], 0..40),
        ) {
            let pattern = Pattern::new(&member("@alice:example.org", &json!({ "membership": "join" })));
            let text = pieces.join("\"");
            assert_eq!(pattern.unpack_text(&pattern.pack_text(&text)), Some(text));
        }
    }

    #[test]
    fn an_event_of_other_rules_is_not_packed() {
        let alice = member("@alice:example.org", &json!({ "membership": "join" }));
        let mut pattern = Pattern::new(&alice);
        pattern.rules = rules(&RoomVersionId::V12).unwrap();
        assert!(Arc::new(pattern).pack(&alice, &MembershipState::Join).is_none());
    }
}
