//! What bad input gets: the specified error with a message that helps; never a 500 or a lost connection.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    on_both,
    world::{escape, http_client},
};

on_both! {
    async fn unknown_paths_and_wrong_methods(world) {
        world.call("GET", "/_matrix/client/v3/nothing", None, None).await.refused(404, "M_UNRECOGNIZED");
        world.call("GET", "/_matrix", None, None).await.refused(404, "M_UNRECOGNIZED");
        world.call("DELETE", "/_matrix/client/v3/sync", None, None).await.refused(405, "M_UNRECOGNIZED");
        world.call("PATCH", "/_matrix/client/v3/login", None, None).await.refused(405, "M_UNRECOGNIZED");
    }

    async fn tokens_that_are_missing_or_nobodys(world) {
        for (method, path) in [
            ("GET", "/_matrix/client/v3/sync"),
            ("GET", "/_matrix/client/v3/account/whoami"),
            ("POST", "/_matrix/client/v3/createRoom"),
            ("GET", "/_matrix/client/v3/joined_rooms"),
            ("PUT", "/_matrix/client/v3/rooms/!r:localhost/send/m.room.message/1"),
        ] {
            world.call(method, path, None, Some(json!({}))).await.refused(401, "M_MISSING_TOKEN");
            world.call(method, path, Some("nobodys"), Some(json!({}))).await.refused(401, "M_UNKNOWN_TOKEN");
        }
    }

    async fn bodies_that_are_not_what_they_should_be(world) {
        let alice = world.user("alice").await;
        let post = async |path, body| world.call_raw("POST", path, Some(&alice.token), body).await;
        post("/_matrix/client/v3/createRoom", "{").await.refused(400, "M_NOT_JSON");
        post("/_matrix/client/v3/createRoom", "not json").await.refused(400, "M_NOT_JSON");
        post("/_matrix/client/v3/createRoom", "[]").await.refused(400, "M_BAD_JSON");
        post("/_matrix/client/v3/createRoom", r#"{"invite":"everybody"}"#).await.refused(400, "M_BAD_JSON");
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        post("/_matrix/client/v3/createRoom", &nested).await.refused(400, "M_BAD_JSON");
        let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(1_000_000));
        // Whoever sends too much hears so, and can go on: on the same connection, too.
        for _ in 0..20 {
            post("/_matrix/client/v3/createRoom", &large).await.refused(413, "M_TOO_LARGE");
        }
        let room = alice.create_room(json!({})).await;
        post(&format!("/_matrix/client/v3/rooms/{}/kick", escape(&room)), "{}").await.refused(400, "M_MISSING_PARAM");
    }

    async fn text_that_is_not_utf8_is_not_json(world) {
        let alice = world.user("alice").await;
        let http = http_client(Duration::from_secs(30));
        let room = alice.create_room(json!({})).await;
        let send = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/1", escape(&room));
        for (method, path, body) in [
            ("POST", "/_matrix/client/v3/register", b"{\"username\": \"a\x81\"}".as_slice()),
            ("POST", "/_matrix/client/v3/login", b"{\"type\": \"m.login.password\", \"x\xff\": 1}"),
            ("POST", "/_matrix/client/v3/createRoom", b"{\"name\": \"\xc3\x28\"}"),
            ("PUT", &send, b"{\"msgtype\": \"m.text\", \"body\": \"\xed\xa0\x80\"}"),
            ("POST", "/_synapse/admin/v1/register", b"{\"nonce\": \"\xff\"}"),
        ] {
            let request = http.request(method.parse().unwrap(), format!("{}{path}", world.url)).body(body.to_vec());
            let answer = request.bearer_auth(&alice.token).send().await.unwrap();
            let (status, answer) = (answer.status(), answer.text().await.unwrap());
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!((status.as_u16(), &answer["errcode"]), (400, &json!("M_NOT_JSON")), "{path}: {answer}");
        }
    }

    /// Trap: canonical JSON; sizes.
    async fn events_that_break_the_rules(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let send = async |kind: &str, body: &str| {
            let path = format!("/_matrix/client/v3/rooms/{}/send/{kind}/{}", escape(&room), escape(body.get(..8).unwrap_or("t")));
            world.call_raw("PUT", &path, Some(&alice.token), body).await
        };
        send("m.room.message", r#"{"n":1.5}"#).await.refused(400, "M_BAD_JSON");
        send("m.room.message", r#"{"n":9007199254740992}"#).await.refused(400, "M_BAD_JSON");
        send("m.room.message", r#"{"n":-9007199254740992}"#).await.refused(400, "M_BAD_JSON");
        send("m.room.message", r#"{"n":9007199254740991}"#).await.ok();
        let large = format!(r#"{{"body":"{}"}}"#, "x".repeat(65_536));
        send("m.room.message", &large).await.refused(413, "M_TOO_LARGE");
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(send("m.room.message", &deep).await.status, 400);
        let long_type = "x".repeat(256);
        send(&long_type, r#"{"long":1}"#).await.refused(400, "M_INVALID_PARAM");
        send(&"x".repeat(255), r#"{"fits":1}"#).await.ok();
        let state = |key: &str| format!("/_matrix/client/v3/rooms/{}/state/org.example/{}", escape(&room), escape(key));
        alice.put(&state(&"k".repeat(256)), json!({})).await.refused(400, "M_INVALID_PARAM");
        alice.put(&state("nul\0"), json!({})).await.refused(400, "M_INVALID_PARAM");
        // Nothing of it is there, and the room goes on.
        alice.say(&room, "still here").await;
    }

    async fn rooms_that_are_not_there_look_like_rooms_that_are_closed(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let room = alice.create_room(json!({})).await;
        for id in [room.as_str(), "!nowhere:localhost", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"] {
            let path = |rest: &str| format!("/_matrix/client/v3/rooms/{}{rest}", escape(id));
            for rest in ["/messages?dir=b", "/state", "/members", "/joined_members", "/state/m.room.name/"] {
                bob.get(&path(rest)).await.refused(403, "M_FORBIDDEN");
            }
        }
        bob.get("/_matrix/client/v3/rooms/not-a-room/state").await.refused(400, "M_INVALID_PARAM");
        bob.get("/_matrix/client/v3/sync?since=elsewhere").await.refused(400, "M_INVALID_PARAM");
    }

    async fn browsers_may_call_from_anywhere(world) {
        let reply = world.call("OPTIONS", "/_matrix/client/v3/sync", None, None).await;
        assert_eq!(reply.status, 200);
        let versions = world.call("GET", "/_matrix/client/versions", None, None).await;
        assert_eq!(versions.headers["access-control-allow-origin"], "*");
        assert!(versions.headers.contains_key("x-request-id"));
    }
}
