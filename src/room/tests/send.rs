//! Sending: one chain, each transaction once, and redactions.

use futures_util::future::join_all;
use ruma::{OwnedEventId, RoomId, RoomVersionId, event_id, events::TimelineEventType, room_id};
use serde_json::{Value, json};

use super::errcode;
use crate::{
    error::Result,
    room::{
        Author, Message, NewRoom, Preset,
        world::{RoomWorld, json as content, message, new_room, user},
    },
};

fn redaction(room_id: &RoomId, sender: &str, target: &str, transaction_id: &str) -> Message {
    Message {
        kind: TimelineEventType::RoomRedaction,
        content: content(json!({"redacts": target, "reason": "spam"})),
        ..message(room_id, sender, transaction_id)
    }
}

async fn send_state(world: &RoomWorld, room_id: &RoomId, kind: &str, state: Value) -> Result<OwnedEventId> {
    world.rooms.send_state(room_id, &Author::User(user("alice")), &kind.into(), "", content(state)).await
}

#[tokio::test]
async fn concurrent_sends_into_one_room_keep_one_chain() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    for name in ["bob", "carol"] {
        world.rooms.join(&room_id, &user(name), None).await.unwrap();
    }
    let messages: Vec<_> =
        (0..150).map(|n| message(&room_id, ["alice", "bob", "carol"][n % 3], &n.to_string())).collect();
    let sent = join_all(messages.iter().map(|message| world.rooms.send(message))).await;
    assert!(sent.iter().all(Result::is_ok));

    let events = world.events(&room_id).await;
    for (before, event) in events.iter().zip(&events[1..]) {
        assert_eq!(event.pdu.prev_events(), [before.pdu.event_id()]);
        assert_eq!(event.pdu.depth(), before.pdu.depth() + 1);
    }
    let messages = events.iter().filter(|event| *event.pdu.kind() == TimelineEventType::RoomMessage).count();
    assert_eq!(messages, 150);
    world.close().await;
}

#[tokio::test]
async fn the_same_transaction_fifty_times_at_once_is_one_event() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let before = world.events(&room_id).await.len();
    let message = message(&room_id, "alice", "again");
    let sent = join_all((0..50).map(|_| world.rooms.send(&message))).await;
    let mut ids: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(world.events(&room_id).await.len(), before + 1);

    // Also when other things happen at the same time, and long after.
    let others: Vec<_> = (0..20).map(|n| super::super::world::message(&room_id, "alice", &n.to_string())).collect();
    let mix = others.iter().flat_map(|other| [other, &message]);
    let sent = join_all(mix.map(|message| world.rooms.send(message))).await;
    assert_eq!(sent.into_iter().filter(|sent| *sent.as_ref().unwrap() == ids[0]).count(), 20);
    assert_eq!(world.events(&room_id).await.len(), before + 21);
    world.close().await;
}

#[tokio::test]
async fn a_transaction_is_remembered_even_where_it_would_be_refused_now() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    world.rooms.join(&room_id, &user("bob"), None).await.unwrap();
    let sent = world.rooms.send(&message(&room_id, "bob", "1")).await.unwrap();
    world.rooms.kick(&room_id, &user("alice"), &user("bob"), None).await.unwrap();
    assert_eq!(world.rooms.send(&message(&room_id, "bob", "1")).await.unwrap(), sent);
    assert_eq!(errcode(world.rooms.send(&message(&room_id, "bob", "2")).await), "M_FORBIDDEN");
    world.close().await;
}

#[tokio::test]
async fn what_does_not_belong_in_a_room_is_refused() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let unknown = room_id!("!nowhere:here");
    assert_eq!(errcode(world.rooms.send(&message(unknown, "alice", "1")).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.send(&message(&room_id, "mallory", "1")).await), "M_FORBIDDEN");
    assert_eq!(errcode(world.rooms.send(&message(&room_id, "alice", "nul\0")).await), "M_INVALID_PARAM");
    let second = Message { kind: TimelineEventType::RoomCreate, ..message(&room_id, "alice", "2") };
    assert_eq!(errcode(world.rooms.send(&second).await), "M_BAD_JSON");
    assert_eq!(
        errcode(send_state(&world, &room_id, "m.room.create", json!({"room_version": "12"})).await),
        "M_BAD_JSON"
    );
    let large = Message { content: content(json!({"body": "x".repeat(70_000)})), ..message(&room_id, "alice", "3") };
    assert_eq!(errcode(world.rooms.send(&large).await), "M_TOO_LARGE");
    let long = Message { kind: "x".repeat(256).into(), ..message(&room_id, "alice", "4") };
    assert_eq!(errcode(world.rooms.send(&long).await), "M_INVALID_PARAM");
    // None of it got in the way of what is allowed.
    world.rooms.send(&message(&room_id, "alice", "5")).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn the_same_state_again_is_the_same_event() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let first = send_state(&world, &room_id, "m.room.name", json!({"name": "A"})).await.unwrap();
    assert_eq!(send_state(&world, &room_id, "m.room.name", json!({"name": "A"})).await.unwrap(), first);
    let second = send_state(&world, &room_id, "m.room.name", json!({"name": "B"})).await.unwrap();
    assert_ne!(second, first);
    assert_ne!(send_state(&world, &room_id, "m.room.name", json!({"name": "A"})).await.unwrap(), first);
    world.close().await;
}

#[tokio::test]
async fn redaction_takes_the_right_event_and_the_power() {
    let world = RoomWorld::new().await;
    for version in [RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12] {
        let room = NewRoom { version, ..new_room("alice", Preset::PublicChat) };
        let room_id = world.rooms.create(room).await.unwrap();
        let elsewhere = world.public_room("bob").await;
        for name in ["bob", "carol"] {
            world.rooms.join(&room_id, &user(name), None).await.unwrap();
        }
        let send = async |message: Message| world.rooms.send(&message).await;
        let target = send(message(&room_id, "bob", "1")).await.unwrap();
        let target = target.as_str();

        assert_eq!(errcode(send(redaction(&room_id, "carol", target, "1")).await), "M_FORBIDDEN");
        assert_eq!(errcode(send(redaction(&elsewhere, "bob", target, "1")).await), "M_NOT_FOUND");
        let unknown = event_id!("$0000000000000000000000000000000000000000000");
        assert_eq!(errcode(send(redaction(&room_id, "bob", unknown.as_str(), "1")).await), "M_NOT_FOUND");
        assert_eq!(errcode(send(redaction(&room_id, "bob", "nothing", "1")).await), "M_INVALID_PARAM");
        let create = world.events(&room_id).await[0].pdu.event_id().to_owned();
        assert_eq!(errcode(send(redaction(&room_id, "alice", create.as_str(), "1")).await), "M_FORBIDDEN");

        let redacted = send(redaction(&room_id, "bob", target, "2")).await.unwrap();
        assert_eq!(send(redaction(&room_id, "bob", target, "2")).await.unwrap(), redacted);
        // Once more, by somebody else: an event, but what was redacted keeps its first reason.
        send(redaction(&room_id, "alice", target, "3")).await.unwrap();

        let events = world.events(&room_id).await;
        let find = |id: &str| events.iter().find(|event| event.pdu.event_id() == id).unwrap();
        let target = find(target);
        assert_eq!(target.pdu.content().get(), "{}");
        assert_eq!(target.pdu.redacted_because().unwrap().event_id(), redacted);
        assert_eq!(find(redacted.as_str()).pdu.redacts(), Some(target.pdu.event_id()));
    }
    world.close().await;
}

#[tokio::test]
async fn a_repeated_reaction_undoes_nothing_that_others_write_meanwhile() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let event = world.rooms.send(&message(&room_id, "alice", "1")).await.unwrap();
    let reaction = |transaction_id: &str| Message {
        kind: "m.reaction".into(),
        content: content(json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "+1" } })),
        ..message(&room_id, "alice", transaction_id)
    };
    let sent = world.rooms.send(&reaction("2")).await.unwrap();
    let room = world.rooms.get(&room_id).await.unwrap();
    let generation = room.pending.lock().await.generation;
    assert_eq!(errcode(world.rooms.send(&reaction("3")).await), "M_DUPLICATE_ANNOTATION");
    assert_eq!(world.rooms.send(&reaction("2")).await.unwrap(), sent, "sent again, it is answered as before");
    assert_eq!(room.pending.lock().await.generation, generation, "nothing was built that had to be dropped");
    world.rooms.send(&redaction(&room_id, "alice", sent.as_str(), "4")).await.unwrap();
    world.rooms.send(&reaction("5")).await.unwrap();
    world.close().await;
}
