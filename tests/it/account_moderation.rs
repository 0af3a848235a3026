//! Accounts that are locked or suspended, and who does that to whom. That every endpoint is closed or open to them
//! as it should be is tested beside the list of endpoints.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-locking>,
//! <https://spec.matrix.org/v1.19/client-server-api/#account-suspension> and
//! <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use std::time::Duration;

use serde_json::json;

use crate::{
    on_both,
    world::{Client, Reply, escape, next, password, texts},
};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const LOGIN: &str = "/_matrix/client/v3/login";

fn path(act: &str, user_id: &str) -> String {
    format!("/_matrix/client/v1/admin/{act}/{}", escape(user_id))
}

async fn set(by: &Client, act: &str, user_id: &str, on: bool) -> Reply {
    let key = if act == "lock" { "locked" } else { "suspended" };
    by.put(&path(act, user_id), json!({ key: on })).await
}

/// Asks again and again: what the command line leaves is taken up within a second.
async fn until(is_so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("no node has taken it up");
}

#[track_caller]
fn is_locked(reply: &Reply) {
    reply.refused(401, "M_USER_LOCKED");
    assert_eq!(reply.body["soft_logout"], true, "{}", reply.body);
}

on_both! {
    async fn a_locked_account_can_only_log_out_and_keeps_its_sessions(world) {
        let (root, bob) = (world.administrator("root").await, world.user("bob").await);
        let tablet = world.login(&bob).await;
        let room = bob.create_room(json!({})).await;
        assert_eq!(root.get(&path("lock", &bob.user_id)).await.ok(), json!({ "locked": false }));
        let sessions = json!({ "refresh_token": true });
        let mut body = bob.password();
        body.as_object_mut().unwrap().extend(sessions.as_object().unwrap().clone());
        let refreshable = world.call("POST", LOGIN, None, Some(body)).await.ok();

        let openid = format!("/_matrix/client/v3/user/{}/openid/request_token", escape(&bob.user_id));
        let proof = bob.post(&openid, json!({})).await.ok();
        let proof = proof["access_token"].as_str().unwrap();
        let userinfo = format!("/_matrix/federation/v1/openid/userinfo?access_token={proof}");

        assert_eq!(set(&root, "lock", &bob.user_id, true).await.ok(), json!({ "locked": true }));
        // On each node, at once.
        for _ in 0..4 {
            is_locked(&bob.get(WHOAMI).await);
            is_locked(&bob.get("/_matrix/client/v3/sync").await);
            is_locked(&bob.get(&format!("/_matrix/client/v3/rooms/{}/messages?dir=b", escape(&room))).await);
            is_locked(&bob.post("/_matrix/client/v3/createRoom", json!({})).await);
            // Which takes a token, but needs none.
            is_locked(&bob.get("/_matrix/client/versions").await);
        }
        assert_eq!(root.get(&path("lock", &bob.user_id)).await.ok(), json!({ "locked": true }));
        let login = |given: &'static str| world.call("POST", LOGIN, None, Some(password("bob", given)));
        is_locked(&login("password of bob").await);
        login("a guess").await.refused(403, "M_FORBIDDEN");
        let refresh = json!({ "refresh_token": refreshable["refresh_token"] });
        is_locked(&world.call("POST", "/_matrix/client/v3/refresh", None, Some(refresh.clone())).await);

        // Nor do they prove to others who they are.
        world.call("GET", &userinfo, None, None).await.refused(401, "M_UNKNOWN_TOKEN");

        tablet.post("/_matrix/client/v3/logout", json!({})).await.ok();
        tablet.get(WHOAMI).await.refused(401, "M_UNKNOWN_TOKEN");
        let world = world.restarted().await;
        let (root, bob) = (root.at(&world), bob.at(&world));
        is_locked(&bob.get(WHOAMI).await);

        set(&root, "lock", &bob.user_id, false).await.ok();
        for _ in 0..4 {
            bob.get(WHOAMI).await.ok();
        }
        world.call("POST", "/_matrix/client/v3/refresh", None, Some(refresh)).await.ok();
        world.call("GET", &userinfo, None, None).await.ok();
        set(&root, "lock", &bob.user_id, true).await.ok();
        bob.post("/_matrix/client/v3/logout/all", json!({})).await.ok();
        bob.get(WHOAMI).await.refused(401, "M_UNKNOWN_TOKEN");
        set(&root, "lock", &bob.user_id, false).await.ok();
        bob.get(WHOAMI).await.refused(401, "M_UNKNOWN_TOKEN");
        world.login(&bob).await.get(WHOAMI).await.ok();
    }

    async fn a_sync_that_waits_ends_when_the_account_is_locked(world) {
        let (root, bob) = (world.administrator("root").await, world.user("bob").await);
        let since = next(&bob.sync(None).await);
        let waiting = format!("/_matrix/client/v3/sync?set_presence=offline&timeout=60000&since={since}");
        let lock = async {
            world.until_a_sync_waits().await;
            set(&root, "lock", &bob.user_id, true).await.ok();
        };
        let (sync, ()) = tokio::join!(bob.get(&waiting), lock);
        is_locked(&sync);
    }

    async fn only_administrators_restrict_accounts_and_only_those_of_others_who_are_none(world) {
        let (root, toor) = (world.administrator("root").await, world.administrator("toor").await);
        let (bob, eve) = (world.user("bob").await, world.user("eve").await);
        for (act, key) in [("lock", "locked"), ("suspend", "suspended")] {
            // Nobody else finds out who has an account.
            let refused = eve.get(&path(act, &bob.user_id)).await;
            refused.refused(403, "M_FORBIDDEN");
            for user in ["@nobody:localhost", "@bob:elsewhere.org", &eve.user_id, &root.user_id] {
                assert_eq!(eve.get(&path(act, user)).await.body, refused.body);
                assert_eq!(set(&eve, act, user, true).await.body, refused.body);
            }
            world.call("GET", &path(act, &bob.user_id), None, None).await.refused(401, "M_MISSING_TOKEN");
            let body = Some(json!({ key: true }));
            world.call("PUT", &path(act, &bob.user_id), None, body).await.refused(401, "M_MISSING_TOKEN");

            root.get(&path(act, "@bob:elsewhere.org")).await.refused(400, "M_INVALID_PARAM");
            set(&root, act, "@bob:elsewhere.org", true).await.refused(400, "M_INVALID_PARAM");
            root.get(&path(act, "@nobody:localhost")).await.refused(404, "M_NOT_FOUND");
            set(&root, act, "@nobody:localhost", true).await.refused(404, "M_NOT_FOUND");
            root.get(&path(act, &toor.user_id)).await.refused(403, "M_FORBIDDEN");
            set(&root, act, &toor.user_id, true).await.refused(403, "M_FORBIDDEN");
            set(&root, act, &root.user_id, true).await.refused(403, "M_FORBIDDEN");
            root.put(&path(act, &bob.user_id), json!({})).await.refused(400, "M_MISSING_PARAM");
            root.put(&path(act, &bob.user_id), json!({ key: "yes" })).await.refused(400, "M_BAD_JSON");
            root.get(&path(act, "bob")).await.refused(400, "M_INVALID_PARAM");
            root.get(&path(act, &format!("@{}:localhost", "b".repeat(255)))).await.refused(400, "M_INVALID_PARAM");
            assert_eq!(root.get(&path(act, &bob.user_id)).await.ok(), json!({ key: false }));
        }
        toor.get(WHOAMI).await.ok();

        let auth = json!({ "auth": eve.password() });
        eve.post("/_matrix/client/v3/account/deactivate", auth).await.ok();
        root.get(&path("lock", &eve.user_id)).await.refused(404, "M_NOT_FOUND");
        set(&root, "suspend", &eve.user_id, true).await.refused(404, "M_NOT_FOUND");
        let login = world.call("POST", LOGIN, None, Some(eve.password())).await;
        login.refused(403, "M_USER_DEACTIVATED");

        let capabilities = |reply: Reply| reply.ok()["capabilities"].get("m.account_moderation").cloned();
        let path = "/_matrix/client/v3/capabilities";
        assert_eq!(capabilities(root.get(path).await), Some(json!({ "suspend": true, "lock": true })));
        assert_eq!(capabilities(bob.get(path).await), None);
    }

    async fn a_suspended_user_reads_leaves_and_redacts_their_own_words(world) {
        let (root, alice, bob) =
            (world.administrator("root").await, world.user("alice").await, world.user("bob").await);
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        alice.join(&room).await.ok();
        let (own, others) = (bob.say(&room, "mine").await, alice.say(&room, "hers").await);
        let invited = alice.create_room(json!({ "invite": [bob.user_id] })).await;
        let public = alice.create_room(json!({ "preset": "public_chat" })).await;
        let since = next(&bob.sync(None).await);
        assert_eq!(set(&root, "suspend", &bob.user_id, true).await.ok(), json!({ "suspended": true }));
        assert_eq!(root.get(&path("suspend", &bob.user_id)).await.ok(), json!({ "suspended": true }));

        let suspended = |reply: Reply| reply.refused(403, "M_USER_SUSPENDED");
        let in_room = |rest: &str| format!("/_matrix/client/v3/rooms/{}/{rest}", escape(&room));
        let text = json!({ "msgtype": "m.text", "body": "but" });
        suspended(bob.put(&in_room("send/m.room.message/1"), text).await);
        suspended(bob.put(&in_room("send/m.reaction/1"), json!({})).await);
        suspended(bob.put(&in_room("state/m.room.topic"), json!({ "topic": "me" })).await);
        suspended(bob.put(&in_room(&format!("typing/{}", escape(&bob.user_id))), json!({ "typing": true })).await);
        suspended(bob.join(&public).await);
        suspended(bob.join(&invited).await);
        suspended(bob.invite(&room, &root.user_id).await);
        suspended(bob.post("/_matrix/client/v3/createRoom", json!({})).await);
        suspended(bob.post(&format!("/_matrix/client/v3/knock/{}", escape(&public)), json!({})).await);
        let profile = format!("/_matrix/client/v3/profile/{}/displayname", escape(&bob.user_id));
        suspended(bob.put(&profile, json!({ "displayname": "Rob" })).await);
        suspended(bob.put(&in_room(&format!("redact/{}/1", escape(&others))), json!({})).await);
        suspended(bob.put(&in_room("send/m.room.redaction/2"), json!({ "redacts": others })).await);

        bob.put(&in_room(&format!("redact/{}/3", escape(&own))), json!({})).await.ok();
        bob.put(&in_room("redact/%24nothing/4"), json!({})).await.refused(404, "M_NOT_FOUND");
        let more = alice.say(&room, "more").await;
        assert_eq!(texts(&bob.sync(Some(&since)).await, &room), ["more"]);
        bob.get(&in_room("messages?dir=b")).await.ok();
        bob.post(&in_room(&format!("receipt/m.read/{}", escape(&more))), json!({})).await.ok();
        let tablet = world.login(&bob).await;
        suspended(tablet.put(&in_room("send/m.room.message/1"), json!({ "msgtype": "m.text", "body": "but" })).await);
        tablet.post("/_matrix/client/v3/logout", json!({})).await.ok();
        bob.leave(&invited).await.ok();

        let world = world.restarted().await;
        let (root, bob) = (root.at(&world), bob.at(&world));
        suspended(bob.join(&public).await);
        set(&root, "suspend", &bob.user_id, false).await.ok();
        bob.join(&public).await.ok();
        bob.put(&in_room(&format!("redact/{}/5", escape(&others))), json!({})).await.ok();
        bob.leave(&room).await.ok();
    }

    async fn the_operator_restricts_accounts_beside_the_running_server(world) {
        let bob = world.user("bob").await;
        let operator = world.administration().await;
        let since = next(&bob.sync(None).await);
        let waiting = format!("/_matrix/client/v3/sync?set_presence=offline&timeout=60000&since={since}");
        let lock = async {
            world.until_a_sync_waits().await;
            assert_eq!(operator.set_locked("bob", true).await.unwrap(), bob.user_id.as_str());
        };
        let (sync, ()) = tokio::join!(bob.get(&waiting), lock);
        is_locked(&sync);
        let shown = serde_json::to_value(operator.show_account("@bob:localhost").await.unwrap()).unwrap();
        assert_eq!(shown, json!({
            "user_id": bob.user_id, "admin": false, "guest": false, "deactivated": false, "locked": true,
            "suspended": false, "accepted_terms": {},
        }));

        let nodes: Vec<Client> = (0..world.nodes.len()).map(|node| bob.clone().at_node(&world, node)).collect();
        // Each of them remembers it, and is told by the one that takes it up.
        for node in &nodes {
            until(async || node.get(WHOAMI).await.status != 200).await;
            is_locked(&node.get(WHOAMI).await);
        }
        operator.set_locked("bob", false).await.unwrap();
        for node in &nodes {
            until(async || node.get(WHOAMI).await.status == 200).await;
        }
        operator.set_suspended("bob", true).await.unwrap();
        let create = async |client: &Client| client.post("/_matrix/client/v3/createRoom", json!({})).await;
        for node in &nodes {
            until(async || create(node).await.status != 200).await;
            create(node).await.refused(403, "M_USER_SUSPENDED");
        }
        // Administrators too: somebody has to be able to.
        operator.create_user("root", "password of root", true).await.unwrap();
        operator.set_suspended("root", true).await.unwrap();
        assert!(operator.show_account("root").await.unwrap().restrictions.suspended);
        assert!(operator.set_locked("nobody", true).await.is_err());
    }
}
