//! `/sync`: what a client is told, when, and how long it waits.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, at, escape, next, texts},
};

pub(crate) async fn moderate(moderator: &Client, room: &str, action: &str, user: &Client) {
    let path = format!("/_matrix/client/v3/rooms/{}/{action}", escape(room));
    moderator.post(&path, json!({ "user_id": user.user_id })).await.ok();
}

async fn rename(user: &Client, room: &str, name: &str) {
    user.put(&format!("/_matrix/client/v3/rooms/{}/state/m.room.name/", escape(room)), json!({ "name": name }))
        .await
        .ok();
}

/// What a sync tells of a room that was left: the memberships in its timeline, and the memberships and names in its
/// state.
fn outside(sync: &Value, room: &str) -> (Vec<Value>, Vec<Value>) {
    let left = &sync["rooms"]["leave"][room];
    let timeline = left["timeline"]["events"].as_array().unwrap_or_else(|| panic!("{room} was not left: {sync}"));
    let state = left.get("state").or_else(|| left.get("state_after")).unwrap_or_else(|| panic!("no state: {sync}"));
    let said = |events: &[Value], keys: &[&str]| -> Vec<Value> {
        let contents = events.iter().flat_map(|event| keys.iter().map(|key| event["content"][*key].clone()));
        contents.filter(|value| !value.is_null()).collect()
    };
    (said(timeline, &["membership"]), said(state["events"].as_array().unwrap(), &["membership", "name"]))
}

/// The events of a part of a room.
pub(crate) fn of<'a>(room: &'a Value, part: &str) -> &'a Vec<Value> {
    room[part]["events"].as_array().unwrap_or_else(|| panic!("no {part}: {room}"))
}

on_both! {
    async fn a_message_wakes_who_waits(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        let (mut sync, _) = tokio::join!(bob.wait(&since), alice.say(&room, "hello"));
        // That she is online may come alone before it.
        if sync["rooms"].is_null() && !sync["presence"].is_null() {
            sync = bob.wait(&next(&sync)).await;
        }
        assert_eq!(texts(&sync, &room), ["hello"]);
        assert_eq!(sync["rooms"]["join"][&room]["unread_notifications"]["notification_count"], 1);
        // Nothing new: the same request waits and then says so.
        let quiet = bob.get(&format!("/_matrix/client/v3/sync?timeout=50&since={}", next(&sync))).await.ok();
        assert!(quiet.get("rooms").is_none(), "{quiet}");
    }

    async fn a_retry_is_told_the_same(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let since = next(&alice.sync(None).await);
        for n in 0..3 {
            alice.say(&room, &n.to_string()).await;
        }
        let first = texts(&alice.sync(Some(&since)).await, &room);
        assert_eq!(first, ["0", "1", "2"]);
        assert_eq!(texts(&alice.sync(Some(&since)).await, &room), first);
    }

    async fn the_sender_finds_its_transaction_id(world) {
        let alice = world.user("alice").await;
        let other = world.login(&alice).await;
        let room = alice.create_room(json!({})).await;
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/mine", escape(&room));
        alice.put(&path, json!({ "msgtype": "m.text", "body": "hi" })).await.ok();
        let newest = |sync: serde_json::Value| {
            sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().last().unwrap().clone()
        };
        assert_eq!(newest(alice.sync(None).await)["unsigned"]["transaction_id"], "mine");
        assert!(newest(other.sync(None).await)["unsigned"].get("transaction_id").is_none());
    }

    async fn invites_are_told_with_stripped_state_and_leaving_ends_them(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let since = next(&bob.sync(None).await);
        let room = alice.create_room(json!({ "name": "Kitchen", "invite": [bob.user_id], "is_direct": true })).await;
        let sync = bob.sync(Some(&since)).await;
        let events = sync["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap().clone();
        let kinds: Vec<_> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
        for kind in ["m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        let own = events.iter().find(|e| e["state_key"] == bob.user_id.as_str()).unwrap();
        assert_eq!(own["content"]["is_direct"], true);
        // Clients date the invitation by that.
        assert!(events.iter().all(|event| event["origin_server_ts"].is_u64()), "{events:?}");
        bob.leave(&room).await.ok();
        let sync = bob.sync(Some(&next(&sync))).await;
        assert!(sync["rooms"]["leave"].get(&room).is_some(), "{sync}");
    }

    /// What becomes of a room is for its members. Whoever is invited again is invited to what it is by then.
    async fn an_invitation_shows_the_room_as_it_was(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = alice.create_room(json!({ "preset": "private_chat", "name": "Kitchen", "invite": [bob.user_id] })).await;
        let set = async |kind: &str, content: Value| {
            alice.put(&at(&room, &format!("/state/{kind}")), content).await.ok();
        };
        set("m.room.join_rules", json!({ "join_rule": "knock" })).await;
        carol.post(&format!("/_matrix/client/v3/knock/{}", escape(&room)), json!({})).await.ok();
        set("m.room.name", json!({ "name": "The plot" })).await;
        set("m.room.topic", json!({ "topic": "Secret" })).await;
        alice.put(&format!("/_matrix/client/v3/profile/{}/displayname", escape(&alice.user_id)), json!({ "displayname": "Al" })).await.ok();
        for _ in 0..60 {
            alice.say(&room, "more than is remembered").await;
        }
        let shown = async |user: &Client, list: &str, kind: &str| {
            let events = user.sync(None).await["rooms"][list][&room][format!("{list}_state")]["events"].clone();
            let events = events.as_array().unwrap().clone();
            events.into_iter().find(|event| event["type"] == kind).map(|event| event["content"].clone())
        };
        for (user, list) in [(&bob, "invite"), (&carol, "knock")] {
            assert_eq!(shown(user, list, "m.room.name").await, Some(json!({ "name": "Kitchen" })), "{list}");
            assert_eq!(shown(user, list, "m.room.topic").await, None, "{list}");
        }
        assert_eq!(shown(&bob, "invite", "m.room.join_rules").await, Some(json!({ "join_rule": "invite" })));
        assert_ne!(shown(&bob, "invite", "m.room.member").await.unwrap()["displayname"], "Al");
        bob.leave(&room).await.ok();
        alice.invite(&room, &bob.user_id).await.ok();
        assert_eq!(shown(&bob, "invite", "m.room.name").await, Some(json!({ "name": "The plot" })));
        assert_eq!(shown(&bob, "invite", "m.room.topic").await, Some(json!({ "topic": "Secret" })));
    }

    async fn who_leaves_is_told_up_to_there(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let since = next(&bob.sync(None).await);
        alice.say(&room, "before").await;
        alice.post(&format!("/_matrix/client/v3/rooms/{}/kick", escape(&room)), json!({ "user_id": bob.user_id })).await.ok();
        alice.say(&room, "after").await;
        let sync = bob.sync(Some(&since)).await;
        let events = sync["rooms"]["leave"][&room]["timeline"]["events"].as_array().unwrap().clone();
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events[0]["content"]["body"], "before");
        assert_eq!(events[1]["content"]["membership"], "leave");
        let later = bob.get(&format!("/_matrix/client/v3/sync?timeout=0&since={}", next(&sync))).await.ok();
        assert!(later["rooms"]["leave"].get(&room).is_none(), "{later}");
        let initial = bob.sync(None).await;
        assert!(initial["rooms"]["leave"].get(&room).is_none());
        let filter = escape(r#"{"room":{"include_leave":true}}"#);
        let initial = bob.sync_with(None, &format!("&filter={filter}")).await;
        assert!(initial["rooms"]["leave"].get(&room).is_some(), "{initial}");
    }

    /// Trap: history visibility, leavers.
    async fn what_becomes_of_who_has_left_opens_nothing(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for state_after in [false, true] {
            let sync = async |since: &str| {
                bob.sync_with(Some(since), &format!("&use_state_after={state_after}")).await
            };
            let alone = |membership: &str| {
                // Clients that want the state after the timeline take none from there.
                let state = if state_after { vec![json!(membership)] } else { Vec::new() };
                (vec![json!(membership)], state)
            };
            let room = alice.create_room(json!({ "preset": "public_chat", "name": "open" })).await;
            bob.join(&room).await.ok();
            let joined = next(&bob.sync(None).await);
            moderate(&alice, &room, "kick", &bob).await;
            rename(&alice, &room, "secret").await;
            let kicked = sync(&joined).await;
            assert_eq!(outside(&kicked, &room).0, ["leave"]);
            moderate(&alice, &room, "ban", &bob).await;
            let banned = sync(&next(&kicked)).await;
            assert_eq!(outside(&banned, &room), alone("ban"));
            moderate(&alice, &room, "unban", &bob).await;
            let unbanned = sync(&next(&banned)).await;
            assert_eq!(outside(&unbanned, &room), alone("leave"));
            assert!(sync(&next(&unbanned)).await.get("rooms").is_none(), "it is told once");

            // The second invitation is declined.
            alice.invite(&room, &bob.user_id).await.ok();
            let invited = sync(&next(&unbanned)).await;
            assert!(invited["rooms"]["invite"].get(&room).is_some(), "{invited}");
            rename(&alice, &room, "secret still").await;
            bob.leave(&room).await.ok();
            let declined = sync(&next(&invited)).await;
            assert_eq!(outside(&declined, &room), alone("leave"));

            // Who has been away all the time is told how they left and what is now, and nothing else.
            let away = sync(&joined).await;
            let (memberships, state) = outside(&away, &room);
            assert_eq!((memberships, state.len()), (vec![json!("leave"), json!("leave")], usize::from(state_after)));
            assert!(!away.to_string().contains("secret"), "{away}");
            let filter = escape(r#"{"room":{"include_leave":true}}"#);
            let initial = bob.sync_with(None, &format!("&filter={filter}&use_state_after={state_after}")).await;
            let (memberships, state) = outside(&initial, &room);
            assert_eq!(memberships[memberships.len() - 2..], ["leave", "leave"]);
            assert!(!state_after || state.contains(&json!("open")), "{initial}");
            assert!(!initial["rooms"]["leave"][&room].to_string().contains("secret"), "{initial}");
        }
    }

    /// Trap: lazy-loaded members. The sender of every timeline event is known to the client.
    async fn lazy_loading_tells_the_senders(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat", "name": "Kitchen" })).await;
        let mut members = Vec::new();
        for name in ["bob", "carol", "dave"] {
            let member = world.user(name).await;
            member.join(&room).await.ok();
            members.push(member);
        }
        members[1].say(&room, "hi").await;
        let filter = escape(r#"{"room":{"timeline":{"limit":1},"state":{"lazy_load_members":true}}}"#);
        let sync = alice.sync_with(None, &format!("&filter={filter}")).await;
        let state = sync["rooms"]["join"][&room]["state"]["events"].as_array().unwrap().clone();
        let mut told: Vec<_> =
            state.iter().filter(|e| e["type"] == "m.room.member").map(|e| e["state_key"].as_str().unwrap()).collect();
        told.sort_unstable();
        assert_eq!(told, [&alice.user_id, &members[1].user_id]);
        members[2].say(&room, "me too").await;
        let sync = alice.sync_with(Some(&next(&sync)), &format!("&filter={filter}")).await;
        let state = sync["rooms"]["join"][&room]["state"]["events"].as_array().unwrap_or_else(|| panic!("{sync}")).clone();
        assert!(state.iter().any(|e| e["state_key"] == members[2].user_id.as_str()), "{state:?}");
        // A room without a name is called by its heroes, who are told as well.
        rename(&alice, &room, "").await;
        let initial = alice.sync_with(None, &format!("&filter={filter}")).await;
        let joined = &initial["rooms"]["join"][&room];
        let heroes = joined["summary"]["m.heroes"].as_array().unwrap();
        assert_eq!(heroes.len(), 3, "{joined}");
        for hero in heroes {
            assert!(of(joined, "state").iter().any(|e| e["state_key"] == *hero), "{hero}: {joined}");
        }
    }

    async fn the_summary_names_heroes(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "invite": [bob.user_id] })).await;
        let sync = alice.sync(None).await;
        let summary = &sync["rooms"]["join"][&room]["summary"];
        assert_eq!(summary["m.heroes"], json!([bob.user_id]));
        assert_eq!((&summary["m.joined_member_count"], &summary["m.invited_member_count"]), (&json!(1), &json!(1)));
    }

    async fn receipts_typing_and_account_data(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let event = alice.say(&room, "read me").await;
        let since = next(&alice.sync(None).await);
        let at = |rest: &str| at(&room, rest);
        bob.post(&at(&format!("/receipt/m.read/{}", escape(&event))), json!({})).await.ok();
        let sync = alice.sync(Some(&since)).await;
        let receipt = &sync["rooms"]["join"][&room]["ephemeral"]["events"][0];
        assert!(receipt["content"][&event]["m.read"][&bob.user_id]["ts"].is_number(), "{sync}");

        let typing = at(&format!("/typing/{}", escape(&bob.user_id)));
        bob.put(&typing, json!({ "typing": true, "timeout": 30_000 })).await.ok();
        let sync = alice.sync(Some(&next(&sync))).await;
        let events = &sync["rooms"]["join"][&room]["ephemeral"]["events"];
        assert_eq!(events[0]["content"]["user_ids"], json!([bob.user_id]), "{sync}");
        world.clock.advance(Duration::from_secs(31));
        let sync = alice.wait(&next(&sync)).await;
        let events = &sync["rooms"]["join"][&room]["ephemeral"]["events"];
        assert_eq!(events[0]["content"]["user_ids"], json!([]), "{sync}");

        let path = format!("/_matrix/client/v3/user/{}/account_data/org.example", escape(&alice.user_id));
        alice.put(&path, json!({ "a": 1 })).await.ok();
        let sync = alice.sync(Some(&next(&sync))).await;
        assert_eq!(sync["account_data"]["events"], json!([{ "type": "org.example", "content": { "a": 1 } }]));
    }

    async fn a_private_receipt_is_told_to_its_owner_only(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let event = alice.say(&room, "read me").await;
        let (hers, his) = (next(&alice.sync(None).await), next(&bob.sync(None).await));
        let path = format!("/_matrix/client/v3/rooms/{}/receipt/m.read.private/{}", escape(&room), escape(&event));
        bob.post(&path, json!({})).await.ok();
        let sync = bob.sync(Some(&his)).await;
        let room_of_his = &sync["rooms"]["join"][&room];
        assert!(room_of_his["ephemeral"]["events"][0]["content"][&event]["m.read.private"].is_object(), "{sync}");
        assert_eq!(room_of_his["unread_notifications"]["notification_count"], 0);
        let sync = alice.get(&format!("/_matrix/client/v3/sync?timeout=0&since={hers}")).await.ok();
        assert!(sync.get("rooms").is_none(), "{sync}");
    }

    async fn mentions_highlight(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/1", escape(&room));
        let body = json!({ "msgtype": "m.text", "body": "bob!", "m.mentions": { "user_ids": [bob.user_id] } });
        alice.put(&path, body).await.ok();
        alice.say(&room, "anybody?").await;
        let sync = bob.sync(None).await;
        let unread = &sync["rooms"]["join"][&room]["unread_notifications"];
        assert_eq!((&unread["notification_count"], &unread["highlight_count"]), (&json!(2), &json!(1)), "{sync}");
    }

    async fn everything_is_there_after_a_restart(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({ "name": "Kitchen" })).await;
        alice.say(&room, "one").await;
        let before = alice.sync(None).await;
        let since = next(&before);
        let event = alice.say(&room, "two").await;
        let world = world.restarted().await;
        let again = world.login(&alice).await.at(&world);
        let sync = again.sync(Some(&since)).await;
        assert_eq!(texts(&sync, &room), ["two"]);
        let initial = again.sync(None).await;
        assert_eq!(texts(&initial, &room), ["one", "two"]);
        let found = again.get(&format!("/_matrix/client/v3/rooms/{}/event/{}", escape(&room), escape(&event))).await.ok();
        assert_eq!(found["content"]["body"], "two");
    }

    async fn shutting_down_answers_who_waits(world) {
        let alice = world.user("alice").await;
        let since = next(&alice.sync(None).await);
        // Longer than this client has patience for an answer.
        let waiting = alice.sync_with(Some(&since), "&timeout=120000");
        let stop = async {
            world.until_a_sync_waits().await;
            for node in &world.nodes {
                node.app.tasks.shutdown().start("the test says so");
            }
        };
        let (sync, ()) = tokio::join!(waiting, stop);
        assert!(sync["next_batch"].is_string());
    }
}
