//! Joins, leaves, knocks and invitations of another server that are not what their requests say.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use serde_json::{Value, json};

use super::scripted::{FarRoom, Scripted, federation};
use crate::{
    with_scripted,
    world::{Client, Reply, at},
};

/// A room into which nobody comes uninvited.
fn by_rule(rule: &Value) -> Value {
    json!({ "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": rule }] })
}

async fn public_room(user: &Client) -> String {
    user.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await
}

/// Proposes to do something, completes it, and hands it over with another room and another event in the path.
async fn hand_over(far: &Scripted, make: &str, sends: &[&str], room: &str, other: &str) -> (String, Value) {
    let template = far.template("one.test", make, room, &far.user("mallory")).await.ok();
    let (id, event) = far.complete(&template, "11");
    for send in sends {
        far.put("one.test", &federation(send, &[other, &id]), &event).await.refused(400, "M_INVALID_PARAM");
        let other_event = federation(send, &[room, "$another"]);
        far.put("one.test", &other_event, &event).await.refused(400, "M_INVALID_PARAM");
    }
    (id, event)
}

async fn is_in(user: &Client, room: &str, of: &str) -> bool {
    let members = user.get(&at(room, "/joined_members")).await.ok();
    members["joined"][of].is_object()
}

/// Sends an invitation as it is, to a path.
async fn put_invite(far: &Scripted, room: &FarRoom, path_room: &str, event: &Value) -> Reply {
    let path = federation("v2/invite", &[path_room, &room.id_of(event)]);
    far.put("one.test", &path, &room.invitation(event)).await
}

with_scripted! {
    /// Room in the path and in the body differ (CVE-2020-26257).
    async fn a_membership_of_another_room_than_the_path_is_refused(one, far) {
        let alice = one.user("alice").await;
        let (room, other) = (public_room(&alice).await, public_room(&alice).await);
        let mallory = far.user("mallory");
        let sends = ["v1/send_join", "v2/send_join"];
        let (id, join) = hand_over(&far, "make_join", &sends, &room, &other).await;
        for room in [&room, &other] {
            assert!(!is_in(&alice, room, &mallory).await);
        }
        // It is none of a leave or a knock either.
        for send in ["v1/send_leave", "v2/send_leave", "v1/send_knock"] {
            far.put("one.test", &federation(send, &[&room, &id]), &join).await.refused(400, "M_INVALID_PARAM");
        }
        far.put("one.test", &federation("v2/send_join", &[&room, &id]), &join).await.ok();
        assert!(is_in(&alice, &room, &mallory).await);
        far.join("one.test", &other, &mallory).await;

        let (id, leave) = hand_over(&far, "make_leave", &["v1/send_leave", "v2/send_leave"], &room, &other).await;
        for room in [&room, &other] {
            assert!(is_in(&alice, room, &mallory).await);
        }
        far.put("one.test", &federation("v1/send_leave", &[&room, &id]), &leave).await.ok();
        assert!(!is_in(&alice, &room, &mallory).await);
        assert!(is_in(&alice, &other, &mallory).await);
    }

    /// Room in the path and in the body differ (CVE-2020-26257).
    async fn a_knock_of_another_room_than_the_path_is_refused(one, far) {
        let alice = one.user("alice").await;
        let mut rooms = Vec::new();
        for _ in 0..2 {
            let mut body = by_rule(&json!({ "join_rule": "knock" }));
            body["room_version"] = "11".into();
            rooms.push(alice.create_room(body).await);
        }
        let (id, knock) = hand_over(&far, "make_knock", &["v1/send_knock"], &rooms[0], &rooms[1]).await;
        far.put("one.test", &federation("v1/send_knock", &[&rooms[0], &id]), &knock).await.ok();
    }

    /// Room in the path and in the body differ (CVE-2020-26257).
    async fn an_invitation_of_another_room_than_the_path_is_not_signed(one, far) {
        let bob = one.user("bob").await;
        for version in ["6", "11", "12"] {
            let room = far.create_room(version, json!({ "join_rule": "invite" }));
            let other = far.create_room(version, json!({ "join_rule": "invite" }));
            let mallory = far.user("mallory");
            let invite = room.event(&mallory, "m.room.member", Some(&bob.user_id), json!({ "membership": "invite" }));
            put_invite(&far, &room, &other.id, &invite).await.refused(400, "M_INVALID_PARAM");
            let path = federation("v2/invite", &[&room.id, "$another"]);
            far.put("one.test", &path, &room.invitation(&invite)).await.refused(400, "M_INVALID_PARAM");
            // What is signed here is an invitation of a user of this server by one of that, and nothing else.
            for change in [
                json!({ "content": { "membership": "ban" } }),
                json!({ "content": { "membership": "join" } }),
                json!({ "type": "m.room.power_levels" }),
                json!({ "state_key": "@somebody:elsewhere.test" }),
                json!({ "sender": bob.user_id }),
                json!({ "sender": "@somebody:elsewhere.test" }),
            ] {
                let other = room.changed(&invite, |event| {
                    event.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
                });
                let refused = put_invite(&far, &room, &room.id, &other).await;
                assert!([400, 403].contains(&refused.status), "{change}: {refused:?}");
            }
            let to_nobody = room.event(&mallory, "m.room.member", Some("@nobody:one.test"), json!({ "membership": "invite" }));
            put_invite(&far, &room, &room.id, &to_nobody).await.refused(404, "M_NOT_FOUND");
            assert!(bob.sync(None).await["rooms"]["invite"][&room.id].is_null());
            let signed = put_invite(&far, &room, &room.id, &invite).await.ok();
            let signers: Vec<String> = signed["event"]["signatures"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(signers, ["far.test", "one.test"]);
        }
    }

    /// A hostile invite breaks `/sync` (CVE-2024-52815).
    async fn a_hostile_invitation_leaves_sync_as_it_was(one, far) {
        let bob = one.user("bob").await;
        let room = far.create_room("10", json!({ "join_rule": "invite" }));
        let invite =
            room.event(&far.user("mallory"), "m.room.member", Some(&bob.user_id), json!({ "membership": "invite" }));
        for shown in [
            json!(null),
            json!({}),
            json!([7, null, "x", [], {}]),
            json!([{ "type": "m.room.name", "state_key": "", "sender": "nobody", "content": { "name": "x" } }]),
            json!([{ "type": "m.room.name", "state_key": 5, "sender": far.user("a"), "content": [] }]),
            json!([{ "type": "m.room.name", "state_key": "", "sender": far.user("a"), "content": { "name": { "a": 1 } } }]),
            json!([{ "type": "m.room.member", "state_key": "x", "sender": far.user("a"), "content": null }]),
            json!(vec![json!({ "type": "m.room.topic", "state_key": "", "sender": far.user("a"), "content": {} }); 500]),
        ] {
            let mut body = room.invitation(&invite);
            body["invite_room_state"] = shown.clone();
            let path = federation("v2/invite", &[&room.id, &room.id_of(&invite)]);
            let answer = far.put("one.test", &path, &body).await;
            assert!(answer.status < 500, "{shown}: {answer:?}");
            let sync = bob.sync(None).await;
            assert!(sync["next_batch"].is_string());
        }
        put_invite(&far, &room, &room.id, &invite).await.ok();
        bob.leave(&room.id).await.ok();
        assert!(bob.sync(None).await["rooms"]["invite"][&room.id].is_null());
    }

    /// Joins with unknown restricted rules (Synapse 1.159).
    async fn a_room_with_conditions_that_nobody_knows_is_not_joined(one, far) {
        let alice = one.user("alice").await;
        let mallory = far.user("mallory");
        let unknown = json!([
            { "type": "org.example.unheard_of", "room_id": "!nowhere:one.test" },
            { "type": "m.room_membership", "room_id": "!nowhere:one.test" },
        ]);
        for rule in ["restricted", "knock_restricted"] {
            let room = alice.create_room(by_rule(&json!({ "join_rule": rule, "allow": unknown }))).await;
            let refused = far.template("one.test", "make_join", &room, &mallory).await;
            refused.refused(400, "M_UNABLE_TO_AUTHORISE_JOIN");
            // What is asked for is what is looked at: there is nothing to leave, and one need not meet a condition to knock.
            far.template("one.test", "make_leave", &room, &mallory).await.refused(403, "M_FORBIDDEN");
            let knock = far.template("one.test", "make_knock", &room, &mallory).await;
            assert_eq!(knock.status, if rule == "restricted" { 403 } else { 200 }, "{knock:?}");
        }
        let room = alice.create_room(by_rule(&json!({ "join_rule": "org.example.unheard_of" }))).await;
        far.template("one.test", "make_join", &room, &mallory).await.refused(403, "M_FORBIDDEN");
    }

    async fn a_template_is_for_a_user_of_who_asks(one, far) {
        let alice = one.user("alice").await;
        let room = public_room(&alice).await;
        for make in ["make_join", "make_leave", "make_knock"] {
            for user in ["@bob:one.test", "@carol:elsewhere.test", &alice.user_id] {
                far.template("one.test", make, &room, user).await.refused(403, "M_FORBIDDEN");
            }
            let nowhere = far.template("one.test", make, "!nowhere:one.test", &far.user("mallory")).await;
            nowhere.refused(404, "M_NOT_FOUND");
        }
        let path = federation("v1/make_join", &[&room, &far.user("mallory")]);
        far.get("one.test", &format!("{path}?ver=10")).await.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
    }
}
