//! Guests: how they come, what they may do, which rooms let them in, and how they become users.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Client, Reply, World, at, escape, next, texts},
};

const REGISTER: &str = "/_matrix/client/v3/register";
const REGISTER_GUEST: &str = "/_matrix/client/v3/register?kind=guest";

/// A room that everybody can join, guests too.
async fn open_room(creator: &Client) -> String {
    let access = json!({ "type": "m.room.guest_access", "content": { "guest_access": "can_join" } });
    creator.create_room(json!({ "preset": "public_chat", "initial_state": [access] })).await
}

/// The one way into a room that is for guests too.
async fn join(client: &Client, room: &str) -> Reply {
    client.post(&at(room, "/join"), json!({})).await
}

async fn set_access(user: &Client, room: &str, content: Value) -> Reply {
    user.put(&at(room, "/state/m.room.guest_access"), content).await
}

async fn membership(reader: &Client, room: &str, of: &Client) -> Value {
    let member = at(room, &format!("/state/m.room.member/{}", escape(&of.user_id)));
    reader.get(&member).await.ok()["membership"].clone()
}

async fn register(world: &World, body: Value) -> Reply {
    world.call("POST", REGISTER, None, Some(body)).await
}

/// A guest registers under the name that they have.
async fn become_user(world: &World, guest: &Client) -> Reply {
    let mut body = json!({ "username": guest.name(), "guest_access_token": guest.token });
    body["password"] = guest.password()["password"].clone();
    body["auth"] = json!({ "type": "m.login.dummy" });
    register(world, body).await
}

on_both! {
    async fn a_server_has_no_guests_unless_its_operator_wants_them(world) {
        let refused = world.call("POST", REGISTER_GUEST, None, Some(json!({}))).await;
        refused.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    }

    async fn of_a_guests_registration_only_the_devices_name_is_read(world, config => {
        config.registration.guests = true;
        config.registration.mode = hearth::config::RegistrationMode::Closed;
    }) {
        let body = json!({
            "username": 7, "password": [], "device_id": "MINE", "auth": "none", "inhibit_login": true,
            "refresh_token": true, "initial_device_display_name": "Kiosk",
        });
        let answer = world.call("POST", REGISTER_GUEST, None, Some(body)).await.ok();
        assert!(answer.get("refresh_token").is_none() && answer.get("expires_in_ms").is_none(), "{answer}");
        assert_ne!(answer["device_id"], "MINE");
        let token = answer["access_token"].as_str();
        let whoami = world.call("GET", "/_matrix/client/v3/account/whoami", token, None).await.ok();
        assert_eq!(whoami, json!({ "user_id": answer["user_id"], "device_id": answer["device_id"], "is_guest": true }));
        let devices = world.call("GET", "/_matrix/client/v3/devices", token, None).await.ok();
        assert_eq!(devices["devices"][0]["display_name"], "Kiosk");

        let another = world.call("POST", "/_matrix/client/r0/register?kind=guest", None, None).await.ok();
        assert_ne!(another["user_id"], answer["user_id"]);
        world.call_raw("POST", REGISTER_GUEST, None, "{").await.refused(400, "M_NOT_JSON");
        world.call_raw("POST", REGISTER_GUEST, None, "[]").await.refused(400, "M_BAD_JSON");
        let nameless = r#"{"initial_device_display_name":7}"#;
        world.call_raw("POST", REGISTER_GUEST, None, nameless).await.refused(400, "M_BAD_JSON");
        register(&world, json!({})).await.refused(403, "M_FORBIDDEN");
    }

    async fn guests_may_do_what_the_section_lists(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let readable = json!({ "history_visibility": "world_readable" });
        let room = alice
            .create_room(json!({
                "preset": "public_chat",
                "initial_state": [
                    { "type": "m.room.history_visibility", "content": readable },
                    { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
                ],
                "power_level_content_override": { "events": { "org.example.mood": 0 } },
            }))
            .await;
        let event = alice.say(&room, "welcome").await;
        let guest = world.guest().await;
        // Without being in the room.
        let state = ["/state", "/state/m.room.create", "/state/m.room.create/"];
        for rest in state.into_iter().chain(["/messages?dir=b", "/members", "/initialSync"]) {
            guest.get(&at(&room, rest)).await.ok();
        }
        guest.get(&at(&room, &format!("/context/{}", escape(&event)))).await.ok();
        guest.get(&at(&room, &format!("/event/{}", escape(&event)))).await.ok();
        guest.get(&format!("/_matrix/client/v3/events?timeout=0&room_id={}", escape(&room))).await.ok();
        guest.get("/_matrix/client/versions").await.ok();
        // In it.
        join(&guest, &room).await.ok();
        guest.say(&room, "hello").await;
        guest.put(&at(&room, "/send/org.example.wave/1"), json!({})).await.ok();
        guest.put(&at(&room, "/state/org.example.mood/today"), json!({ "mood": "good" })).await.ok();
        guest.put(&at(&room, "/state/m.room.name"), json!({ "name": "mine" })).await.refused(403, "M_FORBIDDEN");
        assert_eq!(texts(&guest.sync(None).await, &room), ["welcome", "hello"]);
        let profile = format!("/_matrix/client/v3/profile/{}", escape(&guest.user_id));
        guest.put(&format!("{profile}/displayname"), json!({ "displayname": "Visitor" })).await.ok();
        let member = alice.get(&at(&room, &format!("/state/m.room.member/{}", escape(&guest.user_id)))).await.ok();
        assert_eq!(member["displayname"], "Visitor");
        let devices = guest.get("/_matrix/client/v3/devices").await.ok();
        let device = format!("/_matrix/client/v3/devices/{}", devices["devices"][0]["device_id"].as_str().unwrap());
        guest.put(&device, json!({ "display_name": "Kiosk" })).await.ok();
        assert_eq!(guest.get(&device).await.ok()["display_name"], "Kiosk");
        guest.leave(&room).await.ok();
    }

    async fn guests_may_do_nothing_else(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let room = open_room(&alice).await;
        let guest = world.guest().await;
        join(&guest, &room).await.ok();
        let event = guest.say(&room, "mine").await;
        let user = escape(&guest.user_id);
        let of_room = |rest: &str| format!("rooms/{}/{rest}", escape(&room));
        for (method, path) in [
            ("POST", "createRoom".to_owned()),
            ("POST", of_room("invite")),
            ("POST", of_room("kick")),
            ("POST", of_room("ban")),
            ("POST", of_room("unban")),
            ("POST", of_room("forget")),
            ("POST", of_room("upgrade")),
            ("POST", of_room("read_markers")),
            ("POST", of_room(&format!("receipt/m.read/{}", escape(&event)))),
            ("POST", of_room(&format!("report/{}", escape(&event)))),
            ("PUT", of_room(&format!("redact/{}/1", escape(&event)))),
            ("PUT", of_room(&format!("typing/{user}"))),
            ("GET", of_room("joined_members")),
            ("GET", of_room("aliases")),
            ("GET", "joined_rooms".to_owned()),
            ("GET", "initialSync".to_owned()),
            ("GET", "events?timeout=0".to_owned()),
            ("GET", format!("events/{}", escape(&event))),
            ("GET", "capabilities".to_owned()),
            ("GET", "pushrules/".to_owned()),
            ("GET", "voip/turnServer".to_owned()),
            ("GET", "account/3pid".to_owned()),
            ("POST", "account/3pid".to_owned()),
            ("POST", "account/3pid/add".to_owned()),
            ("POST", "account/3pid/bind".to_owned()),
            ("POST", "account/3pid/delete".to_owned()),
            ("POST", "account/3pid/unbind".to_owned()),
            ("POST", "account/password".to_owned()),
            ("POST", "account/deactivate".to_owned()),
            ("POST", "logout".to_owned()),
            ("POST", "logout/all".to_owned()),
            ("POST", format!("user/{user}/filter")),
            ("PUT", format!("user/{user}/account_data/org.example")),
            ("POST", format!("user/{user}/openid/request_token")),
            ("PUT", format!("presence/{user}/status")),
            ("PUT", format!("profile/{user}/avatar_url")),
            ("PUT", "directory/room/%23mine%3Alocalhost".to_owned()),
        ] {
            for version in ["r0", "v3"] {
                let path = format!("/_matrix/client/{version}/{path}");
                let reply = world.call(method, &path, Some(&guest.token), Some(json!({}))).await;
                assert_eq!((reply.status, &reply.body["errcode"]), (403, &json!("M_GUEST_ACCESS_FORBIDDEN")), "{path}");
            }
        }
        let (knock, name) = (format!("knock/{}", escape(&room)), format!("profile/{user}/displayname"));
        for (method, path) in [("POST", knock), ("DELETE", name)] {
            let path = format!("/_matrix/client/v3/{path}");
            let reply = world.call(method, &path, Some(&guest.token), Some(json!({}))).await;
            reply.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        }
        assert_eq!(membership(&alice, &room, &guest).await, "join");
    }

    async fn guests_come_in_only_where_they_are_let_in(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let guest = world.guest().await;
        let closed = alice.create_room(json!({ "preset": "public_chat" })).await;
        join(&guest, &closed).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        // An invitation is not enough, nor is the other way to join.
        alice.invite(&closed, &guest.user_id).await.ok();
        join(&guest, &closed).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        let own = at(&closed, &format!("/state/m.room.member/{}", escape(&guest.user_id)));
        guest.put(&own, json!({ "membership": "join" })).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        for nothing in [json!({}), json!({ "guest_access": "perhaps" }), json!({ "guest_access": ["can_join"] })] {
            set_access(&alice, &closed, nothing).await.ok();
            join(&guest, &closed).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        }
        set_access(&alice, &closed, json!({ "guest_access": "can_join" })).await.ok();
        join(&guest, &closed).await.ok();
        // A room that lets guests in may still be for those who are invited.
        let private = alice.create_room(json!({ "preset": "private_chat" })).await;
        join(&guest, &private).await.refused(403, "M_FORBIDDEN");
        alice.invite(&private, &guest.user_id).await.ok();
        join(&guest, &private).await.ok();
        join(&guest, "!nowhere:localhost").await.refused(403, "M_FORBIDDEN");
    }

    async fn guests_go_when_they_are_no_longer_let_in(world, config => { config.registration.guests = true; }) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let (guest, other) = (world.guest().await, world.guest().await);
        let (room, elsewhere) = (open_room(&alice).await, open_room(&alice).await);
        bob.join(&room).await.ok();
        join(&guest, &room).await.ok();
        join(&other, &room).await.ok();
        join(&guest, &elsewhere).await.ok();
        let since = next(&guest.sync(None).await);

        let forbidden = json!({ "guest_access": "forbidden" });
        set_access(&bob, &room, forbidden.clone()).await.refused(403, "M_FORBIDDEN");
        assert_eq!(membership(&alice, &room, &guest).await, "join");
        set_access(&alice, &room, forbidden).await.ok();
        for gone in [&guest, &other] {
            assert_eq!(membership(&alice, &room, gone).await, "leave");
            gone.put(&at(&room, "/send/m.room.message/1"), json!({ "body": "?" })).await.refused(403, "M_FORBIDDEN");
            join(gone, &room).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        }
        assert_eq!(membership(&alice, &room, &bob).await, "join");
        assert_eq!(membership(&alice, &elsewhere, &guest).await, "join");
        let sync = guest.sync(Some(&since)).await;
        assert!(sync["rooms"]["leave"].get(&room).is_some(), "{sync}");
    }

    async fn guests_go_when_what_let_them_in_is_redacted(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let guest = world.guest().await;
        let room = open_room(&alice).await;
        let access = json!({ "guest_access": "can_join", "reason": "again" });
        let redact = |event: &str, transaction: u8| at(&room, &format!("/redact/{}/{transaction}", escape(event)));
        let events = alice.get(&at(&room, "/state")).await.ok();
        let first = events.as_array().unwrap().iter().find(|event| event["type"] == "m.room.guest_access").unwrap();
        let second = set_access(&alice, &room, access).await.ok();
        join(&guest, &room).await.ok();
        // What no longer holds can be redacted without anything coming of it.
        alice.put(&redact(first["event_id"].as_str().unwrap(), 1), json!({})).await.ok();
        assert_eq!(membership(&alice, &room, &guest).await, "join");
        let redaction = alice.put(&redact(second["event_id"].as_str().unwrap(), 2), json!({})).await.ok();
        assert_eq!(membership(&alice, &room, &guest).await, "leave");
        join(&guest, &room).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        assert_eq!(alice.put(&redact(second["event_id"].as_str().unwrap(), 2), json!({})).await.ok(), redaction);
    }

    async fn no_guest_slips_in_while_the_door_is_closed(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let room = open_room(&alice).await;
        let guests = join_all((0..12).map(|_| world.guest())).await;
        let joins = join_all(guests.iter().map(|guest| join(guest, &room)));
        let (joins, closed) = tokio::join!(joins, set_access(&alice, &room, json!({ "guest_access": "forbidden" })));
        closed.ok();
        for reply in &joins {
            assert!(reply.status == 200 || reply.body["errcode"] == "M_GUEST_ACCESS_FORBIDDEN", "{}", reply.body);
        }
        let joined = alice.get(&at(&room, "/joined_members")).await.ok();
        assert_eq!(joined["joined"].as_object().unwrap().keys().collect::<Vec<_>>(), [&alice.user_id]);
    }

    /// The way that matrix-js-sdk takes, for guests too.
    async fn a_guest_joins_by_name_or_identifier(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let access = json!({ "type": "m.room.guest_access", "content": { "guest_access": "can_join" } });
        let body = json!({ "preset": "public_chat", "room_alias_name": "open", "initial_state": [access] });
        let (open, closed) = (alice.create_room(body).await, alice.create_room(json!({ "preset": "public_chat" })).await);
        for by in [open.as_str(), "#open:localhost"] {
            let guest = world.guest().await;
            assert_eq!(guest.join(by).await.ok()["room_id"], open.as_str());
            assert_eq!(membership(&alice, &open, &guest).await, "join");
            guest.join(&closed).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
            guest.join("#nowhere:localhost").await.refused(404, "M_NOT_FOUND");
        }
    }

    async fn a_guest_becomes_a_user(world, config => { config.registration.guests = true; }) {
        let alice = world.user("alice").await;
        let (guest, other) = (world.guest().await, world.guest().await);
        let room = open_room(&alice).await;
        join(&guest, &room).await.ok();
        let name = guest.name();
        let body = |name: &str, token: &str| {
            let (password, auth) = (format!("password of {name}"), json!({ "type": "m.login.dummy" }));
            json!({ "username": name, "password": password, "guest_access_token": token, "auth": auth })
        };
        let mut nameless = body(name, &guest.token);
        nameless.as_object_mut().unwrap().remove("username");
        register(&world, nameless).await.refused(400, "M_MISSING_PARAM");
        register(&world, body("alice", &guest.token)).await.refused(403, "M_FORBIDDEN");
        register(&world, body("alice", &alice.token)).await.refused(403, "M_FORBIDDEN");
        register(&world, body(name, &other.token)).await.refused(403, "M_FORBIDDEN");
        register(&world, body(name, "nonsense")).await.refused(403, "M_FORBIDDEN");
        register(&world, json!({ "username": name })).await.refused(400, "M_USER_IN_USE");
        // Whoever is asked for the stages first is refused for the same reasons.
        register(&world, json!({ "username": name, "guest_access_token": "nonsense" })).await.refused(403, "M_FORBIDDEN");
        guest.post("/_matrix/client/v3/createRoom", json!({})).await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");

        let upgraded = register(&world, body(name, &guest.token)).await.ok();
        assert_eq!(upgraded["user_id"], guest.user_id.as_str());
        for token in [guest.token.as_str(), upgraded["access_token"].as_str().unwrap()] {
            let whoami = world.call("GET", "/_matrix/client/v3/account/whoami", Some(token), None).await.ok();
            assert!(whoami.get("is_guest").is_none(), "{whoami}");
        }
        guest.create_room(json!({})).await;
        world.login(&guest).await.say(&room, "here to stay").await;
        register(&world, body(name, &guest.token)).await.refused(403, "M_FORBIDDEN");
        // Guests leave; users don't.
        set_access(&alice, &room, json!({ "guest_access": "forbidden" })).await.ok();
        assert_eq!(membership(&alice, &room, &guest).await, "join");
    }

    async fn who_becomes_a_user_is_found_as_they_are(world, config => { config.registration.guests = true; }) {
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let (open, guest, nobody) = (open_room(&alice).await, world.guest().await, world.guest().await);
        join(&guest, &open).await.ok();
        for guest in [&guest, &nobody] {
            let name = format!("/_matrix/client/v3/profile/{}/displayname", escape(&guest.user_id));
            guest.put(&name, json!({ "displayname": "Visitor" })).await.ok();
        }
        let found = async |by: &Client, term: &str| {
            let path = "/_matrix/client/v3/user_directory/search";
            by.post(path, json!({ "search_term": term })).await.ok()["results"].clone()
        };
        assert_eq!(found(&eve, "visitor").await, json!([]), "guests are not found");
        become_user(&world, &guest).await.ok();
        become_user(&world, &nobody).await.ok();
        let expected = json!([{ "user_id": guest.user_id, "display_name": "Visitor" }]);
        assert_eq!(found(&eve, "visitor").await, expected, "the other one is in no room");
        assert_eq!(found(&eve, &guest.user_id).await, expected);
        nobody.join(&open).await.ok();
        assert_eq!(found(&eve, "visitor").await.as_array().unwrap().len(), 2);
        guest.leave(&open).await.ok();
        assert_eq!(found(&eve, &guest.user_id).await, json!([]));
    }

    async fn no_join_slips_by_while_guests_become_users(world, config => { config.registration.guests = true; }) {
        let (alice, eve) = (world.user("alice").await, world.user("eve").await);
        let room = open_room(&alice).await;
        let guests = join_all((0..8).map(|_| world.guest())).await;
        let joins = join_all(guests.iter().map(|guest| join(guest, &room)));
        let upgrades = join_all(guests.iter().map(|guest| become_user(&world, guest)));
        let (joins, upgrades) = tokio::join!(joins, upgrades);
        joins.into_iter().chain(upgrades).for_each(|reply| drop(reply.ok()));
        for guest in &guests {
            let term = json!({ "search_term": guest.user_id });
            let found = eve.post("/_matrix/client/v3/user_directory/search", term).await.ok();
            assert_eq!(found["results"][0]["user_id"], guest.user_id.as_str(), "{found}");
        }
    }
}
