//! Two nodes on one database: whatever one of them remembers, the database decides.

use std::collections::HashSet;

use futures_util::future::{join, join_all};
use ruma::events::TimelineEventType;
use serde_json::json;

use super::errcode;
use crate::room::world::{World, message, user};

#[tokio::test]
async fn two_nodes_that_write_to_one_room_keep_one_chain() {
    let world = World::new().await;
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
    let world = World::new().await;
    let other = world.another_node().await;
    let room_id = world.public_room("alice").await;
    let (alice, bob) = (user("alice"), user("bob"));
    // Both nodes have the room in memory, and each has written to it.
    world.rooms.send(&message(&room_id, "alice", "1")).await.unwrap();
    other.send(&message(&room_id, "alice", "2")).await.unwrap();

    world.rooms.join(&room_id, &bob, false, None).await.unwrap();
    other.send(&message(&room_id, "bob", "1")).await.unwrap();
    other.kick(&room_id, &alice, &bob, None).await.unwrap();
    // Not "you are in the room already".
    world.rooms.join(&room_id, &bob, false, None).await.unwrap();
    assert_eq!(world.state(&room_id, "m.room.member", bob.as_str()).await, json!({"membership": "join"}));
    other.ban(&room_id, &alice, &bob, None).await.unwrap();
    assert_eq!(errcode(world.rooms.send(&message(&room_id, "bob", "2")).await), "M_FORBIDDEN");
    drop(other);
    world.close().await;
}
