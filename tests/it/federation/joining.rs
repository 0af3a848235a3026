//! Coming into rooms of other servers, and going.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>,
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>,
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room>

use serde_json::{Value, json};

use super::peer::{shared_room, until_they_agree};
use crate::{
    between,
    world::{Client, at, escape, next},
};

/// The versions that are tried where a version may make a difference.
const VERSIONS: [&str; 3] = ["6", "10", "12"];

async fn membership(asked: &Client, room: &str, of: &Client) -> Value {
    let path = at(room, &format!("/state/m.room.member/{}", escape(&of.user_id)));
    asked.get(&path).await.body["membership"].clone()
}

async fn until_invited(user: &Client, room: &str) {
    let is_invited = |sync: &Value| sync["rooms"]["invite"][room].is_object();
    let sync = user.sync(None).await;
    if !is_invited(&sync) {
        user.until(next(&sync), "of an invitation", is_invited).await;
    }
}

/// Waits until a user's membership is known to another.
async fn until_they_are(asked: &Client, room: &str, of: &Client, wanted: &str) {
    for _ in 0..600 {
        if membership(asked, room, of).await == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} is not `{wanted}` to {}", of.user_id, asked.user_id);
}

between! {
    async fn a_public_room_of_another_server_is_joined(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        for version in VERSIONS {
            let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version })).await;
            let since = next(&alice.sync(None).await);
            bob.join_via(&room, "one.test").await.ok();
            alice.until(since, "that bob has come", |sync| sync["rooms"]["join"][&room].is_object()).await;
            until_they_agree(&[&alice, &bob], &room).await;
            // Everybody is told of the room whole.
            let sync = bob.sync(None).await;
            let joined = &sync["rooms"]["join"][&room];
            assert_eq!(joined["summary"]["m.joined_member_count"], 2, "{joined}");
        }
        drop(internet);
    }

    async fn an_alias_leads_to_a_room_of_another_server(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "pub" })).await;
        let found = bob.get("/_matrix/client/v3/directory/room/%23pub%3Aone.test").await.ok();
        assert_eq!(found["room_id"], room.as_str());
        bob.post("/_matrix/client/v3/join/%23pub%3Aone.test", json!({})).await.ok();
        until_they_agree(&[&alice, &bob], &room).await;
        bob.get("/_matrix/client/v3/directory/room/%23nothing%3Aone.test").await.refused(404, "M_NOT_FOUND");
        drop(internet);
    }

    async fn somebody_of_another_server_is_invited_and_comes(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        for version in VERSIONS {
            let room = alice.create_room(json!({ "preset": "private_chat", "name": "Us", "room_version": version })).await;
            bob.join_via(&room, "one.test").await.refused(403, "M_FORBIDDEN");
            alice.invite(&room, &bob.user_id).await.ok();
            until_invited(&bob, &room).await;
            let sync = bob.sync(None).await;
            let stripped = sync["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap();
            assert!(stripped.iter().any(|event| event["content"]["name"] == "Us"), "{stripped:?}");
            // Without `via`: who has invited knows the way.
            bob.join(&room).await.ok();
            until_they_agree(&[&alice, &bob], &room).await;
        }
        drop(internet);
    }

    async fn an_invitation_is_turned_down(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        alice.invite(&room, &bob.user_id).await.ok();
        until_invited(&bob, &room).await;
        bob.leave(&room).await.ok();
        until_they_are(&alice, &room, &bob, "leave").await;
        assert_eq!(bob.sync(None).await["rooms"]["invite"][&room], Value::Null);
        drop(internet);
    }

    /// The other server may never come back: an invitation must not stay for ever.
    async fn an_invitation_is_turned_down_though_its_server_is_gone(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        alice.invite(&room, &bob.user_id).await.ok();
        until_invited(&bob, &room).await;
        internet.part("one.test", "two.test");
        bob.leave(&room).await.ok();
        assert_eq!(bob.sync(None).await["rooms"]["invite"][&room], Value::Null);
    }

    async fn an_invitation_is_taken_back(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        alice.invite(&room, &bob.user_id).await.ok();
        until_invited(&bob, &room).await;
        alice.post(&at(&room, "/kick"), json!({ "user_id": bob.user_id })).await.ok();
        bob.join(&room).await.refused(403, "M_FORBIDDEN");
        drop(internet);
    }

    async fn somebody_leaves_and_comes_back(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = shared_room(&alice, &bob, "12").await;
        bob.say(&room, "hello").await;
        alice.hears(&room, "hello").await;
        bob.leave(&room).await.ok();
        until_they_are(&alice, &room, &bob, "leave").await;
        alice.say(&room, "while bob is away").await;
        alice.put(&at(&room, "/state/m.room.topic"), json!({ "topic": "changed meanwhile" })).await.ok();
        bob.join_via(&room, "one.test").await.ok();
        until_they_agree(&[&alice, &bob], &room).await;
        alice.say(&room, "welcome back").await;
        bob.hears(&room, "welcome back").await;
        drop(internet);
    }

    async fn somebody_knocks_and_is_let_in(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let rule = json!([{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }]);
        let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": rule })).await;
        let knock = format!("/_matrix/client/v3/knock/{}?via=one.test", escape(&room));
        bob.post(&knock, json!({ "reason": "It is cold outside" })).await.ok();
        until_they_are(&alice, &room, &bob, "knock").await;
        assert!(bob.sync(None).await["rooms"]["knock"][&room].is_object());
        alice.invite(&room, &bob.user_id).await.ok();
        until_invited(&bob, &room).await;
        bob.join(&room).await.ok();
        until_they_agree(&[&alice, &bob], &room).await;
        drop(internet);
    }

    async fn members_of_another_room_may_join(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let club = shared_room(&alice, &bob, "12").await;
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let content = json!({ "join_rule": "restricted", "allow": allow });
        let rule = json!([{ "type": "m.room.join_rules", "state_key": "", "content": content }]);
        let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": rule })).await;
        bob.join_via(&room, "one.test").await.ok();
        until_they_agree(&[&alice, &bob], &room).await;
        let carol = two.user("carol").await;
        carol.join(&room).await.refused(403, "M_FORBIDDEN");
        drop(internet);
    }

    async fn who_is_banned_stays_out(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = shared_room(&alice, &bob, "12").await;
        let carol = two.user("carol").await;
        carol.join(&room).await.ok();
        alice.post(&at(&room, "/ban"), json!({ "user_id": bob.user_id })).await.ok();
        until_they_are(&carol, &room, &bob, "ban").await;
        bob.join_via(&room, "one.test").await.refused(403, "M_FORBIDDEN");
        drop(internet);
    }

    async fn a_server_that_is_shut_out_is_not_let_in(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let acl = json!({ "allow": ["*"], "deny": ["TWO.*"] });
        let state = json!([{ "type": "m.room.server_acl", "state_key": "", "content": acl }]);
        let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
        bob.join_via(&room, "one.test").await.refused(403, "M_FORBIDDEN");
        drop(internet);
    }

    async fn a_room_moves_to_a_new_version(internet, one, two) {
        let (alice, bob) = (one.user("alice").await, two.user("bob").await);
        let room = shared_room(&alice, &bob, "10").await;
        let upgraded = alice.post(&at(&room, "/upgrade"), json!({ "new_version": "12" })).await.ok();
        let successor = upgraded["replacement_room"].as_str().unwrap();
        for _ in 0..600 {
            if bob.get(&at(&room, "/state/m.room.tombstone")).await.status == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        bob.join_via(successor, "one.test").await.ok();
        until_they_agree(&[&alice, &bob], successor).await;
    }
}
