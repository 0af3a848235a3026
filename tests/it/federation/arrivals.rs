//! What a server of bad intent says of a room that somebody joins.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>

use serde_json::{Value, json};

use super::scripted::{FarRoom, Say, Scripted};
use crate::{
    with_scripted,
    world::{at, escape},
};

/// Those events of a list that are not of this type.
fn without(list: &Value, kind: &str) -> Value {
    list.as_array().unwrap().iter().filter(|event| event["type"] != kind).cloned().collect()
}

/// Answers to a join that no room comes of, by what is wrong.
fn hostile_answers(room: &FarRoom, other: &FarRoom) -> Vec<(&'static str, Say)> {
    let (state, mut joined) = (json!(room.whole_state()), json!({ "origin": "far.test", "members_omitted": false }));
    joined["state"] = state.clone();
    joined["auth_chain"] = state.clone();
    let with = |field: &str, value: Value| {
        let mut joined = joined.clone();
        joined[field] = value;
        Say::ok(joined)
    };
    let no_create = {
        let mut joined = joined.clone();
        joined["state"] = without(&state, "m.room.create");
        joined["auth_chain"] = joined["state"].clone();
        joined
    };
    let no_rules = {
        let mut joined = joined.clone();
        joined["state"] = without(&state, "m.room.join_rules");
        joined["auth_chain"] = joined["state"].clone();
        joined
    };
    let foreign = [room.whole_state(), other.whole_state()].concat();
    let stripped: Value = room
        .whole_state()
        .into_iter()
        .map(|mut event| {
            event["signatures"] = json!({});
            event
        })
        .collect();
    let mut unsigned = joined.clone();
    unsigned["state"] = stripped.clone();
    unsigned["auth_chain"] = stripped;
    let long = "x".repeat(9 * 65_536);
    vec![
        ("no create event", Say::ok(no_create)),
        ("a room into which nobody may come", Say::ok(no_rules)),
        ("an event of another room in the state", with("state", json!(foreign))),
        ("an event of another room in the auth chain", with("auth_chain", json!(foreign))),
        ("nobody has signed it", Say::ok(unsigned)),
        ("members are left out", with("members_omitted", json!(true))),
        ("another event than the join", with("event", room.state("m.room.create", "").unwrap())),
        ("nothing", Say::ok(json!({}))),
        ("no object", Say::ok(json!([joined]))),
        ("an error", Say::error(500, "M_UNKNOWN")),
        ("no JSON", Say::Text("<html>nginx</html>".to_owned())),
        ("half of it", Say::Half),
        ("an endless event", Say::Text(format!(r#"{{"state":[{{"a":"{long}"#))),
    ]
}

with_scripted! {
    async fn a_room_that_is_none_is_not_entered(one, far) {
        let alice = one.user("alice").await;
        let other = far.create_room("11", json!({ "join_rule": "public" }));
        let room = far.create_room("11", json!({ "join_rule": "public" }));
        for (what, say) in hostile_answers(&room, &other) {
            far.says("send_join", say);
            let refused = alice.join_via(&room.id, "far.test").await;
            assert!([502, 504].contains(&refused.status), "{what}: {refused:?}");
            assert_eq!(refused.body["errcode"], "M_UNKNOWN", "{what}");
            assert!(refused.body["error"].as_str().unwrap().contains("far.test"), "{what}: {}", refused.body);
            assert_ne!(alice.get(&at(&room.id, "/state")).await.status, 200, "{what}");
            assert_eq!(alice.sync(None).await["rooms"]["join"][&room.id], Value::Null, "{what}");
        }
        // What was left behind is in nobody's way.
        far.forgets_scripts();
        alice.join_via(&room.id, "far.test").await.ok();
        alice.say(&room.id, "here I am").await;
    }

    /// What is not valid in a room is left out, as everybody in it has done.
    async fn a_room_is_entered_without_what_is_not_valid_in_it(one, far) {
        let alice = one.user("alice").await;
        let room = far.create_room("11", json!({ "join_rule": "public" }));
        let mallory = far.user("mallory");
        room.send(&mallory, "m.room.topic", Some(""), json!({ "topic": "What is said" }));
        let forged = {
            let mut forged = room.event(&mallory, "m.room.name", Some(""), json!({ "name": "Forged" }));
            forged["signatures"] = json!({ "far.test": { "ed25519:new": "Zm9yZ2Vk" } });
            forged
        };
        let eve = far.user("eve");
        let powerless = room.event(&eve, "m.room.avatar", Some(""), json!({ "url": "mxc://far.test/eve" }));
        far.answers("send_join", move |_, mut usual| {
            usual["state"].as_array_mut().unwrap().extend([forged.clone(), powerless.clone(), json!(7)]);
            Say::ok(usual)
        });
        alice.join_via(&room.id, "far.test").await.ok();
        assert_eq!(alice.get(&at(&room.id, "/state/m.room.topic")).await.ok()["topic"], "What is said");
        for kind in ["m.room.name", "m.room.avatar"] {
            alice.get(&at(&room.id, &format!("/state/{kind}"))).await.refused(404, "M_NOT_FOUND");
        }
    }

    async fn another_server_is_asked_where_one_is_of_no_help(one, far) {
        let alice = one.user("alice").await;
        let near: Scripted = far.neighbour("near.test").await;
        for say in [Say::error(500, "M_UNKNOWN"), Say::Text("garbage".to_owned()), Say::error(404, "M_NOT_FOUND")] {
            let room = near.create_room("12", json!({ "join_rule": "public" }));
            far.says("make_join", say);
            let path = format!("/_matrix/client/v3/join/{}?via=far.test&via=near.test", escape(&room.id));
            alice.post(&path, json!({})).await.ok();
            assert_eq!(far.take_asked("make_join").len(), 1);
        }
    }
}
