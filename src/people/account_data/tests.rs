use futures_util::future::try_join_all;
use ruma::{RoomId, UserId, events::tag::TagInfo};
use serde_json::{Value, json};

use super::push_rules_data;
use crate::{
    event::fact::{AccountData, Fact, Write},
    ground::position::Position,
    log::CommitError,
    store,
    testing::{World, user},
};

const END: Position = Position(i64::MAX);

impl World {
    async fn set(&self, user_id: &UserId, room_id: Option<&RoomId>, kind: &str, content: Value) {
        let content = serde_json::value::to_raw_value(&content).unwrap();
        self.app.account_data.set(user_id, room_id, kind, content).await.unwrap();
    }

    async fn data(&self, user_id: &UserId, room_id: Option<&RoomId>, kind: &str) -> Option<Value> {
        let data = self.app.account_data.find(user_id, room_id, kind).await.unwrap();
        data.map(|data| serde_json::from_str(data.content.get()).unwrap())
    }

    async fn kinds_since(&self, user_id: &UserId, after: Position) -> Vec<String> {
        let data = self.app.account_data.of_user(user_id).await.unwrap();
        let mut kinds: Vec<_> = data.rooms().flat_map(|room_id| data.since(room_id, after, END, false)).collect();
        kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
        kinds.iter().map(|data| data.kind.clone()).collect()
    }

    async fn ignored(&self, user_id: &UserId) -> Vec<String> {
        let ignored = self.app.account_data.ignored(user_id).await.unwrap();
        ignored.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn account_data_is_kept_by_user_room_and_type() {
    let (alice, bob) = (user("alice"), user("bob"));
    let room = RoomId::parse("!room:localhost").unwrap();
    let mut world = World::new().await;
    world.set(&alice, None, "a", json!({ "n": 1 })).await;
    assert_eq!(world.kinds_since(&alice, Position::START).await, ["a"]);
    world.set(&alice, Some(&room), "c", json!({ "n": 2 })).await;
    world.set(&alice, None, "b", json!({ "n": 3 })).await;
    let reached = world.reached();
    world.set(&alice, None, "a", json!({ "n": 4 })).await;

    for _ in 0..2 {
        assert_eq!(world.data(&alice, None, "a").await, Some(json!({ "n": 4 })));
        assert_eq!(world.data(&alice, Some(&room), "c").await, Some(json!({ "n": 2 })));
        assert_eq!(world.data(&alice, None, "c").await, None, "no inheritance from a room");
        assert_eq!(world.data(&bob, None, "a").await, None);
        assert_eq!(world.kinds_since(&alice, Position::START).await, ["a", "b", "c"]);
        assert_eq!(world.kinds_since(&alice, reached).await, ["a"]);
        assert!(world.kinds_since(&bob, Position::START).await.is_empty());
        world = world.restart().await;
    }
}

#[tokio::test]
async fn tags_set_at_the_same_moment_are_all_kept() {
    let alice = user("alice");
    let room = RoomId::parse("!room:localhost").unwrap();
    let world = World::new().await;
    world.set(&alice, Some(&room), "m.tag", json!({ "tags": { "u.old": { "by": "hand" } }, "other": 1 })).await;
    let names: Vec<String> = (0..12).map(|n| format!("u.{n}")).collect();
    let info = TagInfo::new();
    try_join_all(names.iter().map(|name| world.app.account_data.set_tag(&alice, &room, name, &info))).await.unwrap();
    world.app.account_data.remove_tag(&alice, &room, "u.3").await.unwrap();

    let content = world.data(&alice, Some(&room), "m.tag").await.unwrap();
    let tags = content["tags"].as_object().unwrap();
    assert_eq!(tags.len(), 12, "{tags:?}");
    assert_eq!(tags["u.old"], json!({ "by": "hand" }));
    assert_eq!(content["other"], 1);
    assert_eq!(world.app.account_data.tags(&alice, &room).await.unwrap().len(), 12);
}

#[tokio::test]
async fn a_tag_that_changes_nothing_writes_nothing_and_a_wrong_one_is_refused() {
    let alice = user("alice");
    let room = RoomId::parse("!room:localhost").unwrap();
    let world = World::new().await;
    let tags = &world.app.account_data;
    let mut info = TagInfo::new();
    info.order = Some(0.5);
    tags.set_tag(&alice, &room, "m.favourite", &info).await.unwrap();
    let reached = world.reached();
    tags.set_tag(&alice, &room, "m.favourite", &info).await.unwrap();
    tags.remove_tag(&alice, &room, "u.never").await.unwrap();
    assert_eq!(world.reached(), reached);

    info.order = Some(1.5);
    assert!(tags.set_tag(&alice, &room, "m.favourite", &info).await.is_err());
    info.order = None;
    assert!(tags.set_tag(&alice, &room, &"x".repeat(256), &info).await.is_err());
}

#[tokio::test]
async fn a_write_with_an_expectation_conflicts_even_within_one_batch() {
    let alice = user("alice");
    let world = World::new().await;
    let data = |n: i64| AccountData {
        user_id: alice.clone(),
        room_id: None,
        kind: "k".to_owned(),
        content: serde_json::value::to_raw_value(&json!({ "n": n })).unwrap().into(),
    };
    let after = |n, expected| Write::fact(Fact::AccountData(data(n).replacing(expected)));
    let log = world.rooms().log();
    let writes = [after(1, Position::START), after(2, Position::START), Write::fact(Fact::AccountData(data(3).into()))];
    let submitted = writes.map(|write| log.submit(write));
    let [first, second, third] = submitted;
    let first = first.committed().await.unwrap();
    assert!(matches!(second.committed().await, Err(CommitError::Conflict)));
    let third = third.committed().await.unwrap();
    assert!(matches!(log.append(after(4, first.last)).await, Err(CommitError::Conflict)));
    log.append(after(5, third.last)).await.unwrap();
    assert_eq!(world.data(&alice, None, "k").await, Some(json!({ "n": 5 })));
}

#[tokio::test]
async fn ignored_users_follow_the_list_whatever_a_client_writes_there() {
    let alice = user("alice");
    let kind = "m.ignored_user_list";
    let mut world = World::new().await;
    assert!(world.ignored(&alice).await.is_empty());
    world.set(&alice, None, kind, json!({ "ignored_users": { "@bob:localhost": {}, "no user": 7 } })).await;
    for _ in 0..2 {
        assert_eq!(world.ignored(&alice).await, ["@bob:localhost"]);
        world = world.restart().await;
    }
    world.set(&alice, Some(&RoomId::parse("!room:localhost").unwrap()), kind, json!({ "ignored_users": {} })).await;
    assert_eq!(world.ignored(&alice).await, ["@bob:localhost"]);
    world.set(&alice, None, kind, json!({ "ignored_users": [] })).await;
    assert!(world.ignored(&alice).await.is_empty());
}

#[test]
fn everybody_begins_with_the_default_push_rules() {
    let content: Value = serde_json::from_str(push_rules_data(&user("alice")).unwrap().content.get()).unwrap();
    let rules = content["global"]["override"].as_array().unwrap();
    assert_eq!(rules[0]["rule_id"], ".m.rule.master");
    assert!(content["global"]["underride"].as_array().unwrap().len() >= 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_set_on_two_nodes_at_the_same_moment_are_all_kept() {
    let Some((world, other)) = World::two_nodes().await else { return };
    let alice = user("alice");
    let room = RoomId::parse("!room:localhost").unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("u.{n}")).collect();
    let info = TagInfo::new();
    let nodes = [&world.app, &other];
    let set = names.iter().enumerate().map(|(n, name)| nodes[n % 2].account_data.set_tag(&alice, &room, name, &info));
    try_join_all(set).await.unwrap();
    let at = store::log::last_position(&mut world.app.db.read().await.unwrap()).await.unwrap();
    for node in nodes {
        node.log.tail().wait_for(at).await;
        assert_eq!(node.account_data.tags(&alice, &room).await.unwrap().len(), 12);
    }
    world.close_both(other).await;
}

#[tokio::test]
async fn whom_somebody_ignored_is_remembered_for_a_few_lists() {
    let alice = user("alice");
    let mut world = World::new().await;
    let before = world.reached();
    let mut places = Vec::new();
    let list = |name: &str| json!({ "ignored_users": { format!("@{name}:localhost"): {} } });
    assert!(world.ignored(&alice).await.is_empty());
    for name in ["bob", "carol", "dave"] {
        world.set(&alice, None, "m.ignored_user_list", list(name)).await;
        places.push(world.reached());
        world.set(&alice, None, "org.example.other", json!({})).await;
    }
    for known in [[None, Some("bob"), Some("carol"), Some("dave")], [None, None, None, Some("dave")]] {
        for (at, name) in [before, places[0], places[1], places[2]].into_iter().zip(known) {
            let ignored = world.app.account_data.of_user(&alice).await.unwrap().ignored_at(at);
            let expected = name.map(|name| std::iter::once(user(name)).collect());
            assert_eq!(ignored.as_deref(), expected.as_ref(), "{at:?}");
        }
        world = world.restart().await;
    }
    let nobody = world.app.account_data.of_user(&user("erin")).await.unwrap().ignored_at(Position::START);
    assert_eq!(nobody.as_deref(), Some(&std::collections::HashSet::new()), "who has no list never had one");
    world.close().await;
}
