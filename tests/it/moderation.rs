//! Reports, who is logged in where, credentials for calls, and networks that there are none of.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content> and
//! <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use serde_json::json;

use crate::{on_both, world::escape};

on_both! {
    async fn what_is_reported_is_kept_for_the_operator(world) {
        let (alice, bob, eve) = (world.user("alice").await, world.user("bob").await, world.user("eve").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let event = alice.say(&room, "rude").await;
        bob.join(&room).await.ok();
        let of_event = format!("/_matrix/client/v3/rooms/{}/report/{}", escape(&room), escape(&event));
        bob.post(&of_event, json!({ "reason": "rude words", "score": -100 })).await.ok();
        let of_room = format!("/_matrix/client/v3/rooms/{}/report", escape(&room));
        eve.post(&of_room, json!({ "reason": "" })).await.ok();
        let of_user = format!("/_matrix/client/v3/users/{}/report", escape(&alice.user_id));
        eve.post(&of_user, json!({ "reason": "spam" })).await.ok();
        // Nobody learns from a report what there is.
        eve.post("/_matrix/client/v3/rooms/!nowhere:localhost/report", json!({ "reason": "guess" })).await.ok();
        eve.post("/_matrix/client/v3/users/@nobody:localhost/report", json!({ "reason": "guess" })).await.ok();

        let hidden = eve.post(&of_event, json!({})).await;
        hidden.refused(404, "M_NOT_FOUND");
        let unknown = format!("/_matrix/client/v3/rooms/{}/report/%24unknown", escape(&room));
        assert_eq!(bob.post(&unknown, json!({})).await.body, hidden.body);
        bob.post(&of_event, json!({ "reason": "x".repeat(10_000) })).await.refused(413, "M_TOO_LARGE");
        bob.post(&of_room, json!({ "reason": 7 })).await.refused(400, "M_BAD_JSON");
        bob.post(&of_user, json!({})).await.refused(400, "M_MISSING_PARAM");
        world.call("POST", &of_user, None, Some(json!({ "reason": "" }))).await.refused(401, "M_MISSING_TOKEN");

        let reports = world.administration().await.list_reports(10).await.unwrap();
        assert_eq!(reports.len(), 5);
        let rude = reports.iter().find(|report| report.reason == "rude words").unwrap();
        let place = (rude.room_id.as_ref().map(AsRef::as_ref), rude.event_id.as_ref().map(AsRef::as_ref));
        assert_eq!((place, rude.reporter.as_str()), ((Some(room.as_str()), Some(event.as_str())), bob.user_id.as_str()));
        let spam = reports.iter().find(|report| report.reason == "spam").unwrap();
        assert_eq!(spam.user_id.as_ref().map(AsRef::as_ref), Some(alice.user_id.as_str()));
    }

    async fn users_learn_where_they_are_logged_in_and_administrators_where_others_are(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let whois = |user: &str| format!("/_matrix/client/v3/admin/whois/{}", escape(user));
        let own = alice.get(&whois(&alice.user_id)).await.ok();
        assert_eq!(own["user_id"], alice.user_id.as_str());
        let devices = own["devices"].as_object().unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices.values().next().unwrap()["sessions"][0]["connections"][0]["ip"], "127.0.0.1");
        alice.get(&whois(&bob.user_id)).await.refused(403, "M_FORBIDDEN");
        alice.get(&whois("@nobody:localhost")).await.refused(403, "M_FORBIDDEN");

        let root = world.administrator("root").await;
        assert_eq!(root.get(&whois(&bob.user_id)).await.ok()["devices"].as_object().unwrap().len(), 1);
        root.get(&whois("@nobody:localhost")).await.refused(404, "M_NOT_FOUND");
    }

    async fn calls_get_credentials_for_the_turn_server(world, config => {
        config.turn.uris = vec!["turn:turn.example.org?transport=udp".to_owned().try_into().unwrap()];
        config.turn.shared_secret = Some("north wind".to_owned().try_into().unwrap());
    }) {
        let alice = world.user("alice").await;
        let turn = alice.get("/_matrix/client/v3/voip/turnServer").await.ok();
        assert_eq!((&turn["uris"], &turn["ttl"]), (&json!(["turn:turn.example.org?transport=udp"]), &json!(86_400)));
        assert_eq!(turn["username"], "1767312000:@alice:localhost");
        assert_eq!(turn["password"].as_str().unwrap().len(), 28);
        world.call("GET", "/_matrix/client/v3/voip/turnServer", None, None).await.refused(401, "M_MISSING_TOKEN");
    }

    async fn somebody_proves_to_others_who_they_are_for_an_hour(world) {
        let (alice, bob) = (world.user("alice").await, world.user("bob").await);
        let path = |user: &str| format!("/_matrix/client/v3/user/{}/openid/request_token", escape(user));
        let proof = alice.post(&path(&alice.user_id), json!({})).await.ok();
        assert_eq!((&proof["token_type"], &proof["expires_in"]), (&json!("Bearer"), &json!(3_600)));
        assert_eq!(proof["matrix_server_name"], "localhost");
        let token = proof["access_token"].as_str().unwrap();
        let ask = |token: &str| format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
        assert_eq!(world.call("GET", &ask(token), None, None).await.ok(), json!({ "sub": alice.user_id }));
        world.call("GET", &ask("nonsense"), None, None).await.refused(401, "M_UNKNOWN_TOKEN");
        world.call("GET", &ask(&alice.token), None, None).await.refused(401, "M_UNKNOWN_TOKEN");
        world.call("GET", "/_matrix/federation/v1/openid/userinfo", None, None).await.refused(401, "M_MISSING_TOKEN");
        world.call("GET", "/_matrix/client/v3/account/whoami", Some(token), None).await.refused(401, "M_UNKNOWN_TOKEN");
        bob.post(&path(&alice.user_id), json!({})).await.refused(403, "M_FORBIDDEN");
        world.clock.advance(std::time::Duration::from_mins(61));
        world.call("GET", &ask(token), None, None).await.refused(401, "M_UNKNOWN_TOKEN");
    }

    async fn what_is_not_configured_is_not_there(world) {
        let alice = world.user("alice").await;
        alice.get("/_matrix/client/v3/voip/turnServer").await.refused(404, "M_NOT_FOUND");
        assert_eq!(alice.get("/_matrix/client/v3/thirdparty/protocols").await.ok(), json!({}));
        for path in ["protocol/irc", "location/irc", "user/irc"] {
            alice.get(&format!("/_matrix/client/v3/thirdparty/{path}")).await.refused(404, "M_NOT_FOUND");
        }
        for path in ["location?alias=%23a:localhost", "user?userid=@a:localhost"] {
            assert_eq!(alice.get(&format!("/_matrix/client/v3/thirdparty/{path}")).await.ok(), json!([]));
        }
    }
}
