//! Names of rooms, and who may give and take them.

use futures_util::future::join_all;
use ruma::{UserId, owned_server_name, room_alias_id};
use serde_json::json;

use super::errcode;
use crate::room::{
    Author,
    world::{RoomWorld, json as content, user},
};

fn by(user_id: &UserId) -> Author {
    Author::User(user_id.to_owned())
}

#[tokio::test]
async fn of_many_who_want_one_alias_one_gets_it() {
    let world = RoomWorld::new().await;
    let alice = user("alice");
    let alias = room_alias_id!("#pub:here");
    let mut rooms = Vec::new();
    for _ in 0..10 {
        rooms.push(world.public_room("alice").await);
    }
    let by_alice = by(&alice);
    let added = join_all(rooms.iter().map(|room_id| world.rooms.add_alias(&by_alice, alias, room_id))).await;
    let winners: Vec<_> = rooms.iter().zip(&added).filter(|(_, added)| added.is_ok()).map(|(room, _)| room).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(world.rooms.get_by_alias(alias).await.unwrap(), *winners[0]);
    assert!(added.into_iter().filter(Result::is_err).all(|refused| errcode(refused) == "M_ROOM_IN_USE"));

    let removed = join_all((0..5).map(|_| world.rooms.remove_alias(&by_alice, alias))).await;
    let (removed, refused): (Vec<_>, Vec<_>) = removed.into_iter().partition(Result::is_ok);
    assert_eq!(removed.len(), 1);
    assert!(refused.into_iter().all(|refused| errcode(refused) == "M_NOT_FOUND"));
    world.rooms.add_alias(&by(&alice), alias, &rooms[3]).await.unwrap();
    world.close().await;
}

#[tokio::test]
async fn names_are_given_by_members_and_taken_by_who_gave_them_or_has_the_power() {
    let world = RoomWorld::new().await;
    let room_id = world.public_room("alice").await;
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let alias = room_alias_id!("#bobs:here");
    assert_eq!(errcode(world.rooms.add_alias(&by(&bob), alias, &room_id).await), "M_FORBIDDEN");
    for user in [&bob, &carol] {
        world.rooms.join(&room_id, user, None).await.unwrap();
    }
    world.rooms.add_alias(&by(&bob), alias, &room_id).await.unwrap();
    let foreign = room_alias_id!("#bobs:there");
    assert_eq!(errcode(world.rooms.add_alias(&by(&bob), foreign, &room_id).await), "M_INVALID_PARAM");
    assert_eq!(errcode(world.rooms.remove_alias(&by(&carol), alias).await), "M_FORBIDDEN");
    assert_eq!(world.rooms.list_aliases(&by(&carol), &room_id).await.unwrap(), [alias]);
    assert_eq!(errcode(world.rooms.list_aliases(&by(&user("mallory")), &room_id).await), "M_FORBIDDEN");
    assert_eq!(world.rooms.list_servers(&room_id).await.unwrap(), [owned_server_name!("here")]);
    world.rooms.remove_alias(&by(&bob), alias).await.unwrap();

    world.rooms.add_alias(&by(&bob), alias, &room_id).await.unwrap();
    let state = content(json!({"alias": alias, "alt_aliases": [alias], "org.example": 1}));
    let kind = "m.room.canonical_alias".into();
    world.rooms.send_state(&room_id, &Author::User(alice.clone()), &kind, "", state).await.unwrap();
    world.rooms.remove_alias(&by(&alice), alias).await.unwrap();
    let left = json!({"alt_aliases": [], "org.example": 1});
    assert_eq!(world.state(&room_id, "m.room.canonical_alias", "").await, left);

    assert_eq!(errcode(world.rooms.publish(&by(&bob), &room_id, true).await), "M_FORBIDDEN");
    world.rooms.publish(&by(&alice), &room_id, true).await.unwrap();
    assert!(world.rooms.is_published(&room_id).await.unwrap());
    world.close().await;
}

#[tokio::test]
async fn a_canonical_alias_names_its_room() {
    let world = RoomWorld::new().await;
    let (room_id, other) = (world.public_room("alice").await, world.public_room("alice").await);
    let alice = user("alice");
    world.rooms.add_alias(&by(&alice), room_alias_id!("#mine:here"), &room_id).await.unwrap();
    world.rooms.add_alias(&by(&alice), room_alias_id!("#other:here"), &other).await.unwrap();
    let set = async |state| {
        let kind = "m.room.canonical_alias".into();
        world.rooms.send_state(&room_id, &Author::User(alice.clone()), &kind, "", content(state)).await
    };
    set(json!({"alias": "#mine:here", "alt_aliases": []})).await.unwrap();
    for alias in ["#other:here", "#none:here", "#mine:there"] {
        assert_eq!(errcode(set(json!({"alias": alias})).await), "M_BAD_ALIAS");
        assert_eq!(errcode(set(json!({"alt_aliases": [alias]})).await), "M_BAD_ALIAS");
    }
    assert_eq!(errcode(set(json!({"alias": "mine"})).await), "M_INVALID_PARAM");
    assert_eq!(errcode(set(json!({"alias": 1})).await), "M_INVALID_PARAM");
    assert_eq!(errcode(set(json!({"alt_aliases": "#mine:here"})).await), "M_INVALID_PARAM");
    // What it says already is not looked at again.
    let admin = Author::Administrator(user("admin"));
    world.rooms.remove_alias(&admin, room_alias_id!("#mine:here")).await.unwrap();
    set(json!({"alias": "#mine:here", "org.example": 1})).await.unwrap();
    set(json!({})).await.unwrap();
    world.close().await;
}
