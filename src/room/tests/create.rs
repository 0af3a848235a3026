//! A room comes into being whole or not at all.

use futures_util::future::join_all;
use ruma::{RoomVersionId, owned_user_id, room_alias_id};
use serde_json::json;

use super::errcode;
use crate::{
    ground::room_version::{STABLE, rules},
    room::{
        InitialState, NewRoom, Preset,
        world::{RoomWorld, json as content, new_room, user},
    },
};

#[tokio::test]
async fn every_preset_makes_a_room_of_every_version() {
    let world = RoomWorld::new().await;
    for version in STABLE {
        for preset in [Preset::PrivateChat, Preset::TrustedPrivateChat, Preset::PublicChat] {
            let invite = vec![user("bob"), user("alice"), user("bob")];
            let room = NewRoom { version: version.clone(), invite, ..new_room("alice", preset) };
            let room_id = world.rooms.create(room).await.unwrap();
            assert_eq!(room_id.server_name().is_some(), version != RoomVersionId::V12, "{version}");
            assert_eq!(world.state(&room_id, "m.room.member", "@alice:here").await["membership"], "join");
            assert_eq!(world.state(&room_id, "m.room.member", "@bob:here").await["membership"], "invite");
            let state = world.rooms.get(&room_id).await.unwrap().state();
            let power = state.power_levels(rules(&version).unwrap());
            let equal = preset == Preset::TrustedPrivateChat;
            assert_eq!(power.for_user(&user("bob")) == power.for_user(&user("alice")), equal, "{version} {preset:?}");
        }
    }
    world.close().await;
}

#[tokio::test]
async fn rooms_made_in_the_same_millisecond_are_different_rooms() {
    let world = RoomWorld::new().await;
    let rooms = join_all((0..50).map(|_| world.rooms.create(new_room("alice", Preset::PrivateChat)))).await;
    let mut ids: Vec<_> = rooms.into_iter().map(Result::unwrap).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    world.close().await;
}

#[tokio::test]
async fn what_contradicts_itself_leaves_nothing_behind() {
    let world = RoomWorld::new().await;
    let create = |room| world.rooms.create(room);
    let powerless = content(json!({"users": {"@alice:here": 0}}));
    let room = NewRoom {
        version: RoomVersionId::V11,
        name: Some("Mine".to_owned()),
        power_level_content_override: powerless.clone(),
        alias: Some(room_alias_id!("#mine:here").to_owned()),
        ..new_room("alice", Preset::PublicChat)
    };
    assert_eq!(errcode(create(room).await), "M_INVALID_ROOM_STATE");
    // Room version 12: a creator can't be listed.
    let room = NewRoom { power_level_content_override: powerless, ..new_room("alice", Preset::PublicChat) };
    assert_eq!(errcode(create(room).await), "M_INVALID_ROOM_STATE");
    let creation_content = content(json!({"additional_creators": ["nobody"]}));
    let room = NewRoom { creation_content, ..new_room("alice", Preset::PublicChat) };
    assert_eq!(errcode(create(room).await), "M_INVALID_ROOM_STATE");
    let second = InitialState { kind: "m.room.create".into(), state_key: String::new(), content: content(json!({})) };
    let room = NewRoom { initial_state: vec![second], ..new_room("alice", Preset::PublicChat) };
    assert_eq!(errcode(create(room).await), "M_INVALID_ROOM_STATE");
    let room = NewRoom { version: RoomVersionId::V1, ..new_room("alice", Preset::PublicChat) };
    assert_eq!(errcode(create(room).await), "M_UNSUPPORTED_ROOM_VERSION");
    world.set_account_data("carol", "", "m.invite_permission_config", json!({"default_action": "block"})).await;
    let room = NewRoom { invite: vec![user("carol")], ..new_room("alice", Preset::PublicChat) };
    assert_eq!(errcode(create(room).await), "M_INVITE_BLOCKED");

    assert_eq!(world.count_rooms().await, 0);
    assert_eq!(errcode(world.rooms.get_by_alias(room_alias_id!("#mine:here")).await), "M_NOT_FOUND");
    world.close().await;
}

/// Their servers have to sign the invitations, once there is a room.
#[tokio::test]
async fn users_of_other_servers_have_their_power_in_a_new_room_and_no_invitation_yet() {
    let world = RoomWorld::new().await;
    let invite = vec![owned_user_id!("@bob:there"), user("carol")];
    let room = NewRoom { invite, ..new_room("alice", Preset::TrustedPrivateChat) };
    let room_id = world.rooms.create(room).await.unwrap();
    assert_eq!(world.state(&room_id, "m.room.member", "@bob:there").await, json!(null));
    assert_eq!(world.state(&room_id, "m.room.member", "@carol:here").await["membership"], "invite");
    let create = world.state(&room_id, "m.room.create", "").await;
    assert_eq!(create["additional_creators"], json!(["@bob:there", "@carol:here"]));
    world.close().await;
}

#[tokio::test]
async fn of_two_rooms_that_want_one_alias_one_comes_into_being() {
    let world = RoomWorld::new().await;
    let alias = room_alias_id!("#pub:here");
    let room = || NewRoom { alias: Some(alias.to_owned()), published: true, ..new_room("alice", Preset::PublicChat) };
    let made = join_all((0..8).map(|_| world.rooms.create(room()))).await;
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 7));
    assert!(refused.into_iter().all(|refused| errcode(refused) == "M_ROOM_IN_USE"));
    let room_id = made.into_iter().next().unwrap().unwrap();
    assert_eq!(world.count_rooms().await, 1);
    assert_eq!(world.rooms.get_by_alias(alias).await.unwrap(), room_id);
    assert!(world.rooms.is_published(&room_id).await.unwrap());
    assert_eq!(world.state(&room_id, "m.room.canonical_alias", "").await, json!({"alias": "#pub:here"}));
    world.close().await;
}
