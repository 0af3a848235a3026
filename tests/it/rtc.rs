//! What calls need beside delayed events, what is found at well-known places, and what only application services
//! may do.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4143> and
//! <https://spec.matrix.org/v1.19/client-server-api/#well-known-uris>

use serde_json::{Value, json};

use crate::on_both;

const TRANSPORTS: &str = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports";
const KEY: &str = "6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS+s";

on_both! {
    async fn clients_are_told_what_carries_calls(world, config => {
        let transports = json!([
            { "type": "livekit", "livekit_service_url": "https://rtc.example.org" },
            { "type": "org.example.other", "port": 7 },
        ]);
        config.rtc.transports = serde_json::from_value(transports).unwrap();
        config.well_known.client_base_url = Some("https://matrix.example.org".to_owned().try_into().unwrap());
    }) {
        let alice = world.user("alice").await;
        let expected = json!([
            { "type": "livekit", "livekit_service_url": "https://rtc.example.org" },
            { "type": "org.example.other", "port": 7 },
        ]);
        let found = alice.get(TRANSPORTS).await.ok();
        assert_eq!(found, json!({ "rtc_transports": expected, "transports": expected }));
        world.call("GET", TRANSPORTS, None, None).await.refused(401, "M_MISSING_TOKEN");
        world.call("GET", TRANSPORTS, Some("nobodys"), None).await.refused(401, "M_UNKNOWN_TOKEN");
        let client = world.call("GET", "/.well-known/matrix/client", None, None).await.ok();
        assert_eq!(client["org.matrix.msc4143.rtc_foci"], expected);
        assert_eq!(client["m.homeserver"]["base_url"], "https://matrix.example.org");
        let versions = world.call("GET", "/_matrix/client/versions", None, None).await.ok();
        assert_eq!(versions["unstable_features"]["org.matrix.msc4143"], true);
    }

    /// Trap: an empty list keeps clients from looking where another web server may tell them.
    async fn where_nothing_carries_calls_there_is_no_such_endpoint(world, config => {
        config.well_known.client_base_url = Some("https://matrix.example.org".to_owned().try_into().unwrap());
    }) {
        let alice = world.user("alice").await;
        alice.get(TRANSPORTS).await.refused(404, "M_UNRECOGNIZED");
        world.call("GET", TRANSPORTS, None, None).await.refused(401, "M_MISSING_TOKEN");
        let client = world.call("GET", "/.well-known/matrix/client", None, None).await.ok();
        assert!(client.get("org.matrix.msc4143.rtc_foci").is_none(), "{client}");
        let versions = world.call("GET", "/_matrix/client/versions", None, None).await.ok();
        assert!(versions["unstable_features"].get("org.matrix.msc4143").is_none(), "{versions}");
    }

    async fn the_policy_server_is_found_at_its_name(world, config => {
        config.well_known.policy_server.ed25519 = Some(KEY.to_owned().try_into().unwrap());
    }) {
        let reply = world.call("GET", "/.well-known/matrix/policy_server", None, None).await;
        assert_eq!(reply.headers["access-control-allow-origin"], "*");
        assert_eq!(reply.ok(), json!({ "public_keys": { "ed25519": KEY } }));
    }

    async fn what_nobody_has_configured_is_not_there(world) {
        let path = "/.well-known/matrix/policy_server";
        world.call("GET", path, None, None).await.refused(404, "M_NOT_FOUND");
    }

    async fn only_application_services_may_do_what_is_theirs(world) {
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let listing =
            format!("/_matrix/client/v3/directory/list/appservice/irc/{}", crate::world::escape(&room));
        let calls = [
            ("POST", "/_matrix/client/v1/appservice/irc/ping".to_owned(), json!({ "transaction_id": "t" })),
            ("PUT", listing, json!({ "visibility": "public" })),
        ];
        for (method, path, body) in calls {
            let call = async |token: Option<&str>, body: Value| world.call(method, &path, token, Some(body)).await;
            call(Some(&alice.token), body.clone()).await.refused(403, "M_FORBIDDEN");
            call(Some(&alice.token), json!([])).await.refused(403, "M_FORBIDDEN");
            call(None, body.clone()).await.refused(401, "M_MISSING_TOKEN");
            call(Some("nobodys"), body).await.refused(401, "M_UNKNOWN_TOKEN");
        }
    }
}
