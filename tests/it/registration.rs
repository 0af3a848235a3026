//! Registering with clients that say once what they want, and answering again what was answered before.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api>

use hearth::config::RegistrationMode;
use serde_json::{Value, json};

use crate::{
    on_both,
    world::{Reply, World, at, escape, password},
};

const REGISTER: &str = "/_matrix/client/v3/register";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

async fn register(world: &World, body: Value) -> Reply {
    world.call("POST", REGISTER, None, Some(body)).await
}

/// Asks for something and tells in which session.
async fn ask(world: &World, body: Value) -> Value {
    let asked = register(world, body).await;
    assert_eq!(asked.status, 401, "{}", asked.body);
    asked.body["session"].clone()
}

fn dummy(session: &Value) -> Value {
    json!({ "type": "m.login.dummy", "session": session })
}

/// A body with how its request is confirmed.
fn with(body: &Value, auth: Value) -> Value {
    let mut body = body.clone();
    body["auth"] = auth;
    body
}

async fn is_in(world: &World, answer: &Value) -> bool {
    let reply = world.call("GET", WHOAMI, answer["access_token"].as_str(), None).await;
    if reply.status == 200 {
        assert_eq!((&reply.body["user_id"], &reply.body["device_id"]), (&answer["user_id"], &answer["device_id"]));
        return true;
    }
    reply.refused(401, "M_UNKNOWN_TOKEN");
    false
}

on_both! {
    async fn what_was_asked_for_first_need_not_be_said_again(world) {
        let body = json!({
            "username": "alice", "password": "correct horse", "device_id": "PHONE",
            "initial_device_display_name": "Alice's phone",
        });
        let session = ask(&world, body).await;
        let world = world.restarted().await;
        let alice = register(&world, json!({ "auth": dummy(&session) })).await.ok();
        assert_eq!((&alice["user_id"], &alice["device_id"]), (&json!("@alice:localhost"), &json!("PHONE")));
        let devices = "/_matrix/client/v3/devices";
        let devices = world.call("GET", devices, alice["access_token"].as_str(), None).await.ok();
        assert_eq!(devices["devices"][0]["display_name"], "Alice's phone");
        let body = Some(password("alice", "correct horse"));
        world.call("POST", "/_matrix/client/v3/login", None, body).await.ok();

        // Nor that nobody is to be logged in. What is said later counts in place of what was said before.
        let body = json!({ "username": "bob", "password": "a bad choice", "inhibit_login": true });
        let session = ask(&world, body).await;
        let better = json!({ "password": "a better choice", "auth": { "session": session } });
        assert_eq!(ask(&world, better).await, session);
        let bob = register(&world, json!({ "auth": dummy(&session) })).await.ok();
        assert_eq!(bob, json!({ "user_id": "@bob:localhost" }));
        for (secret, status) in [("a bad choice", 403), ("a better choice", 200)] {
            let body = Some(password("bob", secret));
            assert_eq!(world.call("POST", "/_matrix/client/v3/login", None, body).await.status, status);
        }

        // What can't be had is refused at once, and nobody has an account without a password.
        let wrong = [
            (json!({ "username": "alice" }), "M_USER_IN_USE"),
            (json!({ "username": "al ice" }), "M_INVALID_USERNAME"),
            (json!({ "username": "carol", "password": "short" }), "M_WEAK_PASSWORD"),
            (json!({ "username": "carol", "device_id": "\u{7}" }), "M_INVALID_PARAM"),
        ];
        for (body, errcode) in wrong {
            register(&world, body).await.refused(400, errcode);
        }
        let session = ask(&world, json!({ "username": "carol" })).await;
        register(&world, json!({ "auth": dummy(&session) })).await.refused(400, "M_MISSING_PARAM");
    }

    async fn a_finished_registration_is_answered_again(world) {
        let body = json!({ "username": "alice", "password": "correct horse", "device_id": "PHONE" });
        let session = ask(&world, body.clone()).await;
        let request = with(&body, dummy(&session));
        let first = register(&world, request.clone()).await.ok();
        let world = world.restarted().await;
        let second = register(&world, request.clone()).await.ok();
        assert_eq!((&second["user_id"], &second["device_id"]), (&first["user_id"], &first["device_id"]));
        assert!(is_in(&world, &second).await);
        // Nobody else goes on with what was answered before.
        assert!(!is_in(&world, &first).await);
        assert!(is_in(&world, &register(&world, request.clone()).await.ok()).await);

        // To the same and for the same only.
        let changed = |key: &str, value: Value| {
            let mut request = request.clone();
            request[key] = value;
            request
        };
        for (key, value) in [("password", json!("guess guess")), ("device_id", json!("X")), ("inhibit_login", json!(true))] {
            register(&world, changed(key, value)).await.refused(400, "M_USER_IN_USE");
        }
        register(&world, json!({ "auth": dummy(&session) })).await.refused(401, "M_UNKNOWN");
        register(&world, changed("username", json!("bob"))).await.refused(401, "M_UNKNOWN");
        let mut elsewhere = request.clone();
        elsewhere["auth"]["session"] = ask(&world, json!({})).await;
        register(&world, elsewhere).await.refused(400, "M_USER_IN_USE");

        // Nor after an hour, or once the account is gone.
        let gone = json!({ "username": "carol", "password": "correct horse" });
        let session = ask(&world, gone.clone()).await;
        let request_of_gone = with(&gone, dummy(&session));
        let carol = register(&world, request_of_gone.clone()).await.ok();
        let deactivate = json!({ "auth": password("carol", "correct horse") });
        let path = "/_matrix/client/v3/account/deactivate";
        world.call("POST", path, carol["access_token"].as_str(), Some(deactivate)).await.ok();
        register(&world, request_of_gone).await.refused(400, "M_USER_IN_USE");
        world.clock.advance(std::time::Duration::from_hours(1));
        register(&world, request).await.refused(400, "M_USER_IN_USE");
    }

    /// Who learns of the session later gets nothing for it.
    async fn who_says_no_password_is_answered_until_the_answer_has_arrived(world) {
        let body = json!({ "username": "alice", "password": "correct horse" });
        let session = ask(&world, body).await;
        let request = json!({ "auth": dummy(&session) });
        let first = register(&world, request.clone()).await.ok();
        let second = register(&world, request.clone()).await.ok();
        assert_eq!((&second["user_id"], &second["device_id"]), (&first["user_id"], &first["device_id"]));
        assert!(is_in(&world, &second).await);
        register(&world, request.clone()).await.refused(401, "M_UNKNOWN");
        assert!(is_in(&world, &second).await);
        // The password opens it as it would open a login.
        let shown = json!({ "password": "correct horse", "auth": dummy(&session) });
        assert!(is_in(&world, &register(&world, shown).await.ok()).await);
        register(&world, request).await.refused(401, "M_UNKNOWN");
    }

    async fn of_requests_that_finish_a_session_at_once_all_have_one_account(world) {
        let bodies = [json!({}), json!({ "username": "alice" }), json!({ "username": "bob", "password": "correct horse" })];
        for body in bodies {
            let session = ask(&world, body.clone()).await;
            let mut request = with(&body, dummy(&session));
            request["password"] = json!("correct horse");
            let answers = futures_util::future::join_all((0..5).map(|_| register(&world, request.clone()))).await;
            let users: Vec<Value> = answers.into_iter().map(|answer| answer.ok()["user_id"].clone()).collect();
            assert!(users.iter().all(|user| *user == users[0]), "{users:?}");
        }
    }

    async fn a_token_with_one_use_is_used_once_however_often_it_is_sent(world, config => {
        config.registration.mode = RegistrationMode::Token;
    }) {
        let token = world.administration().await.create_registration_token(Some(1), None).await.unwrap();
        let body = json!({ "username": "alice", "password": "correct horse" });
        let session = ask(&world, body.clone()).await;
        let auth = json!({ "type": "m.login.registration_token", "token": token, "session": session });
        for _ in 0..2 {
            assert_eq!(register(&world, with(&body, auth.clone())).await.ok()["user_id"], "@alice:localhost");
        }
        // What was refused can be asked for otherwise, in the same session.
        let token = world.administration().await.create_registration_token(Some(1), None).await.unwrap();
        let session = ask(&world, json!({ "username": "bob" })).await;
        let auth = json!({ "type": "m.login.registration_token", "token": token, "session": session });
        register(&world, with(&json!({ "username": "alice" }), auth.clone())).await.refused(400, "M_USER_IN_USE");
        register(&world, with(&json!({ "password": "correct horse" }), auth)).await.ok();
    }

    async fn a_password_is_the_same_however_it_is_spelled(world) {
        let spellings = ["caf\u{e9}-boulangerie \u{c5}", "cafe\u{301}-boulangerie \u{212b}"];
        for (name, secret) in [("alice", spellings[0]), ("bob", spellings[1])] {
            let body = json!({ "username": name, "password": secret, "auth": { "type": "m.login.dummy" } });
            let user = register(&world, body).await.ok();
            for typed in spellings {
                world.call("POST", "/_matrix/client/v3/login", None, Some(password(name, typed))).await.ok();
            }
            let wrong = Some(password(name, "cafe-boulangerie A"));
            world.call("POST", "/_matrix/client/v3/login", None, wrong).await.refused(403, "M_FORBIDDEN");
            let change = json!({ "new_password": "another one", "auth": password(name, spellings[0]) });
            let path = "/_matrix/client/v3/account/password";
            world.call("POST", path, user["access_token"].as_str(), Some(change)).await.ok();
        }
    }

    async fn a_new_account_is_called_by_its_localpart(world, config => {
        config.registration.guests = true;
    }) {
        let (alice, guest) = (world.user("alice").await, world.guest().await);
        world.administration().await.create_user("root", "password of root", true).await.unwrap();
        for name in [alice.name(), guest.name(), "root"] {
            let profile = format!("/_matrix/client/v3/profile/@{name}:localhost");
            assert_eq!(world.call("GET", &profile, None, None).await.ok(), json!({ "displayname": name }));
        }
        let room = alice.create_room(json!({})).await;
        let member = at(&room, &format!("/state/m.room.member/{}", escape(&alice.user_id)));
        assert_eq!(alice.get(&member).await.ok()["displayname"], "alice");
        // Whoever wants no name has none.
        let profile = "/_matrix/client/v3/profile/@alice:localhost";
        alice.put(&format!("{profile}/displayname"), json!({ "displayname": "" })).await.ok();
        let world = world.restarted().await;
        let shown = world.call("GET", profile, None, None).await.ok();
        assert_eq!(shown.get("displayname"), None, "{shown}");
    }

    async fn a_password_that_was_changed_is_changed_again_without_the_old_one(world) {
        let alice = world.user("alice").await;
        let other = world.login(&alice).await;
        let change = "/_matrix/client/v3/account/password";
        let asked = alice.post(change, json!({ "new_password": "another one" })).await;
        let mut auth = alice.password();
        auth["session"] = asked.body["session"].clone();
        let body = json!({ "new_password": "another one", "auth": auth });
        for _ in 0..2 {
            alice.post(change, body.clone()).await.ok();
        }
        // Without a session as well.
        alice.post(change, json!({ "new_password": "another one", "auth": alice.password() })).await.ok();
        alice.post(change, json!({ "new_password": "another two", "auth": alice.password() })).await.refused(401, "M_FORBIDDEN");
        let unasked = alice.post(change, json!({ "new_password": "another one" })).await;
        assert_eq!((unasked.status, unasked.body.get("errcode")), (401, None), "{}", unasked.body);
        other.get(WHOAMI).await.refused(401, "M_UNKNOWN_TOKEN");
    }

    async fn devices_are_removed_again_by_whoever_shows_the_password_again(world) {
        let alice = world.user("alice").await;
        let path = "/_matrix/client/v3/devices/PHONE";
        let asked = world.call("DELETE", path, Some(&alice.token), Some(json!({}))).await;
        let mut auth = alice.password();
        auth["session"] = asked.body["session"].clone();
        for _ in 0..2 {
            let mut login = alice.password();
            login["device_id"] = json!("PHONE");
            world.call("POST", "/_matrix/client/v3/login", None, Some(login)).await.ok();
            world.call("DELETE", path, Some(&alice.token), Some(json!({ "auth": auth }))).await.ok();
            world.call("DELETE", path, Some(&alice.token), Some(json!({ "auth": auth }))).await.ok();
            alice.get(path).await.refused(404, "M_NOT_FOUND");
        }
    }
}
