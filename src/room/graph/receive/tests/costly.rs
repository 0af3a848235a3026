//! Rooms whose states are costly to resolve, and everybody else.

use std::time::Duration;

use ruma::RoomId;

use super::*;
use crate::room::{
    graph::{
        append::{Plan, Proposal},
        auth,
        lanes::Lanes,
    },
    world::message,
};

/// More than a fork with a piece of state on either side takes, and less than one with many.
const QUICK_STEPS: u64 = 250;

/// A room in which alice has set so many pieces of state, and an event of bob's that knows of none of them.
async fn forked(world: &RoomWorld, pieces: usize) -> Pdu {
    let room_id = world.create_room(RoomVersionId::V11, "shared").await;
    world.member(&room_id, "bob", "bob", "join").await;
    let room = world.rooms.get(&room_id).await.unwrap();
    let (head, state) = room.view(|view| (view.head.clone(), view.state.clone()));
    let topic = Draft::state(user("bob"), "m.room.topic".into(), "", content(json!({ "topic": "other" })));
    let value = serde_json::value::to_raw_value(&topic.content).unwrap();
    let rules = rules(&RoomVersionId::V11).unwrap();
    let auth_events = auth::auth_events(&state, &topic.kind, &topic.sender, Some(""), &value, rules).unwrap();
    let place = GraphPlace {
        room_id: Some(room_id.clone()),
        depth: head.depth + 1,
        prev_events: head.extremities,
        auth_events,
    };
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
    let here = ruma::owned_server_name!("elsewhere");
    let remote = topic.sign(&place, world.clock.now(), &here, &key, rules).unwrap();
    let set = |number: usize| {
        let key = number.to_string();
        Proposal::from(Draft::state(user("alice"), "x.piece".into(), &key, content(json!({ "n": number }))))
    };
    let plan = |_: &Head| Ok(Plan { proposals: (0..pieces).map(set).collect(), ..Plan::default() });
    world.rooms.append(&room_id, plan).await.unwrap();
    remote
}

/// Until the database's connections are all at rest.
async fn all_connections_rest(world: &RoomWorld) {
    let rest = async {
        while world.db.pools().iter().any(|(_, open, idle, _)| *open as usize != *idle) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), rest).await.expect("no connection is held while states are resolved");
}

#[expect(clippy::disallowed_methods, reason = "whoever waits for a lane is a task of its own")]
#[tokio::test]
async fn four_rooms_that_are_costly_to_resolve_slow_nobody_else() {
    for world in RoomWorld::on_each_engine(|| Lanes::new(QUICK_STEPS, u64::MAX)).await {
        let mut costly = Vec::new();
        for _ in 0..4 {
            costly.push(forked(&world, 60).await);
        }
        let cheap = forked(&world, 1).await;
        let lanes = &world.rooms.0.lanes;
        let closed = lanes.close_slow_lane().await;
        let receive = |pdu: Pdu| {
            let rooms = world.rooms.clone();
            tokio::spawn(async move { rooms.take_in(pdu).await.unwrap() })
        };
        let waiting: Vec<_> = costly.iter().cloned().map(receive).collect();
        while lanes.slow_rooms() < costly.len() {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.rooms.take_in(cheap).await.unwrap(), Standing::Accepted, "the fifth");
        for room_id in costly.iter().map(Pdu::room_id) {
            // No lock is held: whoever writes to the four themselves need not wait, either.
            world.rooms.send(&message(room_id, "alice", "still fast")).await.unwrap();
        }
        all_connections_rest(&world).await;
        assert!(waiting.iter().all(|costly| !costly.is_finished()));
        drop(closed);
        for (costly, waiting) in costly.iter().zip(waiting) {
            assert_eq!(waiting.await.unwrap(), Standing::Accepted);
            assert_topic(&world, costly.room_id(), 60).await;
        }
        world.close().await;
    }
}

/// Both sides of the fork are there.
async fn assert_topic(world: &RoomWorld, room_id: &RoomId, pieces: usize) {
    let state = world.rooms.get(room_id).await.unwrap().state();
    assert_eq!(state.of_kind("x.piece").count(), pieces);
    assert!(state.get("m.room.topic", "").is_some());
}
