//! States of large rooms, and what is redacted of them.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde_json::json;

use super::*;
use crate::{ground::random::Random, room::testing::pdu_of};

/// A membership event as servers send it, with all that can't be told shorter.
fn member(number: usize, membership: &str, chance: &Random) -> Arc<Pdu> {
    let (mut hash, mut signature, mut before) = ([0; 32], [0; 64], [0; 32]);
    chance.fill(&mut hash);
    chance.fill(&mut signature);
    chance.fill(&mut before);
    let user = format!("@somebody_{number}:example.org");
    let id = |bytes: &[u8]| format!("${}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes));
    Arc::new(pdu_of(&json!({
        "type": "m.room.member",
        "sender": user,
        "state_key": user,
        "content": { "membership": membership, "displayname": format!("Somebody {number}") },
        "auth_events": [id(&[1; 32]), id(&[2; 32]), id(&[3; 32])],
        "prev_events": [id(&before)],
        "depth": 1_000 + number,
        "origin_server_ts": 1_700_000_000_000_u64 + 977 * number as u64,
        "hashes": { "sha256": STANDARD_NO_PAD.encode(hash) },
        "signatures": { "example.org": { "ed25519:a_AbCd": STANDARD_NO_PAD.encode(signature) } },
    })))
}

#[test]
fn a_member_of_a_large_room_takes_little_memory_and_is_all_there() {
    const MEMBERS: usize = 3_000;
    let chance = Random::seeded(7);
    let members: Vec<Arc<Pdu>> = (0..MEMBERS).map(|number| member(number, "join", &chance)).collect();
    let mut state: State = members.iter().cloned().collect();
    let few: State = members.iter().take(PACKED_FROM).cloned().collect();
    let each = (state.bytes() - few.bytes()) / (MEMBERS - PACKED_FROM);
    assert!(each * 50_000 <= 30_000_000, "{each} bytes each");

    for pdu in &members {
        let user_id = <&UserId>::try_from(pdu.state_key().unwrap()).unwrap();
        assert_eq!(state.membership(user_id), MembershipState::Join);
        let found = state.member(user_id).unwrap();
        assert_eq!((found.event_id(), found.json().get()), (pdu.event_id(), pdu.json().get()));
        assert!(state.holds(MEMBER, user_id.as_str(), pdu.event_id()));
    }
    let looked_at = state.bytes();
    let copy = state.clone();
    state.settle();
    assert!(state.bytes() < looked_at - 2_000 * UNPACKED_BYTES, "what was looked at is packed again");
    assert!(copy.changes_to(&state).is_empty());
    assert_eq!(state.iter().count(), MEMBERS);
}

#[test]
fn what_changes_in_a_large_room_is_found_and_undone() {
    let chance = Random::seeded(8);
    let members: Vec<Arc<Pdu>> = (0..2 * PACKED_FROM).map(|number| member(number, "join", &chance)).collect();
    let before: State = members.iter().cloned().collect();
    let mut after = before.clone();
    let leaving = member(2 * PACKED_FROM - 1, "leave", &chance);
    after.insert(Arc::clone(&leaving));
    after.insert(Arc::new(pdu_of(&json!({ "type": "m.room.topic", "state_key": "", "content": {} }))));
    let mut changes = before.changes_to(&after);
    changes.sort_by(|a, b| a.kind.cmp(&b.kind));
    let kinds: Vec<&str> = changes.iter().map(|change| &*change.kind).collect();
    assert_eq!(kinds, [MEMBER, "m.room.topic"]);
    assert_eq!(changes[0].event.as_ref().unwrap().event_id(), leaving.event_id());
    let undo: Vec<StateChange> =
        changes.iter().map(|change| StateChange { event: after.apply(change), ..change.clone() }).collect();
    assert_eq!(undo[0].event.as_ref().unwrap().event_id(), leaving.event_id(), "it was there already");
    for change in after.changes_to(&before) {
        after.apply(&change);
    }
    assert!(before.changes_to(&after).is_empty() && after.len() == before.len());
    assert_eq!(after.bytes(), before.bytes());
}

fn topic(text: &str) -> Arc<Pdu> {
    let fields = json!({ "type": "m.room.topic", "state_key": "", "content": { "topic": text } });
    Arc::new(pdu_of(&fields))
}

fn redaction_of(pdu: &Pdu) -> Arc<Pdu> {
    let content = json!({ "redacts": pdu.event_id(), "reason": "spam" });
    Arc::new(pdu_of(&json!({ "type": "m.room.redaction", "content": content })))
}

fn redacted(pdu: &Pdu, because: &Arc<Pdu>) -> Arc<Pdu> {
    Arc::new(pdu.stripped().unwrap().with_redacted_because(Arc::clone(because)))
}

#[test]
fn a_redaction_that_is_redacted_itself_is_looked_for_only_among_what_is_redacted() {
    let (first, second) = (topic("one"), topic("two"));
    let because = redaction_of(&first);
    let mut state: State = [Arc::clone(&first)].into_iter().collect();
    let before = state.clone();
    assert!(state.redacted.is_empty());
    state.redact(&redacted(&first, &because));
    assert_eq!(state.redacted.iter().collect::<Vec<_>>(), [&("m.room.topic".into(), "".into())]);

    let reason = |state: &State| {
        let topic = state.get("m.room.topic", "").unwrap();
        topic.redacted_because().map(|because| because.content().get().contains("spam"))
    };
    assert_eq!(reason(&state), Some(true));
    let mut later = state.clone();
    later.redact(&redacted(&because, &redaction_of(&because)));
    assert_eq!((reason(&later), reason(&state)), (Some(false), Some(true)));

    later.insert(second);
    assert!(later.redacted.is_empty(), "what stands there now is not redacted");
    state.apply(&StateChange { kind: "m.room.topic".to_owned(), state_key: String::new(), event: None });
    assert!(state.redacted.is_empty() && state.is_empty());
    assert_eq!(reason(&before), None);
}
