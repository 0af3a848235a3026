//! Rooms of this server and of others, to users and to other servers.

use std::sync::Arc;

use ruma::{OwnedRoomId, UserId, directory::Filter, server_name};
use serde_json::{Value, json};

use super::{space::Branch, *};
use crate::{
    event::Draft,
    federation::{
        fetcher::{Fetcher, OtherServers},
        reach::testing::Script,
    },
    ground::sizes::CacheSizes,
    testing::{World, user},
};

/// A directory whose other servers say what the script tells them to. It knows nothing of what happens later.
fn directory(world: &World, script: &Arc<Script>) -> Directory {
    let app = &world.app;
    let source = OtherServers::over(app.remote.clone(), app.server_keys.clone());
    let fetcher = Fetcher::new(app.db.clone(), app.rooms.clone(), source);
    let (read, ground) = ((app.rooms.clone(), fetcher), (app.clock.clone(), app.tasks.clone()));
    let reach = Reach::new(Arc::clone(script) as _, read, ground, &CacheSizes::default());
    let cache = Arc::new(RoomCardCache::new(&CacheSizes::default()));
    Directory::new((app.db.clone(), app.log.clone()), cache, app.server_name.clone(), reach)
}

async fn set(world: &World, room: &OwnedRoomId, sender: &UserId, kind: &str, key: &str, content: Value) {
    let content = serde_json::from_value(content).unwrap();
    world.send(room, Draft::state(sender.to_owned(), kind.into(), key, content)).await;
}

async fn named(world: &World, creator: &UserId, name: &str) -> OwnedRoomId {
    let room = world.room(&[creator]).await;
    set(world, &room, creator, "m.room.name", "", json!({ "name": name })).await;
    room
}

/// A room that a space of another server holds.
fn child(room_id: &str, server: &str) -> Value {
    let content = json!({ "via": [server] });
    json!({ "type": "m.space.child", "state_key": room_id, "sender": "@a:b", "origin_server_ts": 1, "content": content })
}

fn elsewhere(room_id: &str, name: &str, children: &[Value]) -> Value {
    json!({
        "room_id": room_id, "name": name, "room_type": "m.space", "join_rule": "public", "children_state": children,
    })
}

/// The rooms of a space that holds `children`, by their names.
async fn walk(world: &World, script: &Arc<Script>, children: &[(&str, &str)]) -> Vec<String> {
    let alice = user("alice");
    // The rooms of tests are no spaces: theirs is elsewhere, and alice has walked there by its identifier.
    let held: Vec<Value> = children.iter().map(|(room_id, server)| child(room_id, server)).collect();
    let root = json!({ "room": elsewhere("!root:far.example", "Root", &held) });
    script.answer("room far.example !root:far.example", root);
    let query = HierarchyQuery { suggested_only: false, max_depth: 5, skip: 0, limit: 50 };
    let root = <&RoomId>::try_from("!root:far.example").unwrap();
    let found = directory(world, script).hierarchy(&alice, root, query).await.unwrap().unwrap();
    for branch in &found.rooms {
        assert!(serde_json::to_string(&branch.summary).is_ok() && branch.children_state().len() <= 2_000);
    }
    let name = |branch: &Branch| branch.summary.name.clone().unwrap_or_else(|| branch.summary.room_id.to_string());
    found.rooms.iter().map(name).collect()
}

#[tokio::test]
async fn a_space_is_walked_over_servers_and_what_is_here_counts_first() {
    let (world, script) = (World::new().await, Arc::new(Script::default()));
    let (alice, bob) = (user("alice"), user("bob"));
    let open = named(&world, &alice, "Open").await;
    let closed = named(&world, &bob, "Closed").await;
    set(&world, &closed, &bob, "m.room.join_rules", "", json!({ "join_rule": "invite" })).await;
    // Both are claimed by a server that is not in them.
    let claims = json!([
        elsewhere(open.as_str(), "Not the open one", &[]),
        elsewhere(closed.as_str(), "Come in", &[]),
        { "room_id": "!leaf:deep.example", "name": "Leaf", "join_rule": "public" },
        { "room_id": "!odd:deep.example", "name": 7, "topic": [], "avatar_url": {}, "join_rule": "public" },
        { "room_id": "!private:deep.example", "name": "Private", "join_rule": "invite" },
    ]);
    let held = [open.as_str(), closed.as_str(), "!leaf:deep.example", "!odd:deep.example", "!private:deep.example"];
    // And it holds the one that holds it.
    let held = held.into_iter().chain(["!sub:deep.example", "!root:far.example"]).map(|id| child(id, "deep.example"));
    let sub = json!({ "room": elsewhere("!sub:deep.example", "Sub", &held.collect::<Vec<_>>()), "children": claims });
    script.answer("room deep.example !sub:deep.example", sub);
    let names = walk(&world, &script, &[("!sub:deep.example", "deep.example")]).await;
    let mut inside = names[2..].to_vec();
    inside.sort();
    assert_eq!(names[..2], ["Root", "Sub"]);
    assert_eq!(inside, ["!odd:deep.example", "Leaf", "Open"]);
    let asked = script.asked();
    assert!(asked.iter().all(|asked| !asked.contains(closed.as_str()) && !asked.contains(open.as_str())), "{asked:?}");
    assert!(!asked.iter().any(|asked| asked.contains("!leaf")), "what was said of it is enough");
    world.close().await;
}

#[tokio::test]
async fn a_space_without_end_ends() {
    let (world, script) = (World::new().await, Arc::new(Script::default()));
    let many: Vec<String> = (0..400).map(|n| format!("!r{n}:many.example")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|room_id| (room_id.as_str(), "many.example")).collect();
    for (room_id, _) in &many {
        // Each of them a space that holds all others.
        let held: Vec<Value> = many.iter().map(|(room_id, server)| child(room_id, server)).take(40).collect();
        let said = json!({ "room": elsewhere(room_id, room_id, &held) });
        script.answer(&format!("room many.example {room_id}"), said);
    }
    let names = walk(&world, &script, &many).await;
    assert_eq!(names.len(), 50);
    assert!(script.asked().len() <= 100, "no more than a page needs, and a few");
    world.close().await;
}

#[tokio::test]
async fn a_room_elsewhere_is_summarised_for_those_who_may_know_of_it() {
    let (world, script) = (World::new().await, Arc::new(Script::default()));
    let (alice, bob) = (user("alice"), user("bob"));
    let club = named(&world, &alice, "Club").await;
    let room = <&RoomId>::try_from("!x:far.example").unwrap();
    let said = |rule: &str| {
        json!({ "room": {
        "room_id": room, "name": "X", "join_rule": rule, "allowed_room_ids": [club], "num_joined_members": 3,
    } })
    };
    let servers = ["far.example".try_into().unwrap()];
    for (rule, alices, bobs) in
        [("public", true, true), ("restricted", true, false), ("invite", false, false), ("knock", true, true)]
    {
        script.answer("room far.example !x:far.example", said(rule));
        let directory = directory(&world, &script);
        for (user_id, sees) in [(&alice, alices), (&bob, bobs)] {
            let found = directory.summary_anywhere(room, user_id, &servers).await.unwrap();
            assert_eq!(found.is_some(), sees, "{rule} {user_id}");
        }
    }
    // What is here is not asked for, whoever claims to know it.
    script.asked();
    let directory = directory(&world, &script);
    let (summary, membership) = directory.summary_anywhere(&club, &alice, &servers).await.unwrap().unwrap();
    assert_eq!((summary.name.as_deref(), membership), (Some("Club"), MembershipState::Join));
    assert!(script.asked().is_empty());
    world.close().await;
}

/// Reading over federation without asking who asks (Synapse 1.157.2).
#[tokio::test]
async fn another_server_sees_rooms_that_its_users_could_come_into() {
    let (world, script) = (World::new().await, Arc::new(Script::default()));
    let (alice, far) = (user("alice"), server_name!("far.example"));
    let open = named(&world, &alice, "Open").await;
    let closed = named(&world, &alice, "Closed").await;
    set(&world, &closed, &alice, "m.room.join_rules", "", json!({ "join_rule": "invite" })).await;
    let banning = named(&world, &alice, "Banning").await;
    let list = json!({ "allow": ["*"], "deny": ["FAR.example"] });
    set(&world, &banning, &alice, "m.room.server_acl", "", list).await;
    let readable = named(&world, &alice, "Readable").await;
    set(&world, &readable, &alice, "m.room.join_rules", "", json!({ "join_rule": "invite" })).await;
    let everybody = json!({ "history_visibility": "world_readable" });
    set(&world, &readable, &alice, "m.room.history_visibility", "", everybody).await;
    let left = named(&world, &alice, "Left").await;
    world.membership(&left, &alice, "leave").await;
    let directory = directory(&world, &script);
    for (room, sees) in [(&open, true), (&closed, false), (&banning, false), (&readable, true), (&left, false)] {
        let found = directory.space_for_server(far, room, false).await.unwrap();
        assert_eq!(found.is_some(), sees, "{room}");
    }
    let query = PublicRoomsQuery { server: Some(far), filter: Filter::default(), ..PublicRoomsQuery::default() };
    assert!(directory.public_rooms(&query).await.unwrap().chunk.is_empty(), "none is published");
    world.close().await;
}
