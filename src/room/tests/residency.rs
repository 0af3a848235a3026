//! Which rooms this server takes part in, and what its users can do in one that they have all left.

use ruma::{OwnedUserId, RoomId};
use serde_json::json;

use super::errcode;
use crate::{
    event::Draft,
    room::{
        Held, Rooms,
        graph::lanes::Lanes,
        world::{RoomWorld, json as content, message, user},
    },
};

/// What a room is to a node that has read the whole log.
#[derive(Debug, PartialEq, Eq)]
enum Residency {
    Resident,
    Left,
    Outside,
}

async fn residency(rooms: &Rooms, room_id: &RoomId) -> Residency {
    rooms.log().refresh().await.unwrap();
    let residency = match rooms.find_held(room_id).await.unwrap() {
        Some(Held::Resident(_)) => Residency::Resident,
        Some(Held::Left(_)) => Residency::Left,
        None => Residency::Outside,
    };
    assert_eq!(rooms.find(room_id).await.unwrap().is_some(), residency == Residency::Resident);
    residency
}

impl RoomWorld {
    /// A user of another server comes or goes.
    async fn stranger(&self, room_id: &RoomId, membership: &str) {
        let stranger = OwnedUserId::try_from("@carol:elsewhere").unwrap();
        let content = content(json!({ "membership": membership }));
        let draft = Draft::state(stranger.clone(), "m.room.member".into(), stranger.as_str(), content);
        self.append(room_id, &draft).await.expect("the room allows it");
    }
}

#[tokio::test]
async fn a_room_is_resident_while_somebody_of_this_server_is_in_it() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let other = world.another_node().await;
        let (alice, bob) = (user("alice"), user("bob"));
        let room_id = world.public_room("alice").await;
        world.rooms.join(&room_id, &bob, None).await.unwrap();
        world.stranger(&room_id, "join").await;
        world.rooms.leave(&room_id, &alice, None).await.unwrap();
        for rooms in [&world.rooms, &other] {
            assert_eq!(residency(rooms, &room_id).await, Residency::Resident);
        }
        world.rooms.leave(&room_id, &bob, None).await.unwrap();
        for rooms in [&world.rooms, &other] {
            assert_eq!(residency(rooms, &room_id).await, Residency::Left, "only a stranger is in it");
            assert_eq!(residency(rooms, ruma::room_id!("!nowhere:elsewhere")).await, Residency::Outside);
        }
        drop(other);
        let world = world.restart().await;
        assert_eq!(residency(&world.rooms, &room_id).await, Residency::Left);
        world.close().await;
    }
}

#[tokio::test]
async fn a_room_that_everybody_has_left_can_be_read_and_entered_again() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let other = world.another_node().await;
        let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
        let room_id = world.public_room("alice").await;
        world.rooms.join(&room_id, &bob, None).await.unwrap();
        world.rooms.invite(&room_id, &alice, &carol, None).await.unwrap();
        for user_id in [&alice, &bob] {
            world.rooms.leave(&room_id, user_id, None).await.unwrap();
        }
        assert_eq!(residency(&other, &room_id).await, Residency::Left);
        other.open(&room_id, &bob).await.unwrap();
        assert_eq!(errcode(other.open(&room_id, &user("dave")).await.map(drop)), "M_FORBIDDEN");
        assert_eq!(errcode(other.send(&message(&room_id, "bob", "too late")).await), "M_FORBIDDEN");
        other.leave(&room_id, &carol, None).await.unwrap();
        other.forget(&room_id, &bob).await.unwrap();

        other.join(&room_id, &carol, None).await.unwrap();
        for rooms in [&world.rooms, &other] {
            assert_eq!(residency(rooms, &room_id).await, Residency::Resident);
        }
        world.rooms.send(&message(&room_id, "carol", "back")).await.unwrap();
        world.one_chain(&room_id).await;
        drop(other);
        world.close().await;
    }
}

#[tokio::test]
async fn nobody_comes_back_into_a_room_that_goes_on_elsewhere() {
    for world in RoomWorld::on_each_engine(Lanes::default).await {
        let (alice, bob) = (user("alice"), user("bob"));
        let room_id = world.public_room("alice").await;
        world.stranger(&room_id, "join").await;
        world.rooms.leave(&room_id, &alice, None).await.unwrap();
        for user_id in [&alice, &bob] {
            assert_eq!(errcode(world.rooms.join(&room_id, user_id, None).await), "M_FORBIDDEN");
            assert_eq!(errcode(world.rooms.knock(&room_id, user_id, None).await), "M_FORBIDDEN");
        }
        world.rooms.open(&room_id, &alice).await.unwrap();

        world.stranger(&room_id, "leave").await;
        world.rooms.join(&room_id, &bob, None).await.unwrap();
        assert_eq!(residency(&world.rooms, &room_id).await, Residency::Resident);
        world.close().await;
    }
}
