//! Who reads rooms over federation, and what they are told of rooms that are none of theirs.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>

use serde_json::{Value, json};

use super::scripted::{FarRoom, Scripted, event_id, federation};
use crate::{
    with_scripted,
    world::{Client, Reply, at, escape},
};

/// Every endpoint that reads a room, by its name.
const READS: [&str; 7] =
    ["event", "event_auth", "state", "state_ids", "backfill", "get_missing_events", "timestamp_to_event"];
/// Those of them with a room in the path and an event.
const OF_AN_EVENT: [&str; 5] = ["event_auth", "state", "state_ids", "backfill", "get_missing_events"];

/// Reads a room by one endpoint.
async fn read(far: &Scripted, name: &str, room: &str, event: &str) -> Reply {
    let path = |rest: &[&str]| federation(&format!("v1/{name}"), rest);
    let event_escaped = escape(event);
    let uri = match name {
        "event" => path(&[event]),
        "event_auth" => path(&[room, event]),
        "state" | "state_ids" => format!("{}?event_id={event_escaped}", path(&[room])),
        "backfill" => format!("{}?v={event_escaped}&limit=10", path(&[room])),
        "timestamp_to_event" => format!("{}?ts={}&dir=b", path(&[room]), far.now()),
        "get_missing_events" => {
            let body = json!({ "earliest_events": [], "latest_events": [event], "limit": 10 });
            return far.ask("one.test", "POST", &path(&[room]), Some(&body)).await;
        }
        other => panic!("{other} is no endpoint that reads"),
    };
    far.get("one.test", &uri).await
}

/// A room that everybody may read, and something that was said in it.
async fn open_room(alice: &Client) -> (String, String) {
    let visibility = json!({ "history_visibility": "world_readable" });
    let state = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": visibility }]);
    let body = json!({ "preset": "public_chat", "room_version": "11", "initial_state": state });
    let room = alice.create_room(body).await;
    let event = alice.say(&room, "something").await;
    (room, event)
}

/// All identifiers in an answer, of its events or as they stand in it.
fn ids(answer: &Value, version: &str) -> Vec<String> {
    let lists = ["pdus", "events", "auth_chain", "pdu_ids", "auth_chain_ids"];
    let all = lists.iter().flat_map(|list| answer[*list].as_array().cloned().unwrap_or_default());
    all.map(|one| one.as_str().map_or_else(|| event_id(version, &one), ToOwned::to_owned)).collect()
}

async fn deny(alice: &Client, room: &str, pattern: &str) {
    let list = json!({ "allow": ["*"], "deny": [pattern] });
    alice.put(&at(room, "/state/m.room.server_acl/"), list).await.ok();
}

/// Something is said in a room so often.
async fn talk(room: &FarRoom, far: &Scripted, count: usize) {
    for part in (0..count).collect::<Vec<_>>().chunks(50) {
        let said: Vec<Value> = part.iter().map(|number| room.say(&format!("{number}"))).collect();
        far.transaction("one.test", &said).await.ok();
    }
}

with_scripted! {
    /// Reading over federation without asking who asks (Synapse 1.157.2): every read endpoint × (in the room, left, never
    /// in, refused by the list).
    async fn who_reads_what(one, far) {
        let alice = one.user("alice").await;
        let mallory = far.user("mallory");
        let (inside, left, never, denied) =
            (open_room(&alice).await, open_room(&alice).await, open_room(&alice).await, open_room(&alice).await);
        far.join("one.test", &inside.0, &mallory).await;
        let room = far.join("one.test", &left.0, &mallory).await;
        far.leave("one.test", &room, &mallory).await;
        far.join("one.test", &denied.0, &mallory).await;
        deny(&alice, &denied.0, "FAR.*").await;
        for name in READS {
            let answer = read(&far, name, &inside.0, &inside.1).await;
            assert_eq!(answer.status, 200, "{name} by who is in the room: {answer:?}");
            for (who, (room, event)) in [("has left", &left), ("was never there", &never), ("is denied", &denied)] {
                let answer = read(&far, name, room, event).await;
                assert_eq!((answer.status, &answer.body["errcode"]), (403, &json!("M_FORBIDDEN")), "{name} by who {who}");
            }
            let answer = read(&far, name, "!nowhere:one.test", "$31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM").await;
            answer.refused(404, "M_NOT_FOUND");
        }
    }

    /// `{roomId}/{eventId}` with an event of another room (Synapse 1.157.2).
    async fn an_event_of_another_room_is_not_there(one, far) {
        let alice = one.user("alice").await;
        let (room, _) = open_room(&alice).await;
        let (other, event) = open_room(&alice).await;
        let mallory = far.user("mallory");
        far.join("one.test", &room, &mallory).await;
        for is_in_both in [false, true] {
            if is_in_both {
                far.join("one.test", &other, &mallory).await;
            }
            for name in OF_AN_EVENT {
                let answer = read(&far, name, &room, &event).await;
                if ["backfill", "get_missing_events"].contains(&name) {
                    // They take lists, of which some may be known.
                    let found = ids(&answer.ok(), "11");
                    assert!(found.is_empty(), "{name} leads to {found:?}");
                } else {
                    answer.refused(404, "M_NOT_FOUND");
                }
            }
        }
        for name in ["event", "context"] {
            alice.get(&at(&room, &format!("/{name}/{}", escape(&event)))).await.refused(404, "M_NOT_FOUND");
        }
    }

    /// A walk leaves the room or never ends (Synapse 1.157.2).
    async fn walks_stay_in_the_room_and_end(one, far) {
        let alice = one.user("alice").await;
        let (room, _) = open_room(&alice).await;
        let (other, foreign) = open_room(&alice).await;
        let mallory = far.user("mallory");
        let far_room = far.join("one.test", &room, &mallory).await;
        far.join("one.test", &other, &mallory).await;
        // It follows an event of another room, and nothing comes of it.
        let astray = far_room.changed(&far_room.message("astray"), |event| {
            event["prev_events"].as_array_mut().unwrap().push(json!(foreign));
        });
        far.transaction("one.test", std::slice::from_ref(&astray)).await.ok();
        talk(&far_room, &far, 150).await;
        alice.hears(&room, "149").await;
        let last = alice.say(&room, "the last").await;
        alice.get(&at(&room, &format!("/event/{}", escape(&far_room.id_of(&astray))))).await.refused(404, "M_NOT_FOUND");

        let uri = format!("{}?v={}&limit=1000000", federation("v1/backfill", &[&room]), escape(&last));
        let found = far.get("one.test", &uri).await.ok();
        assert_eq!(found["pdus"].as_array().unwrap().len(), 100);
        let ask = async |body: Value| {
            let path = federation("v1/get_missing_events", &[&room]);
            far.ask("one.test", "POST", &path, Some(&body)).await.ok()["events"].as_array().unwrap().clone()
        };
        let missing = ask(json!({ "earliest_events": [], "latest_events": [last], "limit": 1_000_000 })).await;
        assert_eq!(missing.len(), 50);
        assert_eq!(missing.last().unwrap()["content"]["body"], "149", "the newest comes last");
        // What is left out is not walked through, and what is not known leads nowhere.
        let near = [&missing[49], &missing[48]].map(|event| far_room.id_of(event));
        assert!(ask(json!({ "earliest_events": [near[0]], "latest_events": [last], "limit": 10 })).await.is_empty());
        let single = ask(json!({ "earliest_events": [near[1]], "latest_events": [last], "limit": 10 })).await;
        assert_eq!(single.len(), 1);
        let many: Vec<String> = (0..500).map(|number| format!("$unknown{number}")).collect();
        assert!(ask(json!({ "earliest_events": [], "latest_events": many, "limit": 10 })).await.is_empty());
        let deep = json!({ "earliest_events": [], "latest_events": [last], "limit": 10, "min_depth": 9_007_199_254_740_991_i64 });
        assert!(ask(deep).await.is_empty());
        let strangers: Vec<&Value> = missing.iter().chain(found["pdus"].as_array().unwrap()).collect();
        assert!(strangers.iter().all(|event| event["room_id"] == room.as_str()));
    }

    /// History visibility, leavers (CVE-2024-53867).
    async fn what_its_users_may_not_see_comes_redacted(one, far) {
        let alice = one.user("alice").await;
        let visibility = json!({ "history_visibility": "joined" });
        let state = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": visibility }]);
        let body = json!({ "preset": "public_chat", "room_version": "11", "initial_state": state });
        let room = alice.create_room(body).await;
        let secret = alice.say(&room, "a secret").await;
        far.join("one.test", &room, &far.user("mallory")).await;
        let seen = alice.say(&room, "seen").await;
        for (event, body) in [(&secret, Value::Null), (&seen, json!("seen"))] {
            let answer = read(&far, "event", &room, event).await.ok();
            assert_eq!(answer["pdus"][0]["content"]["body"], body);
            let answer = read(&far, "backfill", &room, event).await.ok();
            assert_eq!(answer["pdus"][0]["content"]["body"], body);
        }
        let missing = read(&far, "get_missing_events", &room, &seen).await.ok();
        assert!(!missing.to_string().contains("a secret"), "{missing}");
        let at_time = read(&far, "timestamp_to_event", &room, &secret).await;
        assert_ne!(at_time.body["event_id"], secret.as_str());
    }
}
