//! A room's successor: what it gets, and what the old room is left with.

use ruma::{OwnedRoomId, RoomVersionId, UserId, events::room::member::MembershipState, room_alias_id};
use serde_json::{Value, json, value::to_raw_value};

use super::errcode;
use crate::{
    event::fact::{AccountData, Fact, Write},
    room::{
        Author, InitialState, NewRoom, Preset, Upgrade,
        world::{RoomWorld, json as content, new_room, user},
    },
};

fn upgrade(room_id: &OwnedRoomId, by: &UserId, version: RoomVersionId) -> Upgrade {
    Upgrade { room_id: room_id.clone(), by: by.to_owned(), version, additional_creators: vec![user("carol")] }
}

/// A room with something of everything that moves.
async fn old_room(world: &RoomWorld, version: RoomVersionId) -> OwnedRoomId {
    let state = |kind: &str, state_key: &str, state| InitialState {
        kind: kind.into(),
        state_key: state_key.to_owned(),
        content: content(state),
    };
    let creation_content = content(json!({"type": "m.space", "m.federate": false, "org.example": 1}));
    let room = NewRoom {
        version,
        alias: Some(room_alias_id!("#pub:here").to_owned()),
        published: true,
        topic: Some("Beer".to_owned()),
        creation_content,
        initial_state: vec![
            state("m.room.encryption", "", json!({"algorithm": "m.megolm.v1.aes-sha2"})),
            state("org.example.mine", "", json!({"a": 1})),
            state("m.space.child", "!child:here", json!({"via": ["here"]})),
            state("m.space.child", "!gone:here", json!({})),
            state("m.space.parent", "!above:here", json!({"via": ["here"], "canonical": true})),
            state("m.space.parent", "!left:here", json!({})),
            state("m.room.member", "@troll:there", json!({"membership": "ban", "reason": "trolling"})),
        ],
        ..new_room("alice", Preset::PublicChat)
    };
    world.rooms.create(room).await.unwrap()
}

#[tokio::test]
async fn an_upgrade_moves_what_belongs_to_the_room_and_closes_the_old_one() {
    for (from, to) in [
        (RoomVersionId::V6, RoomVersionId::V11),
        (RoomVersionId::V11, RoomVersionId::V12),
        (RoomVersionId::V12, RoomVersionId::V12),
        (RoomVersionId::V12, RoomVersionId::V10),
    ] {
        let world = RoomWorld::new().await;
        let alice = user("alice");
        let old = old_room(&world, from.clone()).await;
        world.set_account_data("alice", old.as_str(), "m.tag", json!({"tags": {"m.favourite": {}}})).await;
        let new = world.rooms.upgrade(&upgrade(&old, &alice, to.clone())).await.unwrap();

        let create = world.state(&new, "m.room.create", "").await;
        assert_eq!((&create["type"], &create["m.federate"]), (&json!("m.space"), &json!(false)));
        assert_eq!((&create["predecessor"]["room_id"], &create["org.example"]), (&json!(old), &Value::Null));
        assert_eq!(create["predecessor"].get("event_id").is_some(), to != RoomVersionId::V12);
        assert_eq!(create.get("additional_creators").is_some(), to == RoomVersionId::V12);
        for (kind, state_key) in [
            ("m.room.topic", ""),
            ("m.room.encryption", ""),
            ("m.room.join_rules", ""),
            ("m.room.history_visibility", ""),
            ("m.room.guest_access", ""),
            ("m.space.child", "!child:here"),
            ("m.space.parent", "!above:here"),
            ("m.room.member", "@troll:there"),
        ] {
            assert_ne!(world.state(&new, kind, state_key).await, Value::Null, "{kind}");
            assert_eq!(world.state(&new, kind, state_key).await, world.state(&old, kind, state_key).await);
        }
        assert_eq!(world.state(&new, "org.example.mine", "").await, Value::Null);
        assert_eq!(world.state(&new, "m.space.child", "!gone:here").await, Value::Null);
        assert_eq!(world.state(&new, "m.space.parent", "!left:here").await, Value::Null);
        let levels = world.state(&new, "m.room.power_levels", "").await;
        assert_eq!(levels["users"].get("@alice:here").is_some(), to != RoomVersionId::V12, "{levels}");

        assert_eq!(world.state(&old, "m.room.tombstone", "").await["replacement_room"], json!(new));
        let closed = world.state(&old, "m.room.power_levels", "").await;
        assert_eq!((&closed["events_default"], &closed["invite"]), (&json!(50), &json!(50)));
        assert_eq!(world.state(&old, "m.room.canonical_alias", "").await, json!({}));
        assert_eq!(world.state(&new, "m.room.canonical_alias", "").await, json!({"alias": "#pub:here"}));
        assert_eq!(world.rooms.get_by_alias(room_alias_id!("#pub:here")).await.unwrap(), new);
        assert!(world.rooms.is_published(&new).await.unwrap());
        assert!(!world.rooms.is_published(&old).await.unwrap());
        let mut conn = world.db.read().await.unwrap();
        let tags = crate::store::account_data::find(&mut conn, &alice, Some(&new), "m.tag").await.unwrap();
        assert!(tags.is_some());
        drop(conn);
        world.close().await;
    }
}

#[tokio::test]
async fn an_upgrade_takes_the_power_and_a_known_version() {
    let world = RoomWorld::new().await;
    let old = old_room(&world, RoomVersionId::V11).await;
    let (alice, bob) = (user("alice"), user("bob"));
    let errors = [
        upgrade(&old, &bob, RoomVersionId::V12),
        upgrade(&old, &alice, RoomVersionId::V2),
        upgrade(&old, &alice, "org.example".try_into().unwrap()),
    ];
    world.rooms.join(&old, &bob, None).await.unwrap();
    let mut codes = Vec::new();
    for error in &errors {
        codes.push(errcode(world.rooms.upgrade(error).await));
    }
    assert_eq!(codes, ["M_FORBIDDEN", "M_UNSUPPORTED_ROOM_VERSION", "M_UNSUPPORTED_ROOM_VERSION"]);
    assert_eq!(world.state(&old, "m.room.tombstone", "").await, Value::Null);
    world.close().await;
}

#[tokio::test]
async fn somebody_with_just_enough_power_can_upgrade_and_has_no_more_afterwards() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let levels = json!({
        "users": {"@alice:here": 100, "@bob:here": 50},
        "events": {"m.room.tombstone": 50, "m.room.encryption": 100},
    });
    let room = NewRoom {
        version: RoomVersionId::V11,
        power_level_content_override: content(levels),
        ..new_room("alice", Preset::PublicChat)
    };
    let old = world.rooms.create(room).await.unwrap();
    let encryption = content(json!({"algorithm": "m.megolm.v1.aes-sha2"}));
    let kind = "m.room.encryption".into();
    world.rooms.send_state(&old, &Author::User(alice.clone()), &kind, "", encryption).await.unwrap();
    world.rooms.join(&old, &bob, None).await.unwrap();
    let new = world.rooms.upgrade(&upgrade(&old, &bob, RoomVersionId::V11)).await.unwrap();
    let levels = world.state(&new, "m.room.power_levels", "").await;
    assert_eq!(levels["users"], json!({"@alice:here": 100, "@bob:here": 50}));
    assert_ne!(world.state(&new, "m.room.encryption", "").await, Value::Null);
    world.close().await;
}

/// What one write does not hold follows under the new room's own levels, by which bob bans nobody.
#[tokio::test]
async fn of_a_crowd_everything_moves_that_may() {
    for (children, banned, moved) in [(20, 3, 3), (450, 3, 3), (20, 410, 400)] {
        let world = RoomWorld::new().await;
        let bob = user("bob");
        let state = |kind: &str, state_key: String, state| InitialState {
            kind: kind.into(),
            state_key,
            content: content(state),
        };
        let children = 0..children;
        let child = |n| state("m.space.child", format!("!child{n}:here"), json!({"via": ["here"]}));
        let ban = |n| state("m.room.member", format!("@troll{n}:there"), json!({"membership": "ban"}));
        let levels = json!({
            "users": {"@alice:here": 100, "@bob:here": 50},
            "events": {"m.room.tombstone": 50},
            "ban": 60,
        });
        let room = NewRoom {
            version: RoomVersionId::V11,
            creation_content: content(json!({"type": "m.space"})),
            initial_state: children.clone().map(child).chain((0..banned).map(ban)).collect(),
            power_level_content_override: content(levels),
            ..new_room("alice", Preset::PublicChat)
        };
        let old = world.rooms.create(room).await.unwrap();
        world.rooms.join(&old, &bob, None).await.unwrap();
        // Nobody but alice can say this, and the upgrade goes on without it.
        let of_alice = content(json!({"via": ["here"]}));
        let kind = "m.space.parent".into();
        world.rooms.send_state(&old, &Author::User(user("alice")), &kind, "@alice:here", of_alice).await.unwrap();

        let new = world.rooms.upgrade(&upgrade(&old, &bob, RoomVersionId::V11)).await.unwrap();
        let now = world.rooms.get(&new).await.unwrap().state();
        assert_eq!(now.of_kind("m.space.child").count(), children.len());
        let bans = now.members().filter(|member| member.membership() == MembershipState::Ban);
        assert_eq!(bans.count(), moved);
        assert_eq!(now.of_kind("m.space.parent").count(), 0);
        assert_eq!(world.state(&new, "m.room.power_levels", "").await["users"]["@bob:here"], json!(50));
        world.close().await;
    }
}

#[tokio::test]
async fn who_follows_into_the_new_room_brings_their_settings() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let old = world.public_room("alice").await;
    world.rooms.join(&old, &bob, None).await.unwrap();
    world.set_account_data("bob", old.as_str(), "m.tag", json!({"tags": {"u.beer": {"order": 0.5}}})).await;
    world.set_account_data("bob", "", "m.direct", json!({"@alice:here": [old, "!other:here"]})).await;
    let new = world.rooms.upgrade(&upgrade(&old, &alice, RoomVersionId::V12)).await.unwrap();
    world.rooms.join(&new, &bob, None).await.unwrap();
    let mut conn = world.db.read().await.unwrap();
    let mut find = async |room_id, kind| {
        let data = crate::store::account_data::find(&mut conn, &bob, room_id, kind).await.unwrap().unwrap();
        serde_json::from_str::<Value>(data.1.content.get()).unwrap()
    };
    assert_eq!(find(Some(&*new), "m.tag").await, json!({"tags": {"u.beer": {"order": 0.5}}}));
    assert_eq!(find(None, "m.direct").await, json!({"@alice:here": [old, "!other:here", new]}));
    drop(conn);
    world.close().await;
}

/// Another device starts a chat with somebody else while the join is on its way: it waits for the room here, with what it
/// has read before.
#[tokio::test]
async fn what_another_device_sets_meanwhile_is_kept_by_whoever_follows() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let old = world.public_room("alice").await;
    world.rooms.join(&old, &bob, None).await.unwrap();
    let direct = |content: Value| AccountData {
        user_id: bob.clone(),
        room_id: None,
        kind: "m.direct".to_owned(),
        content: to_raw_value(&content).unwrap().into(),
    };
    let set =
        async |content| world.rooms.log().append(Write::fact(Fact::AccountData(direct(content).into()))).await.unwrap();
    set(json!({"@alice:here": [old]})).await;
    let new = world.rooms.upgrade(&upgrade(&old, &alice, RoomVersionId::V12)).await.unwrap();

    let room = world.rooms.get(&new).await.unwrap();
    let pending = room.pending.lock().await;
    let meanwhile = async {
        // As often as the join reads, and more.
        for _ in 0..20 {
            world.rooms.settings_in(&bob, &old).await.unwrap();
        }
        set(json!({"@alice:here": [old], "@dave:here": ["!dave:here"]})).await;
        drop(pending);
    };
    let (joined, ()) = tokio::join!(world.rooms.join(&new, &bob, None), meanwhile);
    joined.unwrap();
    let mut conn = world.db.read().await.unwrap();
    let found = crate::store::account_data::find(&mut conn, &bob, None, "m.direct").await.unwrap().unwrap();
    let found: Value = serde_json::from_str(found.1.content.get()).unwrap();
    assert_eq!(found, json!({"@alice:here": [old, new], "@dave:here": ["!dave:here"]}));
    drop(conn);
    world.close().await;
}

/// As where another server has let the user in. A predecessor that nobody confirmed (Synapse 1.157.2) brings nothing.
#[tokio::test]
async fn who_comes_in_through_another_server_brings_their_settings_if_the_old_room_agrees() {
    let world = RoomWorld::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let old = world.public_room("alice").await;
    world.rooms.join(&old, &bob, None).await.unwrap();
    world.set_account_data("bob", old.as_str(), "m.tag", json!({"tags": {"u.beer": {}}})).await;
    let new = world.rooms.upgrade(&upgrade(&old, &alice, RoomVersionId::V12)).await.unwrap();
    let creation_content = content(json!({"predecessor": {"room_id": old}}));
    let claiming = NewRoom { creation_content, ..new_room("alice", Preset::PublicChat) };
    let claiming = world.rooms.create(claiming).await.unwrap();
    let introduction = world.rooms.introduce(&bob, &MembershipState::Join, content(json!({}))).await.unwrap();
    for (room_id, brings) in [(&new, true), (&claiming, false)] {
        world.member(room_id, "bob", "bob", "join").await;
        for _ in 0..2 {
            world.rooms.settle_in(room_id, &bob, &introduction).await.unwrap();
        }
        let mut conn = world.db.read().await.unwrap();
        let tags = crate::store::account_data::find(&mut conn, &bob, Some(room_id), "m.tag").await.unwrap();
        assert_eq!(tags.is_some(), brings, "{room_id}");
        drop(conn);
    }
    world.close().await;
}
