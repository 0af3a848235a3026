//! What the server tells its users.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-notices>

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, escape, next, password},
};

const SEND: &str = "/_synapse/admin/v1/send_server_notice";
const DELAYED: &str = "/_matrix/client/unstable/org.matrix.msc4140";

/// Waits for an invitation: the room, what is told of it, and where to sync on from.
async fn invited(user: &Client, since: &str) -> (String, Value, String) {
    let mut since = since.to_owned();
    for _ in 0..6 {
        let sync = user.wait(&since).await;
        since = next(&sync);
        if let Some((room, told)) = sync["rooms"]["invite"].as_object().and_then(|rooms| rooms.iter().next()) {
            return (room.clone(), told["invite_state"]["events"].clone(), since);
        }
    }
    panic!("{} is not invited", user.user_id)
}

on_both! {
    async fn the_server_speaks_to_a_user_in_one_room_which_they_have_to_see(world, config => {
        config.server_notices.localpart = Some("notices".to_owned());
        "The operators".clone_into(&mut config.server_notices.name);
        config.server_notices.avatar_url = Some("mxc://localhost/seal".to_owned());
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let operator = world.administration().await;
        let since = next(&alice.sync(None).await);
        assert_eq!(operator.send_notice(Some("alice"), "Good day.").await.unwrap(), 1);
        let (room, told_of_it, since) = invited(&alice, &since).await;
        let told_of = |kind: &str| {
            let events = told_of_it.as_array().unwrap();
            events.iter().find(|event| event["type"] == kind).unwrap()["content"].clone()
        };
        assert_eq!(told_of("m.room.name"), json!({ "name": "The operators" }));
        assert_eq!(told_of("m.room.avatar"), json!({ "url": "mxc://localhost/seal" }));

        alice.leave(&room).await.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
        let own = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/{}", escape(&room), escape(&alice.user_id));
        let left = json!({ "membership": "leave" });
        let later = format!("{own}?org.matrix.msc4140.delay=1");
        for path in [&own, &later] {
            alice.put(path, left.clone()).await.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
        }
        let delayed = format!("{DELAYED}/rooms/{}/delayed_event/m.room.member/1", escape(&room));
        let schedule = json!({ "delay_ms": 1, "state_key": alice.user_id, "content": left });
        alice.put(&delayed, schedule).await.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
        let kick = format!("/_matrix/client/v3/rooms/{}/kick", escape(&room));
        let kicked = alice.post(&kick, json!({ "user_id": alice.user_id })).await;
        kicked.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
        bob.leave(&room).await.refused(403, "M_FORBIDDEN");
        bob.join(&room).await.refused(403, "M_FORBIDDEN");
        alice.join(&room).await.ok();

        // A second notice comes into the same room.
        operator.send_notice(Some("@alice:localhost"), "And good night.").await.unwrap();
        assert_eq!(alice.hear(&room, &since, 2).await, ["Good day.", "And good night."]);
        let sync = alice.sync(None).await;
        let rooms = sync["rooms"]["join"].as_object().unwrap();
        assert_eq!(rooms.keys().collect::<Vec<_>>(), [&room]);
        let events = rooms[&room]["timeline"]["events"].as_array().unwrap();
        let notice = events.iter().find(|event| event["type"] == "m.room.message").unwrap();
        assert_eq!(notice["sender"], "@notices:localhost");
        assert_eq!(notice["content"]["msgtype"], "m.server_notice");
        assert!(notice["content"]["server_notice_type"].is_string());
        let tags = rooms[&room]["account_data"]["events"].as_array().unwrap();
        let tags = tags.iter().find(|event| event["type"] == "m.tag").unwrap();
        assert!(tags["content"]["tags"]["m.server_notice"].is_object(), "{tags}");
        let answer = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/1", escape(&room));
        let text = json!({ "msgtype": "m.text", "body": "thanks" });
        alice.put(&answer, text).await.refused(403, "M_FORBIDDEN");

        // Whoever has joined may leave, now or later. The next notice brings them back to the same room, and what was
        // to be done later is refused when its time has come.
        let scheduled = alice.put(&format!("{own}?org.matrix.msc4140.delay=60000"), left).await.ok();
        alice.leave(&room).await.ok();
        let world = world.restarted().await;
        let (alice, operator) = (alice.at(&world), world.administration().await);
        let since = next(&alice.sync(None).await);
        operator.send_notice(Some("alice"), "Once more.").await.unwrap();
        assert_eq!(invited(&alice, &since).await.0, room);
        let scheduled = format!("{DELAYED}/delayed_events/{}", scheduled["delay_id"].as_str().unwrap());
        let sent = alice.post(&format!("{scheduled}/send"), json!({})).await;
        sent.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
        let profile = "/_matrix/client/v3/profile/@notices:localhost";
        let shown = world.call("GET", profile, None, None).await.ok();
        assert_eq!(shown, json!({ "displayname": "The operators", "avatar_url": "mxc://localhost/seal" }));

        // A new name reaches the room with the next notice.
        alice.join(&room).await.ok();
        let mut world = world;
        "The owls".clone_into(&mut world.config.server_notices.name);
        let world = world.restarted().await;
        let (alice, operator) = (alice.at(&world), world.administration().await);
        let since = next(&alice.sync(None).await);
        operator.send_notice(Some("alice"), "Guess who.").await.unwrap();
        assert_eq!(alice.hear(&room, &since, 1).await, ["Guess who."]);
        let sender = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/@notices:localhost", escape(&room));
        assert_eq!(alice.get(&sender).await.ok()["displayname"], "The owls");
    }

    async fn a_notice_to_all_reaches_everybody_once(world, config => {
        config.server_notices.localpart = Some("notices".to_owned());
    }) {
        let users = [world.user("alice").await, world.user("bob").await, world.user("carol").await];
        let gone = world.user("dave").await;
        gone.post("/_matrix/client/v3/account/deactivate", json!({ "auth": gone.password() })).await.ok();
        let mut before = Vec::new();
        for user in &users {
            before.push(next(&user.sync(None).await));
        }
        let operator = world.administration().await;
        assert_eq!(operator.send_notice(None, "We are back at eight.").await.unwrap(), 3);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(operator.send_notice(None, "We are back.").await.unwrap(), 3);
        let mut rooms = BTreeSet::new();
        for (user, since) in users.iter().zip(&before) {
            let (room, _, since) = invited(user, since).await;
            user.join(&room).await.ok();
            assert_eq!(user.hear(&room, &since, 2).await, ["We are back at eight.", "We are back."]);
            rooms.insert(room);
        }
        assert_eq!(rooms.len(), 3);
        assert!(operator.send_notice(Some("dave"), "Are you there?").await.is_err());
        assert!(operator.send_notice(Some("nobody"), "Who is there?").await.is_err());
        for wrong in ["", " \n", "\0", &"x".repeat(40_000)] {
            assert!(operator.send_notice(Some("alice"), wrong).await.is_err());
        }
    }

    async fn a_suspended_user_can_read_what_the_server_tells_them(world, config => {
        config.server_notices.localpart = Some("notices".to_owned());
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let (operator, root) = (world.administration().await, world.administrator("root").await);
        let public = alice.create_room(json!({ "preset": "public_chat" })).await;
        let since = next(&bob.sync(None).await);
        let suspend = format!("/_matrix/client/v1/admin/suspend/{}", escape(&bob.user_id));
        root.put(&suspend, json!({ "suspended": true })).await.ok();
        operator.send_notice(Some("bob"), "You are suspended, because.").await.unwrap();
        let (room, _, since) = invited(&bob, &since).await;
        bob.join(&public).await.refused(403, "M_USER_SUSPENDED");
        bob.post(&format!("/_matrix/client/v3/rooms/{}/join", escape(&room)), json!({})).await.ok();
        assert_eq!(bob.hear(&room, &since, 1).await, ["You are suspended, because."]);
        bob.join("!nowhere:localhost").await.refused(403, "M_USER_SUSPENDED");
    }

    async fn nobody_else_gets_the_name_in_which_the_server_speaks(world, config => {
        config.server_notices.localpart = Some("notices".to_owned());
    }) {
        let body = json!({ "username": "notices", "password": "a password", "auth": { "type": "m.login.dummy" } });
        world.call("POST", "/_matrix/client/v3/register", None, Some(body)).await.refused(400, "M_USER_IN_USE");
        for guess in ["", "a password"] {
            let body = Some(password("notices", guess));
            world.call("POST", "/_matrix/client/v3/login", None, body).await.refused(403, "M_FORBIDDEN");
        }
    }

    /// <https://element-hq.github.io/synapse/latest/admin_api/server_notices.html>
    async fn administrators_send_notices_once_for_each_transaction(world, config => {
        config.server_notices.localpart = Some("notices".to_owned());
    }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let root = world.administrator("root").await;
        let since = next(&alice.sync(None).await);
        let notice = |user: &str, text: &str| json!({ "user_id": user, "content": { "msgtype": "m.text", "body": text } });
        alice.post(SEND, json!({})).await.refused(403, "M_FORBIDDEN");
        alice.put(&format!("{SEND}/1"), notice(&bob.user_id, "hi")).await.refused(403, "M_FORBIDDEN");
        world.call("POST", SEND, None, Some(json!({}))).await.refused(401, "M_MISSING_TOKEN");

        let first = root.post(SEND, notice(&alice.user_id, "one")).await.ok();
        let again = root.post(SEND, notice(&alice.user_id, "one")).await.ok();
        assert_ne!(first["event_id"], again["event_id"]);
        let two = root.put(&format!("{SEND}/1"), notice(&alice.user_id, "two")).await.ok();
        let (room, _, since) = invited(&alice, &since).await;
        alice.leave(&room).await.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
        alice.join(&room).await.ok();
        assert_eq!(alice.hear(&room, &since, 3).await, ["one", "one", "two"]);

        let world = world.restarted().await;
        let (alice, root) = (alice.at(&world), root.at(&world));
        let since = next(&alice.sync(None).await);
        let path = format!("{SEND}/1");
        let copies = (0..4).map(|_| root.put(&path, notice(&alice.user_id, "two")));
        for copy in futures_util::future::join_all(copies).await {
            assert_eq!(copy.ok(), two);
        }
        // What another administrator or another user is sent under the same name is something else.
        let other = world.administrator("other").await;
        assert_ne!(other.put(&format!("{SEND}/1"), notice(&alice.user_id, "two")).await.ok(), two);
        assert_ne!(root.put(&format!("{SEND}/1"), notice(&bob.user_id, "two")).await.ok(), two);
        let topic = json!({ "user_id": alice.user_id, "type": "m.room.topic", "state_key": "", "content": { "topic": "news" } });
        let set = root.put(&format!("{SEND}/2"), topic.clone()).await.ok();
        assert_eq!(root.put(&format!("{SEND}/2"), topic).await.ok(), set);
        let read = alice.get(&format!("/_matrix/client/v3/rooms/{}/state/m.room.topic", escape(&room))).await.ok();
        assert_eq!(read["topic"], "news");
        assert_eq!(alice.hear(&room, &since, 1).await, ["two"]);

        root.post(SEND, notice("@nobody:localhost", "hi")).await.refused(404, "M_NOT_FOUND");
        root.post(SEND, notice("@alice:elsewhere.org", "hi")).await.refused(400, "M_INVALID_PARAM");
        root.post(SEND, notice("alice", "hi")).await.refused(400, "M_BAD_JSON");
        for wrong in [json!({}), json!({ "user_id": alice.user_id }), json!({ "user_id": alice.user_id, "content": "hi" })] {
            root.post(SEND, wrong).await.refused(400, "M_BAD_JSON");
        }
    }

    async fn a_server_without_a_voice_says_so(world) {
        let alice = world.user("alice").await;
        let root = world.administrator("root").await;
        let notice = json!({ "user_id": alice.user_id, "content": { "msgtype": "m.text", "body": "hi" } });
        let refused = root.post(SEND, notice).await;
        refused.refused(400, "M_UNKNOWN");
        assert!(refused.body["error"].as_str().unwrap().contains("server_notices.localpart"), "{}", refused.body);
        let refused = world.administration().await.send_notice(Some(&alice.user_id), "Hello").await.unwrap_err();
        assert!(refused.to_string().contains("server_notices.localpart"), "{refused}");
        // Somebody has the name already: the server stays without, and their account stays theirs.
        let mut world = world;
        world.config.server_notices.localpart = Some("alice".to_owned());
        let world = world.restarted().await;
        let alice = alice.at(&world);
        let room = alice.create_room(json!({})).await;
        let bob = world.user("bob").await;
        alice.invite(&room, &bob.user_id).await.ok();
        bob.leave(&room).await.ok();
    }
}
