//! The room in which the server speaks to a user.

use futures_util::future::join_all;
use ruma::{RoomVersionId, events::TimelineEventType};
use serde_json::json;

use super::errcode;
use crate::room::{
    Author, NoticeRoom,
    world::{RoomWorld, json as content, user},
};

fn room() -> NoticeRoom {
    NoticeRoom {
        sender: user("server"),
        name: "Server notices".to_owned(),
        avatar_url: Some("mxc://here/seal".to_owned()),
        version: RoomVersionId::V12,
    }
}

#[tokio::test]
async fn everybody_has_one_whoever_makes_it() {
    let world = RoomWorld::new().await;
    let other = world.another_node().await;
    let (alice, room) = (user("alice"), room());
    let nodes = [&world.rooms, &other];
    let made = join_all((0..8).map(|n| nodes[n % 2].notice_room(&room, &alice))).await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    assert!(made.iter().all(|room_id| *room_id == made[0]));
    assert_eq!(world.count_rooms().await, 1);
    assert_ne!(other.notice_room(&room, &user("bob")).await.unwrap(), made[0]);
    assert_eq!(world.state(&made[0], "m.room.name", "").await, json!({ "name": "Server notices" }));
    assert_eq!(world.state(&made[0], "m.room.avatar", "").await, json!({ "url": "mxc://here/seal" }));
    drop(other);
    world.close().await;
}

#[tokio::test]
async fn its_invitation_stands_until_it_is_accepted_and_comes_again() {
    let world = RoomWorld::new().await;
    let (alice, room) = (user("alice"), room());
    world.set_account_data("alice", "", "m.invite_permission_config", json!({ "default_action": "block" })).await;
    let room_id = world.rooms.notice_room(&room, &alice).await.unwrap();
    let membership = || async { world.state(&room_id, "m.room.member", "@alice:here").await["membership"].clone() };
    assert_eq!(membership().await, json!("invite"));
    world.rooms.set_notices_sender(&room.sender);
    let (kind, left) = (TimelineEventType::RoomMember, content(json!({ "membership": "leave" })));
    let own = alice.as_str();
    let refused = [
        errcode(world.rooms.leave(&room_id, &alice, None).await),
        errcode(world.rooms.kick(&room_id, &alice, &alice, None).await),
        errcode(world.rooms.send_state(&room_id, &Author::User(alice.clone()), &kind, own, left.clone()).await),
        errcode(world.rooms.dry_run(&room_id, &alice, &kind, Some(own), &left).await),
    ];
    assert_eq!(refused, ["M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"; 4]);
    let elsewhere = world.public_room("carol").await;
    let bob = user("bob");
    world.rooms.invite(&elsewhere, &user("carol"), &bob, None).await.unwrap();
    world.rooms.kick(&elsewhere, &bob, &bob, None).await.unwrap();
    assert_eq!(world.state(&elsewhere, "m.room.member", bob.as_str()).await["membership"], json!("leave"));

    world.rooms.join(&room_id, &alice, None).await.unwrap();
    world.rooms.dry_run(&room_id, &alice, &kind, Some(own), &left).await.unwrap();
    world.rooms.leave(&room_id, &alice, None).await.unwrap();
    assert_eq!(world.rooms.notice_room(&room, &alice).await.unwrap(), room_id);
    assert_eq!(membership().await, json!("invite"));
    // Whose account goes, goes from here too.
    world.rooms.leave_all(&alice, None).await.unwrap();
    assert_eq!(membership().await, json!("leave"));
    world.close().await;
}

/// Also where it was to be told before, and that failed.
#[tokio::test]
async fn it_hears_of_the_name_that_the_server_has_now() {
    let world = RoomWorld::new().await;
    let (alice, room) = (user("alice"), room());
    let room_id = world.rooms.notice_room(&room, &alice).await.unwrap();
    let own = room.sender.as_str();
    for name in ["The operators", "The owls"] {
        world.set_displayname("server", name).await;
        assert_eq!(world.rooms.notice_room(&room, &alice).await.unwrap(), room_id);
        assert_eq!(world.state(&room_id, "m.room.member", own).await["displayname"], json!(name));
    }
    let member = || world.rooms.get(&room_id);
    let before = member().await.unwrap().state().member(&room.sender).unwrap().event_id().to_owned();
    world.rooms.notice_room(&room, &alice).await.unwrap();
    assert_eq!(member().await.unwrap().state().member(&room.sender).unwrap().event_id(), before);
    world.close().await;
}
