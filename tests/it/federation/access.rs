//! Rooms that keep servers out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms>

use serde_json::json;

use super::scripted::{Scripted, federation};
use crate::{
    with_scripted,
    world::{Client, at, escape},
};

async fn set_list(alice: &Client, room: &str, list: serde_json::Value) {
    alice.put(&at(room, "/state/m.room.server_acl/"), list).await.ok();
}

/// Checks that a server is kept out of a room in which one of its users is.
async fn is_kept_out(far: &Scripted, alice: &Client, room: &str) {
    let far_room = far.join("one.test", room, &far.user("mallory")).await;
    let host = far.name().split(':').next().unwrap().to_uppercase();
    for list in [
        json!({ "allow": ["*"], "deny": [host] }),
        json!({ "allow": ["*"], "deny": [host.to_lowercase()] }),
        json!({ "allow": ["*"], "deny": ["*R*.TEST"] }),
        json!({ "allow": ["one.test", "near.*"] }),
        // Costs of a hostile glob (CVE-2023-45129).
        json!({ "allow": ["*"], "deny": [format!("{}b", "*a".repeat(5_000)), "?*?*r*.t*t"] }),
    ] {
        set_list(alice, room, list.clone()).await;
        let said = far_room.message("from outside");
        let answer = far.transaction("one.test", std::slice::from_ref(&said)).await.ok();
        let result = &answer["pdus"][far_room.id_of(&said)];
        assert!(result["error"].is_string(), "{list}: {answer}");
        for make in ["make_join", "make_leave", "make_knock"] {
            far.template("one.test", make, room, &far.user("eve")).await.refused(403, "M_FORBIDDEN");
        }
        let id = escape(&far_room.id_of(&said));
        alice.get(&at(room, &format!("/event/{id}"))).await.refused(404, "M_NOT_FOUND");
        far.get("one.test", &federation("v1/event_auth", &[room, "$any"])).await.refused(403, "M_FORBIDDEN");
    }
    set_list(alice, room, json!({ "allow": ["*"], "deny": ["somebody.else"] })).await;
    let said = far_room.message("let in again");
    let answer = far.transaction("one.test", std::slice::from_ref(&said)).await.ok();
    assert_eq!(answer["pdus"], json!({ far_room.id_of(&said): {} }));
    alice.hears(room, "let in again").await;
}

with_scripted! {
    /// Server ACLs: case, cost of a hostile glob (CVE-2023-45129).
    async fn a_server_is_kept_out_whatever_the_case_of_its_name(one, far) {
        let alice = one.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        is_kept_out(&far, &alice, &room).await;
    }

    /// Server ACLs: ports.
    async fn a_server_is_kept_out_whatever_its_port(one, far) {
        let alice = one.user("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let ported = Scripted::start_with_port(far.internet(), "ported.test", one.world.clock.clone()).await;
        is_kept_out(&ported, &alice, &room).await;
    }

    /// Server ACLs: EDUs come from whom they come from; what is kept out there shows when there are any. What is sent along
    /// of rooms that let the server in is taken.
    async fn only_the_rooms_that_keep_it_out_are_closed(one, far) {
        let alice = one.user("alice").await;
        let mallory = far.user("mallory");
        let (open, closed) =
            (alice.create_room(json!({ "preset": "public_chat" })).await, alice.create_room(json!({ "preset": "public_chat" })).await);
        let far_open = far.join("one.test", &open, &mallory).await;
        let far_closed = far.join("one.test", &closed, &mallory).await;
        set_list(&alice, &closed, json!({ "allow": ["*"], "deny": ["far.test"] })).await;
        let (refused, taken) = (far_closed.message("refused"), far_open.message("taken"));
        let answer = far.transaction("one.test", &[refused.clone(), taken.clone()]).await.ok();
        assert!(answer["pdus"][far_closed.id_of(&refused)]["error"].is_string(), "{answer}");
        assert_eq!(answer["pdus"][far_open.id_of(&taken)], json!({}));
        alice.hears(&open, "taken").await;
    }

    /// An invitation by a server that the room keeps out, to a room that this server is in.
    async fn nobody_is_invited_by_a_server_that_is_kept_out(one, far) {
        let (alice, bob) = (one.user("alice").await, one.user("bob").await);
        let powers = json!({ "users_default": 100 });
        let body = json!({ "preset": "public_chat", "room_version": "11", "power_level_content_override": powers });
        let room = alice.create_room(body).await;
        let far_room = far.join("one.test", &room, &far.user("mallory")).await;
        set_list(&alice, &room, json!({ "allow": ["*"], "deny": ["far.test"] })).await;
        far.invite("one.test", &far_room, &bob.user_id).await.refused(403, "M_FORBIDDEN");
    }
}
