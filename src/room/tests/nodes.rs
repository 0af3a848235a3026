//! Two nodes on one database: whatever one of them remembers, the database decides.

use std::collections::HashSet;

use futures_util::future::{join, join_all};
use ruma::{EventId, RoomId, RoomVersionId, events::TimelineEventType};
use serde_json::json;

use super::errcode;
use crate::room::{
    Message,
    world::{RoomWorld, json as json_of, message, user},
};

#[tokio::test]
async fn two_nodes_that_write_to_one_room_keep_one_chain() {
    let world = RoomWorld::new().await;
    let other = world.another_node().await;
    let room_id = world.public_room("alice").await;
    let messages: Vec<_> = (0..60).map(|n| message(&room_id, "alice", &(n % 30).to_string())).collect();
    let (here, there) = messages.split_at(30);
    let sent = join(
        join_all(here.iter().map(|message| world.rooms.send(message))),
        join_all(there.iter().map(|message| other.send(message))),
    );
    let (here, there) = sent.await;
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here.as_ref().unwrap(), there.as_ref().unwrap(), "one transaction, one event");
    }
    let ids: HashSet<_> = here.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 30);
    let events = world.one_chain(&room_id).await;
    let messages = events.iter().filter(|event| *event.pdu.kind() == TimelineEventType::RoomMessage).count();
    assert_eq!(messages, 30);
    drop(other);
    world.close().await;
}

#[tokio::test]
async fn what_happened_on_one_node_counts_on_the_other_at_once() {
    let world = RoomWorld::new().await;
    let other = world.another_node().await;
    let room_id = world.public_room("alice").await;
    let (alice, bob) = (user("alice"), user("bob"));
    // Both nodes have the room in memory, and each has written to it.
    world.rooms.send(&message(&room_id, "alice", "1")).await.unwrap();
    other.send(&message(&room_id, "alice", "2")).await.unwrap();

    world.rooms.join(&room_id, &bob, None).await.unwrap();
    other.send(&message(&room_id, "bob", "1")).await.unwrap();
    other.kick(&room_id, &alice, &bob, None).await.unwrap();
    // Not "you are in the room already".
    world.rooms.join(&room_id, &bob, None).await.unwrap();
    assert_eq!(world.state(&room_id, "m.room.member", bob.as_str()).await, json!({"membership": "join"}));
    other.ban(&room_id, &alice, &bob, None).await.unwrap();
    assert_eq!(errcode(world.rooms.send(&message(&room_id, "bob", "2")).await), "M_FORBIDDEN");
    drop(other);
    world.close().await;
}

#[tokio::test]
async fn of_the_same_annotations_on_two_nodes_one_is_taken() {
    let world = RoomWorld::new().await;
    let other = world.another_node().await;
    let room_id = world.public_room("alice").await;
    let event = world.rooms.send(&message(&room_id, "alice", "news")).await.unwrap();
    let annotation = |transaction: String| Message {
        kind: TimelineEventType::Reaction,
        content: json_of(json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "+1" } })),
        ..message(&room_id, "alice", &transaction)
    };
    for round in 0..3 {
        let annotations: Vec<_> = (0..6).map(|n| annotation(format!("{round} {n}"))).collect();
        let (here, there) = annotations.split_at(3);
        let (here, there) = join(
            join_all(here.iter().map(|one| world.rooms.send(one))),
            join_all(there.iter().map(|one| other.send(one))),
        )
        .await;
        let (taken, refused): (Vec<_>, Vec<_>) = here.into_iter().chain(there).partition(Result::is_ok);
        assert_eq!(taken.len(), 1);
        for refusal in refused {
            assert_eq!(errcode(refusal), "M_DUPLICATE_ANNOTATION");
        }
        // Taken back it can be made again, once.
        let taken = taken.into_iter().next().unwrap().unwrap();
        other.send(&redaction(&room_id, &taken, &format!("back {round}"))).await.unwrap();
    }
    world.one_chain(&room_id).await;
    drop(other);
    world.close().await;
}

#[tokio::test]
async fn a_node_that_lags_learns_what_a_redacted_redaction_redacted() {
    let world = RoomWorld::new().await;
    let other = world.another_node().await;
    // Where it is redacted itself, a redaction no longer says what it has redacted.
    let room_id = world.create_room(RoomVersionId::V10, "shared").await;
    let secret = world.rooms.send(&message(&room_id, "alice", "secret")).await.unwrap();
    other.log().refresh().await.unwrap();
    let room = other.get(&room_id).await.unwrap();
    let remembered = || room.view(|view| view.find_recent(&secret).unwrap());
    assert!(remembered().pdu.redacted_because().is_none());
    let first = world.rooms.send(&redaction(&room_id, &secret, "first")).await.unwrap();
    world.rooms.send(&redaction(&room_id, &first, "second")).await.unwrap();
    other.log().refresh().await.unwrap();
    let event = remembered();
    assert_eq!(event.pdu.content().get(), "{}");
    let because = event.pdu.redacted_because().unwrap();
    assert_eq!((because.event_id(), because.content().get()), (&*first, "{}"));
    assert!(because.redacted_because().is_none(), "one is enough");
    drop((other, room));
    world.close().await;
}

/// Takes something back, with a reason that names the transaction.
fn redaction(room_id: &RoomId, target: &EventId, transaction: &str) -> Message {
    Message {
        kind: TimelineEventType::RoomRedaction,
        content: json_of(json!({ "redacts": target, "reason": transaction })),
        ..message(room_id, "alice", transaction)
    }
}
