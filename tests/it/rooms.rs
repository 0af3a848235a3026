//! Rooms: creating, sending, joining, leaving, reading back.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#rooms-1>

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, at, escape},
};

async fn state(user: &Client, room: &str, kind: &str) -> Value {
    user.get(&at(room, &format!("/state/{kind}/"))).await.ok()
}

on_both! {
    async fn each_preset_has_its_rules(world) {
        let alice = world.user("alice").await;
        for (preset, join_rule, guests) in [
            ("private_chat", "invite", "can_join"),
            ("trusted_private_chat", "invite", "can_join"),
            ("public_chat", "public", "forbidden"),
        ] {
            let room = alice.create_room(json!({ "preset": preset, "name": "n", "topic": "t" })).await;
            assert_eq!(state(&alice, &room, "m.room.join_rules").await["join_rule"], join_rule);
            assert_eq!(state(&alice, &room, "m.room.guest_access").await["guest_access"], guests);
            assert_eq!(state(&alice, &room, "m.room.history_visibility").await["history_visibility"], "shared");
            assert_eq!(state(&alice, &room, "m.room.name").await["name"], "n");
            assert_eq!(state(&alice, &room, "m.room.topic").await["topic"], "t");
        }
    }

    /// Room version 12: the room is named by its create event, and its creators stand above all levels.
    async fn version_12_is_the_default(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        assert!(!room.contains(':'), "{room}");
        assert_eq!(state(&alice, &room, "m.room.create").await["room_version"], "12");
        let levels = state(&alice, &room, "m.room.power_levels").await;
        assert!(levels["users"].get(&alice.user_id).is_none(), "{levels}");
        let mut with_creator = levels.clone();
        with_creator["users"] = json!({ alice.user_id.clone(): 100 });
        alice.put(&at(&room, "/state/m.room.power_levels/"), with_creator).await.refused(400, "M_BAD_JSON");
        bob.join(&room).await.ok();
        let path = at(&room, "/state/m.room.name/");
        bob.put(&path, json!({ "name": "mine" })).await.refused(403, "M_FORBIDDEN");
        for version in 6..=12 {
            let room = alice.create_room(json!({ "room_version": version.to_string(), "preset": "public_chat" })).await;
            assert_eq!(room.contains(':'), version < 12, "{room}");
            bob.join(&room).await.ok();
            bob.say(&room, "hello").await;
        }
        let refused = alice.post("/_matrix/client/v3/createRoom", json!({ "room_version": "99" })).await;
        refused.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    }

    /// Who gives themselves a power level in a room that they make knows only versions in which they need one.
    async fn a_version_that_nobody_named_is_one_that_the_power_levels_fit(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let version = async |body: Value| {
            let room = alice.create_room(body).await;
            state(&alice, &room, "m.room.create").await["room_version"].as_str().unwrap().to_owned()
        };
        let users = |users: &[&Client]| {
            let users: serde_json::Map<_, _> = users.iter().map(|user| (user.user_id.clone(), json!(100))).collect();
            json!({ "users": users })
        };
        assert_eq!(version(json!({ "power_level_content_override": users(&[&alice]) })).await, "11");
        assert_eq!(version(json!({ "power_level_content_override": users(&[&bob]) })).await, "12");
        assert_eq!(version(json!({ "power_level_content_override": { "users_default": 7 } })).await, "12");
        assert_eq!(version(json!({ "power_level_content_override": users(&[&alice]), "room_version": "9" })).await, "9");
        let direct = json!({
            "preset": "trusted_private_chat", "invite": [bob.user_id],
            "power_level_content_override": users(&[&alice, &bob]),
        });
        assert_eq!(version(direct).await, "11");
        let (levels, creators) = (users(&[&bob]), json!({ "additional_creators": [bob.user_id] }));
        for contradiction in [
            json!({ "room_version": "12", "power_level_content_override": users(&[&alice]) }),
            json!({ "power_level_content_override": levels, "creation_content": creators }),
            json!({ "creation_content": { "additional_creators": ["nobody"] } }),
            json!({ "power_level_content_override": { "users": 7 } }),
        ] {
            let refused = alice.post("/_matrix/client/v3/createRoom", contradiction).await;
            refused.refused(400, "M_INVALID_ROOM_STATE");
        }
    }

    /// What nobody could ever send is no question of power.
    async fn content_that_is_impossible_for_anybody(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for version in ["6", "11", "12"] {
            let room = alice.create_room(json!({ "room_version": version, "preset": "public_chat" })).await;
            bob.join(&room).await.ok();
            let put = async |user: &Client, path: &str, content: Value| user.put(&at(&room, &format!("/state/{path}")), content).await;
            let create = json!({ "room_version": version, "org.example": 1 });
            put(&alice, "m.room.create/", create.clone()).await.refused(400, "M_BAD_JSON");
            put(&alice, "m.room.create/another", create.clone()).await.refused(400, "M_BAD_JSON");
            for levels in [json!({ "users": [] }), json!({ "users": { "bob": 7 } }), json!({ "ban": {} }), json!({ "events": 1 })] {
                put(&alice, "m.room.power_levels/", levels).await.refused(400, "M_BAD_JSON");
            }
            let written = put(&alice, "m.room.power_levels/", json!({ "users": { &alice.user_id: 100 }, "ban": "50" })).await;
            assert_eq!(written.status, if version == "6" { 200 } else { 400 }, "{}", written.body);
            let member = format!("m.room.member/{}", escape(&bob.user_id));
            put(&alice, &member, json!({ "membership": "guest of honour" })).await.refused(400, "M_BAD_JSON");
            // What takes power or presence is forbidden, as ever.
            put(&bob, "m.room.power_levels/", json!({ "users": { &bob.user_id: 100 } })).await.refused(403, "M_FORBIDDEN");
            put(&alice, &member, json!({ "membership": "join" })).await.refused(403, "M_FORBIDDEN");
            bob.leave(&room).await.ok();
            put(&bob, "m.room.create/", create).await.refused(403, "M_FORBIDDEN");
        }
    }

    async fn a_join_says_what_else_is_in_its_body(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "pub" })).await;
        let member = at(&room, &format!("/state/m.room.member/{}", escape(&bob.user_id)));
        for path in [at(&room, "/join"), format!("/_matrix/client/v3/join/{}", escape(&room)), "/_matrix/client/v3/join/%23pub%3Alocalhost".to_owned()] {
            let body = json!({
                "org.example.foo": { "bar": [1] }, "reason": "why not", "membership": "ban",
                "join_authorised_via_users_server": alice.user_id, "third_party_invite": 7, "displayname": "Bob here",
            });
            bob.post(&path, body).await.ok();
            let content = alice.get(&member).await.ok();
            let expected = json!({
                "membership": "join", "org.example.foo": { "bar": [1] }, "reason": "why not", "displayname": "Bob here",
            });
            assert_eq!(content, expected, "{path}");
            // Once more changes nothing.
            bob.post(&path, json!({ "org.example.foo": 2 })).await.ok();
            assert_eq!(alice.get(&member).await.ok(), expected);
            bob.leave(&room).await.ok();
            bob.post(&path, json!({ "n": 1.5 })).await.refused(400, "M_BAD_JSON");
            bob.post(&path, json!({ "reason": 7 })).await.refused(400, "M_BAD_JSON");
            bob.post(&path, json!([])).await.refused(400, "M_BAD_JSON");
        }
    }

    async fn a_transaction_id_is_used_once(world) {
        let alice = world.user("alice").await;
        let (one, other) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
        let send = async |client: &Client, room: &str, kind: &str| {
            let body = json!({ "msgtype": "m.text", "body": "once" });
            client.put(&at(room, &format!("/send/{kind}/same")), body).await.ok()["event_id"].clone()
        };
        let first = send(&alice, &one, "m.room.message").await;
        assert_eq!(send(&alice, &one, "m.room.message").await, first);
        // It holds for one device and one path.
        assert_ne!(send(&alice, &other, "m.room.message").await, first);
        assert_ne!(send(&alice, &one, "org.example").await, first);
        let elsewhere = world.login(&alice).await;
        assert_ne!(send(&elsewhere, &one, "m.room.message").await, first);
        let page = alice.get(&at(&one, "/messages?dir=b&limit=100")).await.ok();
        let sent = page["chunk"].as_array().unwrap().iter().filter(|e| e["content"]["body"] == "once").count();
        assert_eq!(sent, 3);
    }

    async fn members_come_and_go(world) {
        let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        bob.join(&room).await.refused(403, "M_FORBIDDEN");
        alice.invite(&room, &bob.user_id).await.ok();
        bob.join(&room).await.ok();
        alice.invite(&room, &bob.user_id).await.refused(403, "M_FORBIDDEN");
        let body = json!({ "user_id": bob.user_id, "reason": "because" });
        eve.post(&at(&room, "/kick"), body.clone()).await.refused(403, "M_FORBIDDEN");
        bob.post(&at(&room, "/kick"), json!({ "user_id": alice.user_id })).await.refused(403, "M_FORBIDDEN");
        alice.post(&at(&room, "/kick"), body.clone()).await.ok();
        let member = alice.get(&at(&room, &format!("/state/m.room.member/{}", escape(&bob.user_id)))).await.ok();
        assert_eq!((&member["membership"], &member["reason"]), (&json!("leave"), &json!("because")));
        alice.post(&at(&room, "/ban"), body.clone()).await.ok();
        alice.invite(&room, &bob.user_id).await.refused(403, "M_FORBIDDEN");
        alice.post(&at(&room, "/unban"), body).await.ok();
        alice.invite(&room, &bob.user_id).await.ok();
        bob.leave(&room).await.ok();
        bob.post(&at(&room, "/forget"), json!({})).await.ok();
        bob.get(&at(&room, "/messages?dir=b")).await.refused(403, "M_FORBIDDEN");
        alice.post(&at(&room, "/forget"), json!({})).await.refused(400, "M_UNKNOWN");
        let joined = alice.get(&at(&room, "/joined_members")).await.ok();
        assert_eq!(joined["joined"].as_object().unwrap().keys().collect::<Vec<_>>(), [&alice.user_id]);
    }

    async fn knocking(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let room = alice.create_room(json!({ "initial_state": [rule] })).await;
        let knock = format!("/_matrix/client/v3/knock/{}", escape(&room));
        bob.post(&knock, json!({ "reason": "let me in" })).await.ok();
        let sync = bob.sync(None).await;
        assert!(sync["rooms"]["knock"][&room]["knock_state"]["events"].as_array().is_some_and(|e| !e.is_empty()), "{sync}");
        alice.invite(&room, &bob.user_id).await.ok();
        bob.join(&room).await.ok();
        let closed = alice.create_room(json!({})).await;
        bob.post(&format!("/_matrix/client/v3/knock/{}", escape(&closed)), json!({})).await.refused(403, "M_FORBIDDEN");
    }

    async fn a_knock_on_a_room_that_also_takes_members_of_another(world) {
        let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
        let club = alice.create_room(json!({ "preset": "public_chat" })).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock_restricted", "allow": allow } });
        for version in ["10", "11", "12"] {
            let room = alice.create_room(json!({ "room_version": version, "initial_state": [rule] })).await;
            let knock = format!("/_matrix/client/v3/knock/{}", escape(&room));
            bob.join(&room).await.refused(403, "M_FORBIDDEN");
            let knocked = bob.post(&knock, json!({ "reason": "let me in" })).await.ok();
            assert_eq!(knocked, json!({ "room_id": room }));
            let member = at(&room, &format!("/state/m.room.member/{}", escape(&bob.user_id)));
            let knocking = alice.get(&member).await.ok();
            assert_eq!((&knocking["membership"], &knocking["reason"]), (&json!("knock"), &json!("let me in")));
            bob.get(&at(&room, "/messages?dir=b")).await.refused(403, "M_FORBIDDEN");
            // Denied, and asked again.
            alice.post(&at(&room, "/kick"), json!({ "user_id": bob.user_id, "reason": "no" })).await.ok();
            assert_eq!(alice.get(&member).await.ok()["reason"], "no");
            bob.post(&knock, json!({})).await.ok();
            bob.join(&club).await.ok();
            bob.join(&room).await.ok();
            let joined = alice.get(&member).await.ok();
            assert_eq!(joined["join_authorised_via_users_server"], alice.user_id.as_str());
            bob.post(&knock, json!({})).await.refused(403, "M_FORBIDDEN");
            bob.leave(&club).await.ok();
            // The conditions are for coming in: whoever is in stays, and a new name vouches for nobody.
            let name = format!("/_matrix/client/v3/profile/{}/displayname", escape(&bob.user_id));
            bob.put(&name, json!({ "displayname": format!("Bob {version}") })).await.ok();
            let renamed = alice.get(&member).await.ok();
            assert!(renamed.get("join_authorised_via_users_server").is_none(), "{renamed}");
            alice.post(&at(&room, "/ban"), json!({ "user_id": eve.user_id })).await.ok();
            eve.post(&knock, json!({})).await.refused(403, "M_FORBIDDEN");
        }
        // Rooms of older versions know no such rule: nobody comes in by it.
        let old = alice.create_room(json!({ "room_version": "9", "initial_state": [rule] })).await;
        bob.join(&club).await.ok();
        bob.join(&old).await.refused(403, "M_FORBIDDEN");
        bob.post(&format!("/_matrix/client/v3/knock/{}", escape(&old)), json!({})).await.refused(403, "M_FORBIDDEN");
        bob.post("/_matrix/client/v3/knock/!nowhere:localhost", json!({})).await.refused(403, "M_FORBIDDEN");
    }

    async fn reasons_are_given_along(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        let (invite, kick) = (at(&room, "/invite"), at(&room, "/kick"));
        let (join, leave) = (at(&room, "/join"), at(&room, "/leave"));
        let other = |reason: &str| json!({ "user_id": bob.user_id, "reason": reason });
        let member = at(&room, &format!("/state/m.room.member/{}", escape(&bob.user_id)));
        for (client, path, body, membership) in [
            (&alice, &invite, other("welcome"), "invite"),
            (&bob, &leave, json!({ "reason": "not now" }), "leave"),
            (&alice, &invite, other("please"), "invite"),
            (&bob, &join, json!({ "reason": "well then" }), "join"),
            (&alice, &kick, other("bye"), "leave"),
        ] {
            client.post(path, body.clone()).await.ok();
            let now = alice.get(&member).await.ok();
            assert_eq!((&now["membership"], &now["reason"]), (&json!(membership), &body["reason"]));
        }
        bob.post(&leave, json!({ "reason": 7 })).await.refused(400, "M_BAD_JSON");
    }

    /// A room that was forgotten is told of again only when the user is in it again, invited, or knocking.
    async fn what_is_forgotten_stays_forgotten(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        bob.leave(&room).await.ok();
        bob.post(&at(&room, "/forget"), json!({})).await.ok();
        let since = bob.sync(None).await["next_batch"].as_str().unwrap().to_owned();
        let (body, filter) = (json!({ "user_id": bob.user_id }), escape(r#"{"room":{"include_leave":true}}"#));
        for act in ["/ban", "/unban"] {
            alice.post(&at(&room, act), body.clone()).await.ok();
            for since in [None, Some(&*since)] {
                let sync = bob.sync_with(since, &format!("&filter={filter}")).await;
                assert!(sync["rooms"]["leave"].get(&room).is_none(), "{act} {sync}");
            }
            bob.get(&at(&room, "/messages?dir=b")).await.refused(403, "M_FORBIDDEN");
        }
        alice.invite(&room, &bob.user_id).await.ok();
        let sync = bob.sync(Some(&since)).await;
        assert!(sync["rooms"]["invite"].get(&room).is_some(), "{sync}");
        bob.leave(&room).await.ok();
        bob.get(&at(&room, "/messages?dir=b")).await.ok();
    }

    async fn aliases(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "kitchen" })).await;
        let path = |alias: &str| format!("/_matrix/client/v3/directory/room/{}", escape(alias));
        assert_eq!(bob.get(&path("#kitchen:localhost")).await.ok()["room_id"], room);
        bob.join("#kitchen:localhost").await.ok();
        assert_eq!(state(&bob, &room, "m.room.canonical_alias").await["alias"], "#kitchen:localhost");
        let taken = bob.post("/_matrix/client/v3/createRoom", json!({ "room_alias_name": "kitchen" })).await;
        taken.refused(400, "M_ROOM_IN_USE");
        bob.get("/_matrix/client/v3/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().iter().for_each(|joined| {
            assert_eq!(*joined, room, "the refused room is not half made");
        });
        bob.put(&path("#cellar:localhost"), json!({ "room_id": room })).await.ok();
        bob.put(&path("#cellar:localhost"), json!({ "room_id": room })).await.refused(409, "M_UNKNOWN");
        bob.delete(&path("#kitchen:localhost")).await.refused(403, "M_FORBIDDEN");
        bob.delete(&path("#cellar:localhost")).await.ok();
        bob.get(&path("#cellar:localhost")).await.refused(404, "M_NOT_FOUND");
        bob.join("#cellar:localhost").await.refused(404, "M_NOT_FOUND");
    }

    async fn redaction(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let (hers, his) = (alice.say(&room, "hers").await, bob.say(&room, "his").await);
        let redact = |event: &str, txn: u8| at(&room, &format!("/redact/{}/{txn}", escape(event)));
        bob.put(&redact(&hers, 1), json!({})).await.refused(403, "M_FORBIDDEN");
        let redaction = bob.put(&redact(&his, 2), json!({ "reason": "typo" })).await.ok();
        assert_eq!(bob.put(&redact(&his, 2), json!({ "reason": "typo" })).await.ok(), redaction);
        let event = alice.get(&at(&room, &format!("/event/{}", escape(&his)))).await.ok();
        assert_eq!(event["content"], json!({}));
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction["event_id"]);
        assert_eq!(event["unsigned"]["redacted_because"]["content"]["redacts"], his);
        alice.put(&redact("$unknown", 3), json!({})).await.refused(404, "M_NOT_FOUND");
    }

    async fn pages_in_both_directions(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let mut sent = Vec::new();
        for n in 0..40 {
            sent.push(alice.say(&room, &n.to_string()).await);
        }
        let filter = escape(r#"{"types":["m.room.message"]}"#);
        for direction in ["b", "f"] {
            let mut found: Vec<String> = Vec::new();
            let mut from = String::new();
            loop {
                let path = format!("/messages?dir={direction}&limit=7&filter={filter}{from}");
                let page = alice.get(&at(&room, &path)).await.ok();
                found.extend(page["chunk"].as_array().unwrap().iter().map(|e| e["event_id"].as_str().unwrap().to_owned()));
                match page["end"].as_str() {
                    Some(end) => from = format!("&from={end}"),
                    None => break,
                }
            }
            if direction == "b" {
                found.reverse();
            }
            assert_eq!(found, sent, "direction {direction}");
        }
        let context = alice.get(&at(&room, &format!("/context/{}?limit=4", escape(&sent[20])))).await.ok();
        assert_eq!(context["event"]["event_id"], sent[20]);
        assert_eq!(context["events_before"][0]["event_id"], sent[19]);
        assert_eq!(context["events_after"][0]["event_id"], sent[21]);
        assert!(context["state"].as_array().is_some_and(|state| !state.is_empty()));
    }

    async fn an_upgrade_moves_the_room(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let old = alice.create_room(json!({ "preset": "public_chat", "room_version": "11", "name": "Kitchen", "room_alias_name": "kitchen" })).await;
        bob.join(&old).await.ok();
        bob.post(&at(&old, "/upgrade"), json!({ "new_version": "12" })).await.refused(403, "M_FORBIDDEN");
        let upgraded = alice.post(&at(&old, "/upgrade"), json!({ "new_version": "12" })).await.ok();
        let new = upgraded["replacement_room"].as_str().unwrap();
        assert_eq!(state(&alice, &old, "m.room.tombstone").await["replacement_room"], new);
        assert_eq!(state(&alice, new, "m.room.create").await["predecessor"]["room_id"], old);
        assert_eq!(state(&alice, new, "m.room.name").await["name"], "Kitchen");
        bob.join("#kitchen:localhost").await.ok();
        assert_eq!(alice.get("/_matrix/client/v3/directory/room/%23kitchen%3Alocalhost").await.ok()["room_id"], new);
    }

    async fn an_upgraded_room_keeps_its_place_among_others(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let space = alice.create_room(json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } })).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": space }]);
        let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
        let parent = json!({ "type": "m.space.parent", "state_key": space, "content": { "via": ["localhost"], "canonical": true } });
        let room = alice.create_room(json!({ "initial_state": [rule, parent] })).await;
        // Whoever upgrades has no say in this one.
        let theirs = bob.create_room(json!({ "preset": "public_chat", "initial_state": [rule, parent] })).await;
        alice.join(&theirs).await.ok();
        let child = |room: &str| format!("/state/m.space.child/{}", escape(room));
        alice.put(&at(&space, &child(&room)), json!({ "via": ["localhost"], "order": "a" })).await.ok();
        let look = async |reader: &Client, room: &str, rest: &str| reader.get(&at(room, rest)).await.body;
        let upgrade = async |room: &str| {
            let upgraded = alice.post(&at(room, "/upgrade"), json!({ "new_version": "12" })).await.ok();
            upgraded["replacement_room"].as_str().unwrap().to_owned()
        };

        let new_room = upgrade(&room).await;
        assert_eq!(look(&alice, &space, &child(&new_room)).await, json!({ "via": ["localhost"], "order": "a" }));
        assert_eq!(look(&alice, &space, &child(&room)).await, json!({}));
        let parent_of = |space: &str| format!("/state/m.space.parent/{}", escape(space));
        assert_eq!(look(&alice, &new_room, &parent_of(&space)).await["canonical"], true);

        let new_space = upgrade(&space).await;
        assert_eq!(look(&alice, &new_space, &child(&new_room)).await["order"], "a");
        assert_eq!(look(&alice, &new_room, &parent_of(&new_space)).await["canonical"], true);
        assert_eq!(look(&alice, &new_room, &parent_of(&space)).await, json!({}));
        let both = json!([
            { "type": "m.room_membership", "room_id": space }, { "type": "m.room_membership", "room_id": new_space },
        ]);
        assert_eq!(look(&alice, &new_room, "/state/m.room.join_rules").await["allow"], both);
        assert_eq!(look(&bob, &theirs, "/state/m.room.join_rules").await["allow"], allow);
        assert_eq!(look(&bob, &theirs, &parent_of(&space)).await["canonical"], true);
        // Who is in the new space only comes in.
        bob.join(&new_room).await.refused(403, "M_FORBIDDEN");
        bob.join(&new_space).await.ok();
        bob.join(&new_room).await.ok();
    }

    async fn fifty_at_once_keep_one_order(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let sends = (0..50).map(|n| { let (alice, room) = (alice.clone(), room.clone()); async move { alice.say(&room, &n.to_string()).await } });
        let sent = futures_util::future::join_all(sends).await;
        let page = alice.get(&at(&room, "/messages?dir=b&limit=50")).await.ok();
        let mut found: Vec<_> = page["chunk"].as_array().unwrap().iter().map(|e| e["event_id"].as_str().unwrap()).collect();
        let mut sent: Vec<_> = sent.iter().map(String::as_str).collect();
        found.sort_unstable();
        sent.sort_unstable();
        assert_eq!(found, sent);
    }
}
