//! Whom it takes to come into a room, and what is believed of what they say.

use std::{collections::HashSet, sync::Arc};

use futures_util::StreamExt as _;
use ruma::{RoomVersionId, api::error::ErrorKind, events::room::member::MembershipState, room_id};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    Entrance,
    arrival::{Arrival, MOST_EVENTS, receive},
    knock::credible,
    testing::{FarRoom, There, body, refusal, server, user, value},
};
use crate::{
    edge::federation_client::RemoteError,
    error::{Error, Result},
    event::Content,
    federation::fetcher::testing::Stage,
    room::{Author, Entry},
};

const VERSIONS: [RoomVersionId; 3] = [RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12];

fn errcode(result: Result<()>) -> String {
    match result.unwrap_err() {
        Error::Refused { kind, .. } => kind.errcode().to_string(),
        Error::Relayed { errcode, .. } => errcode,
        other => panic!("{other:?}"),
    }
}

fn entrance(stage: &Stage, there: &Arc<There>) -> Entrance {
    Entrance::new(stage.rooms.clone(), stage.ground.tasks.clone(), there.clone())
}

#[tokio::test]
async fn candidates_are_asked_in_turn_and_the_most_telling_answer_is_passed_on() {
    let stage = Stage::new().await;
    let mut there = There::new();
    there.refusals.insert(server("b"), refusal("M_FORBIDDEN"));
    there.refusals.insert(server("named"), refusal("M_NOT_FOUND"));
    let there = Arc::new(there);
    let entrance = entrance(&stage, &there);
    let (room_id, alice) = (room_id!("!far:named"), Author::User(user("@alice:localhost")));
    let via = [server("a"), server("b"), server("localhost"), server("a")];
    let joined = entrance.join(&alice, room_id, &via, Content::new()).await;
    match joined {
        Err(Error::Relayed { status: 403, errcode, message }) => {
            assert_eq!(errcode, "M_FORBIDDEN");
            assert!(message.starts_with('b'), "it names the server: {message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::mem::take(&mut *there.asked.lock()), ["join a", "join b", "join named"]);
    // Who knows no server at all learns as much as of a room that is not there.
    let nowhere = room_id!("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM");
    assert_eq!(errcode(entrance.join(&alice, nowhere, &[], Content::new()).await), "M_FORBIDDEN");
    assert_eq!(errcode(entrance.knock(nowhere, alice.user_id(), &[server("b")], None).await), "M_FORBIDDEN");
    assert_eq!(std::mem::take(&mut *there.asked.lock()), ["knock b"]);
    let guest = Author::Guest(user("@guest:localhost"));
    let joined = entrance.join(&guest, room_id, &via, Content::new()).await;
    assert!(matches!(joined, Err(Error::Refused { kind: ErrorKind::GuestAccessForbidden, .. })), "{joined:?}");
    assert!(there.asked.lock().is_empty());
    drop(entrance);
    stage.close().await;
}

#[tokio::test]
async fn a_room_of_a_version_that_is_not_spoken_is_asked_for_once() {
    let stage = Stage::new().await;
    let mut there = There::new();
    there.refusals.insert(server("a"), refusal("M_INCOMPATIBLE_ROOM_VERSION"));
    let there = Arc::new(there);
    let entrance = entrance(&stage, &there);
    let alice = Author::User(user("@alice:localhost"));
    let joined = entrance.join(&alice, room_id!("!far:b"), &[server("a")], Content::new()).await;
    assert_eq!(errcode(joined), "M_UNSUPPORTED_ROOM_VERSION");
    assert_eq!(*there.asked.lock(), ["join a"]);
    drop(entrance);
    stage.close().await;
}

#[tokio::test]
async fn a_server_that_does_not_federate_asks_nobody() {
    let stage = Stage::new().await;
    let there = Arc::new(There { is_on: false, ..There::new() });
    let entrance = entrance(&stage, &there);
    let (alice, far) = (Author::User(user("@alice:localhost")), room_id!("!far:there"));
    assert_eq!(errcode(entrance.join(&alice, far, &[server("a")], Content::new()).await), "M_FORBIDDEN");
    assert_eq!(errcode(entrance.knock(far, alice.user_id(), &[server("a")], None).await), "M_FORBIDDEN");
    let invited = entrance.invite(&stage.room_id, alice.user_id(), &user("@dave:there"), None).await;
    assert_eq!(errcode(invited), "M_FORBIDDEN");
    assert!(there.asked.lock().is_empty());
    drop(entrance);
    stage.close().await;
}

#[tokio::test]
async fn somebody_elsewhere_is_invited_once_their_server_has_signed_it() {
    let stage = Stage::new().await;
    let (alice, dave) = (user("@alice:localhost"), user("@dave:there"));
    let another = Arc::new(There { signs_another: true, ..There::new() });
    let failed = entrance(&stage, &another).invite(&stage.room_id, &alice, &dave, None).await;
    assert!(matches!(failed, Err(Error::Relayed { status: 502, .. })), "{failed:?}");
    assert_eq!(stage.room().await.state().membership(&dave), MembershipState::Leave);

    let there = Arc::new(There::new());
    let entrance = entrance(&stage, &there);
    entrance.invite(&stage.room_id, &alice, &dave, Some("Come".to_owned())).await.unwrap();
    let state = stage.room().await.state();
    let invite = state.member(&dave).unwrap();
    assert_eq!(state.membership(&dave), MembershipState::Invite);
    let signed: Vec<String> = value(invite)["signatures"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(signed, ["localhost", "there"]);
    // The create event, the join rules, and who invites.
    assert_eq!(*there.asked.lock(), ["invite there 3"]);
    // Said again, it is not sent again.
    entrance.invite(&stage.room_id, &alice, &dave, Some("Come".to_owned())).await.unwrap();
    assert_eq!(there.asked.lock().len(), 1);
    drop(entrance);
    stage.close().await;
}

/// What comes of an answer.
async fn arrive(room: &FarRoom<'_>, there: &There, answer: &Value) -> Result<Entry, RemoteError> {
    arrive_with(room, there, answer, MOST_EVENTS).await?.judge(room.version.clone(), room.join("@bob:here"))
}

async fn arrive_with(room: &FarRoom<'_>, there: &There, answer: &Value, most: usize) -> Result<Arrival, RemoteError> {
    receive(there, body(answer), (room.room_id(), room.rules()), most).await
}

fn all(room: &FarRoom<'_>) -> Vec<Value> {
    room.events.iter().map(|pdu| value(pdu)).collect()
}

fn assert_malformed<T>(answered: Result<T, RemoteError>, what: &str) {
    match answered {
        Err(RemoteError::Malformed(_)) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what}: it is taken"),
    }
}

/// A room with another identifier.
fn other_room<'a>(there: &'a There, room: &FarRoom<'_>) -> FarRoom<'a> {
    // Those of old versions are all called the same here.
    let version = if room.version == RoomVersionId::V12 { RoomVersionId::V10 } else { RoomVersionId::V12 };
    let other = there.room(version);
    assert_ne!(other.room_id(), room.room_id());
    other
}

#[tokio::test]
async fn an_answer_becomes_a_room() {
    for version in VERSIONS {
        let there = There::new();
        let mut room = there.room(version);
        let (state, cited) = (room.events.clone(), room.events.clone());
        room.set("@alice:there", "m.room.topic", "", &json!({ "topic": "old" }));
        let topic = room.set("@alice:there", "m.room.topic", "", &json!({ "topic": "new" }));
        let in_state: Vec<Value> = state.iter().chain([&topic]).map(|pdu| value(pdu)).collect();
        let cited: Vec<Value> = cited.iter().map(|pdu| value(pdu)).collect();
        let answer = json!({ "origin": "there", "auth_chain": cited, "state": in_state, "members_omitted": false });
        let entry = arrive(&room, &there, &answer).await.unwrap();
        let ids: HashSet<_> = entry.state.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        assert_eq!(ids, state.iter().chain([&topic]).map(|pdu| pdu.event_id().to_owned()).collect());
        assert!(entry.auth_chain.is_empty(), "all of it is in the state");
        assert_eq!(entry.version, room.version);
    }
}

#[tokio::test]
async fn what_is_not_valid_or_not_allowed_is_no_part_of_the_room() {
    for version in VERSIONS {
        let there = There::new();
        let mut room = there.room(version);
        let whole = all(&room);
        // Of somebody who is not in the room, and of nobody.
        let stranger = room.set("@mallory:there", "m.room.topic", "", &json!({ "topic": "mine" }));
        let unsigned = room.set("@alice:there", "m.room.name", "", &json!({ "name": "Ours" }));
        let mut forged = value(&unsigned);
        forged["signatures"] = json!({});
        let garbage = [json!({}), json!({ "type": "m.room.name", "content": {} })];
        let state: Vec<Value> = whole.iter().cloned().chain([value(&stranger), forged]).chain(garbage).collect();
        let entry = arrive(&room, &there, &json!({ "auth_chain": [], "state": state })).await.unwrap();
        assert_eq!(entry.state.len(), whole.len());
    }
}

#[tokio::test]
async fn an_answer_that_is_no_room_is_refused() {
    for version in VERSIONS {
        let there = There::new();
        let room = there.room(version.clone());
        let state = all(&room);
        let answer = |state: &[Value]| json!({ "auth_chain": all(&room), "state": state });

        assert_malformed(arrive(&room, &there, &answer(&state[1..])).await, "a state without create event");
        let mut unsigned = state.clone();
        unsigned[0]["signatures"] = json!({ "there": { "ed25519:a": "AAAA" } });
        let unsigned = json!({ "auth_chain": [], "state": unsigned });
        assert_malformed(arrive(&room, &there, &unsigned).await, "a create event that nobody has signed");
        let astray = value(&other_room(&there, &room).events[1]);
        let astray: Vec<Value> = state.iter().cloned().chain([astray]).collect();
        assert_malformed(arrive(&room, &there, &answer(&astray)).await, "an event of another room");
        let arrival = arrive_with(&room, &there, &answer(&state), MOST_EVENTS).await.unwrap();
        assert_malformed(arrival.judge(RoomVersionId::V9, room.join("@bob:here")), "another version than was said");
        let too_much = arrive_with(&room, &there, &answer(&state), state.len()).await;
        assert_malformed(too_much, "more events than are taken");
        let omitted = json!({ "auth_chain": [], "state": state, "members_omitted": true });
        assert_malformed(arrive(&room, &there, &omitted).await, "a state without members");
        let cut = body(&answer(&state)).take(2).boxed();
        let cut = receive(&there, cut, (room.room_id(), room.rules()), MOST_EVENTS).await;
        assert_malformed(cut, "half an answer");
    }
}

#[tokio::test]
async fn of_what_is_shown_of_a_room_only_what_is_credible_is_taken() {
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let there = There::new();
        let room = there.room(version.clone());
        let stripped = json!({ "type": "m.room.name", "state_key": "", "sender": "@a:b", "content": { "name": "N" } });
        let mut forged = value(&room.events[3]);
        forged["signatures"] = json!({ "there": { "ed25519:a": "AAAA" } });
        let astray = value(&other_room(&there, &room).events[1]);
        let state = [value(&room.events[0]), forged, astray, stripped];
        let state = state.iter().map(|event| to_raw_value(event).unwrap()).collect();
        let shown = credible(&there, state, (room.room_id(), room.rules())).await;
        let stripped_count = usize::from(version == RoomVersionId::V11);
        assert_eq!(shown.len(), 1 + stripped_count, "{version}");
    }
}
