//! A room may hold anything: rules that nobody knows, names that are no text, links that are no lists. Whatever it is, no
//! list with such a room in it breaks, and nothing that others read of it does.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-events>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, World, at, escape, next},
};

/// What stands in place of a text, a number, a list or an object.
fn oddities() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(7),
        json!(""),
        json!("org.example.unknown"),
        json!("Public"),
        json!("\u{0000}\u{202e}nul"),
        json!("x".repeat(3_000)),
        json!([]),
        json!([1, {}, null]),
        json!({}),
        json!({ "a": { "b": [] } }),
    ]
}

/// Each kind of state that something reads, with the fields that it reads there.
const READ: [(&str, &[&str]); 14] = [
    ("m.room.join_rules", &["join_rule", "allow"]),
    ("m.room.history_visibility", &["history_visibility"]),
    ("m.room.guest_access", &["guest_access"]),
    ("m.room.name", &["name"]),
    ("m.room.topic", &["topic", "m.topic"]),
    ("m.room.avatar", &["url", "info"]),
    ("m.room.encryption", &["algorithm"]),
    ("m.room.tombstone", &["replacement_room", "body"]),
    ("m.room.pinned_events", &["pinned"]),
    ("m.room.server_acl", &["allow", "deny", "allow_ip_literals"]),
    ("m.room.third_party_invite", &["display_name", "public_key", "public_keys", "key_validity_url"]),
    ("m.space.parent", &["via", "canonical"]),
    ("m.space.child", &["via", "order", "suggested"]),
    ("m.room.power_levels", &["notifications", "events", "users_default", "org.example"]),
];

/// A space with a room beside the odd one, which has to stay visible in every list.
struct Around {
    space: String,
    odd: String,
    fine: String,
}

async fn around(alice: &Client, creation: Value) -> Around {
    let open = json!([{
        "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "world_readable" },
    }]);
    let room = json!({ "preset": "public_chat", "visibility": "public", "name": "words" });
    let with = |more: Value| {
        let mut body = room.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let space = alice.create_room(with(json!({ "creation_content": { "type": "m.space" } }))).await;
    let fine = alice.create_room(with(json!({}))).await;
    let odd = alice.create_room(with(json!({ "initial_state": open, "creation_content": creation }))).await;
    for child in [&odd, &fine] {
        let path = at(&space, &format!("/state/m.space.child/{}", escape(child)));
        alice.put(&path, json!({ "via": ["localhost"] })).await.ok();
    }
    Around { space, odd, fine }
}

/// Everything that tells of rooms, as a member, as a guest of the room's and as anybody.
async fn read_everything(
    world: &World,
    alice: &Client,
    carol: &Client,
    Around { space, odd, fine }: &Around,
    why: &str,
) {
    for reader in [alice, carol] {
        let hierarchy = reader.get(&format!("/_matrix/client/v1/rooms/{}/hierarchy", escape(space))).await.ok();
        let children = hierarchy["rooms"].as_array().unwrap();
        assert!(children.iter().any(|room| room["room_id"] == **fine), "{why}: {hierarchy}");
        let public = reader.post("/_matrix/client/v3/publicRooms", json!({ "limit": 50 })).await.ok();
        let rooms = public["chunk"].as_array().unwrap();
        assert!(rooms.iter().any(|room| room["room_id"] == **fine), "{why}: {public}");
        assert!(rooms.iter().all(|room| room["join_rule"].is_string()), "{why}: {public}");
        let summary = reader.get(&format!("/_matrix/client/v1/room_summary/{}", escape(odd))).await;
        assert!(summary.status == 200 || summary.status == 404, "{why}: {summary:?}");
    }
    let sync = alice.sync(None).await;
    assert!(sync["rooms"]["join"].get(odd).is_some() && sync["rooms"]["join"].get(fine).is_some(), "{why}");
    alice.sync_with(Some(&next(&sync)), "&full_state=true").await;
    for path in ["/members", "/joined_members", "/state", "/messages?dir=b", "/initialSync", "/aliases"] {
        assert_eq!(alice.get(&at(odd, path)).await.status, 200, "{why}: {path}");
    }
    let search = json!({ "search_categories": { "room_events": {
        "search_term": "words", "include_state": true, "event_context": { "include_profile": true },
        "groupings": { "group_by": [{ "key": "sender" }, { "key": "room_id" }] },
    } } });
    assert_eq!(alice.post("/_matrix/client/v3/search", search).await.status, 200, "{why}");
    let people = alice.post("/_matrix/client/v3/user_directory/search", json!({ "search_term": "a" })).await;
    assert_eq!(people.status, 200, "{why}");
    assert_eq!(world.call("GET", "/_matrix/client/v3/publicRooms", None, None).await.status, 200, "{why}");
    let mutual = format!("/_matrix/client/v1/user/mutual_rooms?user_id={}", escape(&carol.user_id));
    assert!(alice.get(&mutual).await.status < 500, "{why}");
    assert_eq!(alice.get("/_matrix/client/v3/initialSync").await.status, 200, "{why}");
}

on_both! {
    async fn a_rule_that_nobody_knows_is_shown_as_it_is(world) {
        let (alice, carol) = (world.user("alice").await, world.user("carol").await);
        let around = around(&alice, json!({})).await;
        for rule in ["org.example.rule", "", "Public"] {
            alice.put(&at(&around.odd, "/state/m.room.join_rules/"), json!({ "join_rule": rule })).await.ok();
            read_everything(&world, &alice, &carol, &around, rule).await;
            let summary = carol.get(&format!("/_matrix/client/v1/room_summary/{}", escape(&around.odd))).await.ok();
            assert_eq!(summary["join_rule"], rule);
            let hierarchy =
                carol.get(&format!("/_matrix/client/v1/rooms/{}/hierarchy", escape(&around.space))).await.ok();
            let odd = hierarchy["rooms"].as_array().unwrap().iter().find(|room| room["room_id"] == around.odd);
            assert_eq!(odd.unwrap()["join_rule"], rule);
            // It lets nobody in.
            carol.join(&around.odd).await.refused(403, "M_FORBIDDEN");
        }
        let allow = json!([{ "type": "m.room_membership", "room_id": around.fine }, 7, { "type": "m.room_membership" }]);
        let rules = json!({ "join_rule": "restricted", "allow": allow });
        alice.put(&at(&around.odd, "/state/m.room.join_rules/"), rules).await.ok();
        let summary = carol.get(&format!("/_matrix/client/v1/room_summary/{}", escape(&around.odd))).await.ok();
        assert_eq!((&summary["join_rule"], &summary["allowed_room_ids"]), (&json!("restricted"), &json!([around.fine])));
        let allow = json!([{ "type": "org.example.age", "room_id": around.fine }]);
        alice.put(&at(&around.odd, "/state/m.room.join_rules/"), json!({ "join_rule": "restricted", "allow": allow })).await.ok();
        carol.join(&around.odd).await.refused(400, "M_UNABLE_TO_AUTHORISE_JOIN");
    }

    /// Trap: names and pictures that are no strings break lists.
    async fn no_list_breaks_over_what_a_room_holds(world) {
        let (alice, carol) = (world.user("alice").await, world.user("carol").await);
        let around = around(&alice, json!({ "org.example": 1 })).await;
        alice.say(&around.odd, "words").await;
        alice.invite(&around.odd, &carol.user_id).await.ok();
        for oddity in oddities() {
            for (kind, fields) in READ {
                for field in fields {
                    // What the room's version forbids is refused, and nothing else of it happens.
                    let state_key = if kind == "m.room.third_party_invite" { "token" } else { "" };
                    let put = alice.put(&at(&around.odd, &format!("/state/{kind}/{state_key}")), json!({ *field: oddity })).await;
                    assert!(put.status < 500, "{kind} {field} {oddity}: {put:?}");
                    let link = at(&around.space, &format!("/state/{kind}/{}", escape(&around.odd)));
                    if kind.starts_with("m.space") {
                        assert!(alice.put(&link, json!({ *field: oddity })).await.status < 500, "{kind} {field} {oddity}");
                    }
                }
            }
            let own = at(&around.odd, &format!("/state/m.room.member/{}", escape(&alice.user_id)));
            let faces = json!({ "membership": "join", "displayname": oddity, "avatar_url": oddity, "reason": oddity });
            assert!(alice.put(&own, faces).await.status < 500, "{oddity}");
            let profile = format!("/_matrix/client/v3/profile/{}", escape(&carol.user_id));
            for field in ["displayname", "avatar_url", "m.tz", "org.example"] {
                let put = carol.put(&format!("{profile}/{field}"), json!({ field: oddity })).await;
                assert!(put.status < 500, "{field} {oddity}: {put:?}");
                assert!(alice.get(&format!("{profile}/{field}")).await.status < 500, "{field} {oddity}");
            }
            assert_eq!(alice.get(&profile).await.status, 200, "{oddity}");
            read_everything(&world, &alice, &carol, &around, &oddity.to_string()).await;
            let invited = carol.sync(None).await;
            assert!(invited["rooms"]["invite"].get(&around.odd).is_some(), "{oddity}: {invited}");
            // And it goes on.
            alice.say(&around.odd, "words").await;
        }
    }

    async fn no_list_breaks_over_how_a_room_was_made(world) {
        let (alice, carol) = (world.user("alice").await, world.user("carol").await);
        for oddity in oddities() {
            let creation = json!({
                "type": oddity, "m.federate": oddity, "predecessor": oddity, "creator": oddity, "org.example": oddity,
            });
            let made = alice.post("/_matrix/client/v3/createRoom", json!({ "creation_content": creation })).await;
            assert!(made.status == 200 || made.status == 400, "{oddity}: {made:?}");
            let mut creation = creation;
            creation.as_object_mut().unwrap().remove("m.federate");
            let around = around(&alice, creation).await;
            carol.join(&around.odd).await.ok();
            read_everything(&world, &alice, &carol, &around, &oddity.to_string()).await;
            let older = json!({ "room_version": "10", "creation_content": { "additional_creators": oddity } });
            let older = alice.create_room(older).await;
            alice.say(&older, "words").await;
        }
    }
}
