//! What clients of old call and is answered still: the initial syncs, the event stream, and the paths of r0.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync>,
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events> and
//! <https://spec.matrix.org/v1.19/client-server-api/#room-previews>

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, at, escape},
};

const INITIAL_SYNC: &str = "/_matrix/client/v3/initialSync";
const EVENTS: &str = "/_matrix/client/v3/events";

/// A public room with this history visibility.
async fn room_with(creator: &Client, visibility: &str) -> String {
    let state = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": visibility } });
    creator.create_room(json!({ "preset": "public_chat", "initial_state": [state] })).await
}

async fn set(user: &Client, room: &str, kind: &str, content: Value) {
    user.put(&at(room, &format!("/state/{kind}")), content).await.ok();
}

async fn initial_sync(client: &Client, query: &str) -> Value {
    client.get(&format!("{INITIAL_SYNC}{query}")).await.ok()
}

/// The next piece of the stream, after at most ten seconds.
async fn listen(client: &Client, from: &Value, more: &str) -> Value {
    let from = from.as_str().unwrap();
    let timeout = if more.contains("&timeout=") { "" } else { "&timeout=10000" };
    client.get(&format!("{EVENTS}?from={from}{timeout}{more}")).await.ok()
}

/// Asks from where the caller is now on, without waiting.
async fn now(client: &Client, more: &str) -> Value {
    client.get(&format!("{EVENTS}?timeout=0{more}")).await.ok()["end"].clone()
}

fn peek(room: &str) -> String {
    format!("&room_id={}", escape(room))
}

fn bodies(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn find<'a>(events: &'a Value, kind: &str, key: &str) -> &'a Value {
    let mut events = events.as_array().unwrap().iter();
    events.find(|event| event["type"] == kind && event["state_key"] == key).unwrap_or(&Value::Null)
}

fn room_in<'a>(initial: &'a Value, room: &str) -> Option<&'a Value> {
    initial["rooms"].as_array().unwrap().iter().find(|info| info["room_id"] == room)
}

on_both! {
    async fn an_initial_sync_tells_every_room_as_it_is(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let nothing = initial_sync(&bob, "").await;
        assert_eq!((&nothing["rooms"], nothing["presence"].is_array()), (&json!([]), true));
        let kitchen = alice.create_room(json!({ "preset": "public_chat", "visibility": "public", "name": "old" })).await;
        bob.join(&kitchen).await.ok();
        for text in ["one", "two", "three"] {
            alice.say(&kitchen, text).await;
        }
        set(&alice, &kitchen, "m.room.name", json!({ "name": "Kitchen" })).await;
        alice.say(&kitchen, "four").await;
        let tags = format!("/_matrix/client/v3/user/{}/rooms/{}/tags/m.favourite", escape(&bob.user_id), escape(&kitchen));
        bob.put(&tags, json!({})).await.ok();
        let own = format!("/_matrix/client/v3/user/{}/account_data/org.example", escape(&bob.user_id));
        bob.put(&own, json!({ "a": 1 })).await.ok();
        let cellar = alice.create_room(json!({ "name": "Cellar", "invite": [bob.user_id] })).await;
        let attic = alice.create_room(json!({ "preset": "public_chat", "name": "Attic" })).await;
        bob.join(&attic).await.ok();
        alice.say(&attic, "before").await;
        bob.leave(&attic).await.ok();
        alice.say(&attic, "secret").await;
        set(&alice, &attic, "m.room.name", json!({ "name": "renamed" })).await;

        let initial = initial_sync(&bob, "?limit=3").await;
        let info = room_in(&initial, &kitchen).unwrap();
        assert_eq!((&info["membership"], &info["visibility"]), (&json!("join"), &json!("public")));
        assert_eq!(bodies(&info["messages"]["chunk"]), ["three", "four"], "oldest first, and the name between them");
        assert_eq!(info["messages"]["chunk"][0]["room_id"], kitchen.as_str());
        assert_eq!(find(&info["state"], "m.room.name", "")["content"]["name"], "Kitchen");
        assert_eq!(find(&info["state"], "m.room.member", &alice.user_id)["room_id"], kitchen.as_str());
        assert_eq!(info["account_data"][0]["type"], "m.tag");
        let start = info["messages"]["start"].as_str().unwrap();
        let earlier = bob.get(&at(&kitchen, &format!("/messages?dir=b&limit=2&from={start}"))).await.ok();
        assert_eq!(bodies(&earlier["chunk"]), ["two", "one"]);
        assert!(initial["account_data"].as_array().unwrap().iter().any(|data| data["type"] == "org.example"));
        let invited = room_in(&initial, &cellar).unwrap();
        assert_eq!((&invited["membership"], &invited["visibility"]), (&json!("invite"), &json!("private")));
        assert_eq!((&invited["invite"]["sender"], &invited["invite"]["room_id"]), (&json!(alice.user_id), &json!(cellar)));
        assert!(invited.get("state").is_none() && invited.get("messages").is_none(), "{invited}");
        assert!(room_in(&initial, &attic).is_none());

        let initial = initial_sync(&bob, "?archived=true").await;
        let left = room_in(&initial, &attic).unwrap();
        assert_eq!(left["membership"], "leave");
        assert_eq!(bodies(&left["messages"]["chunk"]), ["before"]);
        assert_eq!(find(&left["state"], "m.room.name", "")["content"]["name"], "Attic");
        bob.post(&at(&attic, "/forget"), json!({})).await.ok();
        assert!(room_in(&initial_sync(&bob, "?archived=true").await, &attic).is_none());
        // The stream goes on from here.
        alice.say(&kitchen, "five").await;
        assert_eq!(bodies(&listen(&bob, &initial["end"], "").await["chunk"]), ["five"]);
    }

    /// Trap: history visibility, leavers.
    async fn a_ban_after_leaving_opens_nothing(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat", "name": "open" })).await;
        bob.join(&room).await.ok();
        alice.say(&room, "before").await;
        alice.post(&at(&room, "/kick"), json!({ "user_id": bob.user_id })).await.ok();
        set(&alice, &room, "m.room.name", json!({ "name": "secret" })).await;
        alice.say(&room, "secret").await;
        alice.post(&at(&room, "/ban"), json!({ "user_id": bob.user_id })).await.ok();
        let initial = initial_sync(&bob, "?archived=true").await;
        let left = room_in(&initial, &room).unwrap();
        assert_eq!(left["membership"], "ban");
        let chunk = &left["messages"]["chunk"];
        assert_eq!(bodies(chunk), ["before"]);
        assert_eq!(chunk.as_array().unwrap().last().unwrap()["content"]["membership"], "ban");
        assert_eq!(find(&left["state"], "m.room.name", "")["content"]["name"], "open");
        assert!(!left.to_string().contains("secret"), "{left}");
    }

    async fn the_stream_tells_what_happens(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let from = initial_sync(&bob, "").await["end"].clone();
        let (heard, said) = tokio::join!(listen(&bob, &from, ""), alice.say(&room, "hello"));
        assert_eq!(bodies(&heard["chunk"]), ["hello"]);
        assert_eq!(heard["start"], from);
        let event = &heard["chunk"][0];
        assert_eq!((&event["event_id"], &event["room_id"]), (&json!(said), &json!(room)));
        let quiet = listen(&bob, &heard["end"], "&timeout=50").await;
        assert_eq!((&quiet["chunk"], &quiet["start"]), (&json!([]), &heard["end"]));
        // A retry is told the same.
        assert_eq!(listen(&bob, &from, "").await["chunk"][0]["event_id"], said);

        let cellar = alice.create_room(json!({ "name": "Cellar", "invite": [bob.user_id] })).await;
        let invited = listen(&bob, &quiet["end"], "").await;
        assert_eq!(invited["chunk"].as_array().unwrap().len(), 1, "{invited}");
        let invite = find(&invited["chunk"], "m.room.member", &bob.user_id);
        assert_eq!((&invite["room_id"], &invite["content"]["membership"]), (&json!(cellar), &json!("invite")));
        alice.say(&cellar, "secret").await;
        bob.leave(&cellar).await.ok();
        let declined = listen(&bob, &invited["end"], "").await;
        assert_eq!(declined["chunk"].as_array().unwrap().len(), 1, "{declined}");
        assert_eq!(declined["chunk"][0]["content"]["membership"], "leave");

        alice.say(&room, "before").await;
        alice.post(&at(&room, "/kick"), json!({ "user_id": bob.user_id })).await.ok();
        alice.say(&room, "after").await;
        let kicked = listen(&bob, &declined["end"], "").await;
        assert_eq!(bodies(&kicked["chunk"]), ["before"]);
        assert_eq!(kicked["chunk"][1]["content"]["membership"], "leave");
        assert_eq!(listen(&bob, &kicked["end"], "&timeout=0").await["chunk"], json!([]));
    }

    async fn the_stream_leaves_nothing_out(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let rooms = [room_with(&alice, "shared").await, room_with(&alice, "shared").await];
        for room in &rooms {
            bob.join(room).await.ok();
        }
        let mut from = now(&bob, "").await;
        let texts: Vec<String> = (0..150).map(|n| n.to_string()).collect();
        join_all(texts.iter().enumerate().map(|(n, text)| alice.say(&rooms[n % 2], text))).await;
        let (mut heard, mut pieces) = (Vec::new(), 0);
        while heard.len() < texts.len() {
            let piece = listen(&bob, &from, "").await;
            assert_ne!(piece["chunk"], json!([]), "no more than this was heard: {heard:?}");
            heard.extend(bodies(&piece["chunk"]).into_iter().map(ToOwned::to_owned));
            from = piece["end"].clone();
            pieces += 1;
        }
        assert!(pieces > 1 && heard.len() == texts.len(), "{heard:?}");
        // In each room in the order of its history.
        for room in &rooms {
            let page = bob.get(&at(room, "/messages?dir=f&limit=200")).await.ok();
            let said = bodies(&page["chunk"]);
            let in_order: Vec<&str> = heard.iter().map(String::as_str).filter(|text| said.contains(text)).collect();
            assert_eq!(in_order, said);
        }
    }

    async fn a_room_is_previewed_while_the_world_may_read_it(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let (eve, guest) = (world.user("eve").await, world.guest().await);
        for stranger in [&eve, &guest] {
            let room = room_with(&alice, "world_readable").await;
            for n in 0..25 {
                alice.say(&room, &n.to_string()).await;
            }
            let info = stranger.get(&at(&room, "/initialSync")).await.ok();
            assert_eq!((&info["room_id"], &info["visibility"]), (&json!(room), &json!("private")));
            assert!(info.get("membership").is_none(), "{info}");
            let chunk = bodies(&info["messages"]["chunk"]);
            assert_eq!((chunk.len(), chunk.first(), chunk.last()), (20, Some(&"5"), Some(&"24")));
            assert_eq!(find(&info["state"], "m.room.member", &alice.user_id)["content"]["membership"], "join");
            let start = info["messages"]["start"].as_str().unwrap();
            let earlier = stranger.get(&at(&room, &format!("/messages?dir=b&limit=1&from={start}"))).await.ok();
            assert_eq!(bodies(&earlier["chunk"]), ["4"]);
            let more = peek(&room);
            let (heard, _) = tokio::join!(listen(stranger, &info["messages"]["end"], &more), alice.say(&room, "news"));
            assert_eq!(bodies(&heard["chunk"]), ["news"]);
            assert_eq!(heard["chunk"][0]["room_id"], room.as_str());
            // Nobody sees who looks on.
            assert!(alice.get(&at(&room, "/joined_members")).await.ok()["joined"].get(&stranger.user_id).is_none());
        }
    }

    async fn a_preview_ends_with_the_permission(world) {
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let room = room_with(&alice, "world_readable").await;
        alice.say(&room, "open").await;
        let from = now(&eve, &peek(&room)).await;
        let waits = format!("{EVENTS}?timeout=10000&from={}{}", from.as_str().unwrap(), peek(&room));
        let closing = async {
            world.until_a_sync_waits().await;
            set(&alice, &room, "m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
        };
        let (refused, ()) = tokio::join!(eve.get(&waits), closing);
        refused.refused(403, "M_FORBIDDEN");
        alice.say(&room, "closed").await;
        let nowhere = "!nowhere:localhost";
        for (hidden, unknown) in [
            (at(&room, "/initialSync"), at(nowhere, "/initialSync")),
            (format!("{EVENTS}?timeout=0{}", peek(&room)), format!("{EVENTS}?timeout=0{}", peek(nowhere))),
        ] {
            let refused = eve.get(&hidden).await;
            refused.refused(403, "M_FORBIDDEN");
            assert_eq!(eve.get(&unknown).await.body, refused.body, "{hidden}");
        }
        // What was said while the world could read stays readable, but only to those who may read at all.
        let private = room_with(&alice, "shared").await;
        eve.get(&at(&private, "/initialSync")).await.refused(403, "M_FORBIDDEN");
        alice.invite(&private, &eve.user_id).await.ok();
        eve.get(&at(&private, "/initialSync")).await.refused(403, "M_FORBIDDEN");
        set(&alice, &private, "m.room.history_visibility", json!({ "history_visibility": "world_readable" })).await;
        alice.say(&private, "now open").await;
        let info = eve.get(&at(&private, "/initialSync")).await.ok();
        assert_eq!(info["membership"], "invite");
        let kinds: Vec<_> = info["messages"]["chunk"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
        assert_eq!(kinds, ["m.room.history_visibility", "m.room.message"], "nothing from before");
    }

    async fn who_left_gets_a_room_as_they_left_it(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        for visibility in ["shared", "world_readable"] {
            let room = room_with(&alice, visibility).await;
            bob.join(&room).await.ok();
            set(&alice, &room, "m.room.name", json!({ "name": "old" })).await;
            alice.say(&room, "before").await;
            bob.leave(&room).await.ok();
            set(&alice, &room, "m.room.name", json!({ "name": "new" })).await;
            alice.say(&room, "after").await;
            let info = bob.get(&at(&room, "/initialSync")).await.ok();
            assert_eq!(info["membership"], "leave");
            assert_eq!(bodies(&info["messages"]["chunk"]), ["before"], "{visibility}");
            let last = info["messages"]["chunk"].as_array().unwrap().last().unwrap();
            assert_eq!(last["content"]["membership"], "leave");
            assert_eq!(find(&info["state"], "m.room.name", "")["content"]["name"], "old");
            let heard = listen(&bob, &info["messages"]["end"], &format!("&timeout=0{}", peek(&room))).await;
            let expected: &[&str] = if visibility == "shared" { &[] } else { &["after"] };
            assert_eq!(bodies(&heard["chunk"]), expected, "{visibility}");
            bob.post(&at(&room, "/forget"), json!({})).await.ok();
            let status = if visibility == "shared" { 403 } else { 200 };
            assert_eq!(bob.get(&at(&room, "/initialSync")).await.status, status);
        }
    }

    async fn who_is_ignored_is_not_heard(world) {
        let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        carol.join(&room).await.ok();
        let ignore = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", escape(&bob.user_id));
        bob.put(&ignore, json!({ "ignored_users": { carol.user_id.clone(): {} } })).await.ok();
        let from = now(&bob, "").await;
        carol.say(&room, "noise").await;
        let cellar = carol.create_room(json!({ "invite": [bob.user_id] })).await;
        alice.say(&room, "signal").await;
        assert_eq!(bodies(&listen(&bob, &from, "").await["chunk"]), ["signal"]);
        assert_eq!(bodies(&listen(&bob, &from, &peek(&room)).await["chunk"]), ["signal"]);
        let initial = initial_sync(&bob, "").await;
        assert_eq!(bodies(&room_in(&initial, &room).unwrap()["messages"]["chunk"]), ["signal"]);
        assert!(room_in(&initial, &cellar).is_none());
        let info = bob.get(&at(&room, "/initialSync")).await.ok();
        assert_eq!(bodies(&info["messages"]["chunk"]), ["signal"]);
    }

    async fn an_event_is_found_by_its_identifier_alone(world) {
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let said = alice.say(&room, "hello").await;
        for version in ["r0", "v3"] {
            let path = |event: &str| format!("/_matrix/client/{version}/events/{}", escape(event));
            let event = alice.get(&path(&said)).await.ok();
            assert_eq!((&event["room_id"], &event["content"]["body"]), (&json!(room), &json!("hello")));
            let hidden = eve.get(&path(&said)).await;
            hidden.refused(404, "M_NOT_FOUND");
            assert_eq!(eve.get(&path("$unknown")).await.body, hidden.body);
            alice.get(&path("unknown")).await.refused(400, "M_INVALID_PARAM");
            alice.get(&path(&format!("${}", "x".repeat(300)))).await.refused(404, "M_NOT_FOUND");
            world.call("GET", &path(&said), None, None).await.refused(401, "M_MISSING_TOKEN");
        }
    }

    async fn what_is_asked_wrongly_is_named(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        for query in ["?from=yesterday", "?timeout=-1", "?timeout=soon", "?timeout=0&room_id=kitchen"] {
            alice.get(&format!("{EVENTS}{query}")).await.refused(400, "M_INVALID_PARAM");
        }
        for query in ["?limit=-1", "?limit=all", "?archived=perhaps"] {
            alice.get(&format!("{INITIAL_SYNC}{query}")).await.refused(400, "M_INVALID_PARAM");
        }
        alice.get(&at("kitchen", "/initialSync")).await.refused(400, "M_INVALID_PARAM");
        for path in [INITIAL_SYNC.to_owned(), EVENTS.to_owned(), at(&room, "/initialSync")] {
            world.call("GET", &path, None, None).await.refused(401, "M_MISSING_TOKEN");
            world.call("GET", &path, Some("nobodys"), None).await.refused(401, "M_UNKNOWN_TOKEN");
        }
        let none = initial_sync(&alice, "?limit=0").await;
        assert_eq!(room_in(&none, &room).unwrap()["messages"]["chunk"], json!([]));
        // As after a backup was restored: nobody waits for what may never come.
        for more in ["0".to_owned(), "30000".to_owned(), format!("30000{}", peek(&room))] {
            let path = format!("{EVENTS}?from=s999999999&timeout={more}");
            alice.get(&path).await.refused(400, "M_INVALID_PARAM");
        }
    }

    async fn who_is_logged_out_hears_no_more(world) {
        let alice = world.user("alice").await;
        let phone = world.login(&alice).await;
        let from = now(&phone, "").await;
        let waits = format!("{EVENTS}?timeout=60000&from={}", from.as_str().unwrap());
        let logout = async {
            world.until_a_sync_waits().await;
            phone.post("/_matrix/client/v3/logout", json!({})).await.ok()
        };
        let (waited, _) = tokio::join!(phone.get(&waits), logout);
        waited.refused(401, "M_UNKNOWN_TOKEN");
    }

    async fn the_paths_of_r0_are_answered(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "kitchen" })).await;
        let said = alice.say(&room, "hello").await;
        let (user, room, said) = (escape(&alice.user_id), escape(&room), escape(&said));
        for path in [
            "initialSync".to_owned(),
            "events?timeout=0".to_owned(),
            format!("rooms/{room}/initialSync"),
            "sync".to_owned(),
            "account/whoami".to_owned(),
            "account/3pid".to_owned(),
            "capabilities".to_owned(),
            "devices".to_owned(),
            "directory/room/%23kitchen%3Alocalhost".to_owned(),
            format!("directory/list/room/{room}"),
            "joined_rooms".to_owned(),
            "login".to_owned(),
            format!("presence/{user}/status"),
            format!("profile/{user}"),
            "publicRooms".to_owned(),
            "pushrules/".to_owned(),
            "register/available?username=bob".to_owned(),
            format!("rooms/{room}/aliases"),
            format!("rooms/{room}/context/{said}"),
            format!("rooms/{room}/event/{said}"),
            format!("rooms/{room}/joined_members"),
            format!("rooms/{room}/members"),
            format!("rooms/{room}/messages?dir=b"),
            format!("rooms/{room}/state"),
            format!("rooms/{room}/state/m.room.create"),
            "thirdparty/protocols".to_owned(),
            format!("user/{user}/rooms/{room}/tags"),
        ] {
            let reply = alice.get(&format!("/_matrix/client/r0/{path}")).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        }
    }
}
