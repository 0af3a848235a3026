//! What becomes of events that are not what they should be.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use serde_json::{Value, json};

use super::scripted::{FarRoom, Scripted, federation, sign_event};
use crate::{
    with_scripted,
    world::{Client, at, escape},
};

/// A room of Alice's that Mallory is in, too.
async fn shared_with(far: &Scripted, alice: &Client, version: &str) -> FarRoom {
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version })).await;
    far.join("one.test", &room, &far.user("mallory")).await
}

/// Sends an event that is not to be shown, and one that is: once that is there, the other has been looked at.
async fn is_not_shown(far: &Scripted, alice: &Client, room: &FarRoom, event: &Value, what: &str) {
    let good = room.say(&format!("after {what}"));
    far.transaction("one.test", &[event.clone(), good]).await.ok();
    alice.hears(&room.id, &format!("after {what}")).await;
    let seen = alice.get(&at(&room.id, &format!("/event/{}", escape(&room.id_of(event))))).await;
    assert_eq!(seen.status, 404, "{what}: {seen:?}");
    let page = alice.get(&at(&room.id, "/messages?dir=b&limit=100")).await.ok();
    assert!(page["chunk"].as_array().unwrap().iter().all(|shown| shown["event_id"] != room.id_of(event)), "{what}");
}

/// An event as a server has it that is asked for it.
async fn find(far: &Scripted, id: &str) -> crate::world::Reply {
    far.get("one.test", &federation("v1/event", &[id])).await
}

/// Sends a body of a transaction with some text in the place of one of its events.
async fn send_text(far: &Scripted, text: &str, good: &Value) -> crate::world::Reply {
    let body = far.transaction_of(&[json!("here"), good.clone()], &[]).to_string();
    far.transaction_of_text("one.test", body.replacen("\"here\"", text, 1)).await
}

with_scripted! {
    /// Soft failure: a ban, then an event that cites the membership from before it.
    async fn what_comes_after_a_ban_is_kept_and_shown_to_nobody(one, far) {
        let alice = one.user("alice").await;
        let near = far.neighbour("near.test").await;
        for version in ["6", "11", "12"] {
            let room = shared_with(&far, &alice, version).await;
            near.join("one.test", &room.id, &near.user("nina")).await;
            // Built before the ban, sent after it.
            let late = room.message("I was never banned");
            let about = json!({ "user_id": far.user("mallory") });
            alice.post(&at(&room.id, "/ban"), about).await.ok();
            let answer = far.transaction("one.test", std::slice::from_ref(&late)).await.ok();
            let id = room.id_of(&late);
            assert_eq!(answer["pdus"][&id], json!({}), "it is taken, and judged");
            let mut found = find(&near, &id).await;
            for _ in 0..600 {
                if found.status == 200 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                found = find(&near, &id).await;
            }
            // Other servers may judge otherwise, so they get it.
            assert_eq!(found.ok()["pdus"][0]["content"]["body"], "I was never banned");
            let next = alice.say(&room.id, "what comes next").await;
            let next = find(&near, &next).await.ok()["pdus"][0].clone();
            assert!(!next["prev_events"].as_array().unwrap().contains(&json!(id)), "it is an end of the room: {next}");
            alice.get(&at(&room.id, &format!("/event/{}", escape(&id)))).await.refused(404, "M_NOT_FOUND");
            let page = alice.get(&at(&room.id, "/messages?dir=b&limit=100")).await.ok();
            assert!(!page.to_string().contains("I was never banned"));
            let sync = alice.sync(None).await;
            assert!(!sync["rooms"]["join"][&room.id].to_string().contains("I was never banned"));
        }
    }

    /// Rejected auth events (CVE-2022-39374).
    async fn what_cites_a_rejected_event_is_rejected(one, far) {
        let alice = one.user("alice").await;
        let mallory = far.user("mallory");
        for version in ["6", "11", "12"] {
            let room = shared_with(&far, &alice, version).await;
            let mut powers = room.state("m.room.power_levels", "").unwrap()["content"].clone();
            powers["users"][&mallory] = 100.into();
            let power = room.event(&mallory, "m.room.power_levels", Some(""), powers);
            is_not_shown(&far, &alice, &room, &power, "power that nobody gave").await;
            let topic = room.event(&mallory, "m.room.topic", Some(""), json!({ "topic": "Mallory's" }));
            let real = room.id_of(&room.state("m.room.power_levels", "").unwrap());
            let citing = room.changed(&topic, |event| {
                let cited = event["auth_events"].as_array_mut().unwrap();
                cited.retain(|id| *id != real.as_str());
                cited.push(json!(room.id_of(&power)));
            });
            is_not_shown(&far, &alice, &room, &citing, "a topic by that power").await;
            alice.get(&at(&room.id, "/state/m.room.topic")).await.refused(404, "M_NOT_FOUND");
            for rejected in [&power, &citing] {
                find(&far, &room.id_of(rejected)).await.refused(404, "M_NOT_FOUND");
            }
        }
    }

    /// Auth events of another room.
    async fn what_cites_an_event_of_another_room_is_rejected(one, far) {
        let alice = one.user("alice").await;
        let mallory = far.user("mallory");
        let theirs = far.create_room("11", json!({ "join_rule": "public" }));
        alice.join_via(&theirs.id, "far.test").await.ok();
        let room = shared_with(&far, &alice, "11").await;
        let power = theirs.id_of(&theirs.state("m.room.power_levels", "").unwrap());
        let topic = room.event(&mallory, "m.room.topic", Some(""), json!({ "topic": "Mallory's" }));
        let real = room.id_of(&room.state("m.room.power_levels", "").unwrap());
        for (what, replaces) in [("power levels of another room instead", true), ("power levels of another room too", false)] {
            let citing = room.changed(&topic, |event| {
                let cited = event["auth_events"].as_array_mut().unwrap();
                cited.retain(|id| !replaces || *id != real.as_str());
                cited.push(json!(power));
                event["content"]["what"] = what.into();
            });
            is_not_shown(&far, &alice, &room, &citing, what).await;
        }
        // Also where the event would be good without.
        let message = room.changed(&room.message("by power of another room"), |event| {
            event["auth_events"].as_array_mut().unwrap().push(json!(power));
        });
        is_not_shown(&far, &alice, &room, &message, "a message that cites another room").await;
    }

    async fn what_is_not_allowed_or_not_theirs_is_not_shown(one, far) {
        let alice = one.user("alice").await;
        let (mallory, eve) = (far.user("mallory"), far.user("eve"));
        for version in ["6", "10", "12"] {
            let room = shared_with(&far, &alice, version).await;
            let message = |what: &str| room.event(&mallory, "m.room.message", None, json!({ "msgtype": "m.text", "body": what }));
            let text = json!({ "msgtype": "m.text", "body": "from outside" });
            let forged = {
                let mut forged = message("forged");
                forged["signatures"] = json!({ "far.test": { "ed25519:new": "Zm9yZ2Vk" } });
                forged
            };
            let unsigned = {
                let mut unsigned = message("unsigned");
                unsigned["signatures"] = json!({});
                unsigned
            };
            let in_anothers_name = room.changed(&message("in another's name"), |event| event["sender"] = json!(alice.user_id));
            for (what, event) in [
                ("a message of who is not in the room", room.event(&eve, "m.room.message", None, text)),
                ("a name by who has no power", room.event(&mallory, "m.room.name", Some(""), json!({ "name": "x" }))),
                ("a state of somebody else's", room.event(&mallory, "org.example.own", Some(&alice.user_id), json!({}))),
                ("a second beginning", room.event(&mallory, "m.room.create", Some(""), json!({ "room_version": version }))),
                ("a kick by who has no power", room.event(&mallory, "m.room.member", Some(&alice.user_id), json!({ "membership": "leave" }))),
                ("what nobody has signed", unsigned),
                ("what is forged", forged),
                ("what is said in another's name", in_anothers_name),
            ] {
                is_not_shown(&far, &alice, &room, &event, what).await;
            }
        }
    }

    /// The content hash does not match: what is left is what a redaction leaves.
    async fn what_was_changed_on_its_way_comes_redacted(one, far) {
        let alice = one.user("alice").await;
        let room = shared_with(&far, &alice, "11").await;
        let mut changed = room.message("what was said");
        changed["content"]["body"] = "what was never said".into();
        room.add(&changed);
        far.transaction("one.test", &[changed.clone(), room.say("after it")]).await.ok();
        alice.hears(&room.id, "after it").await;
        let seen = alice.get(&at(&room.id, &format!("/event/{}", escape(&room.id_of(&changed))))).await.ok();
        assert_eq!(seen["content"], json!({}), "{seen}");
    }

    /// Key validity: a key that had expired at the event's time.
    async fn an_event_is_signed_with_a_key_that_was_good_when_it_was_sent(one, far) {
        let alice = one.user("alice").await;
        for version in ["6", "12"] {
            let room = shared_with(&far, &alice, version).await;
            let with_old_key = |text: &str, ts: u64| {
                let mut event = room.message(text);
                event["origin_server_ts"] = ts.into();
                let fields = event.as_object_mut().unwrap();
                fields.remove("signatures");
                fields.remove("hashes");
                sign_event("far.test", far.old_key(), version, &event)
            };
            let too_late = with_old_key("with a key of before", far.key_change() + 1);
            is_not_shown(&far, &alice, &room, &too_late, "a key that had expired").await;
            let from_afar = room.changed(&room.message("from the future"), |event| {
                event["origin_server_ts"] = (far.now() + 30 * 24 * 3_600_000).into();
            });
            is_not_shown(&far, &alice, &room, &from_afar, "a key that is not good so long").await;
            let in_time = with_old_key("while the key was good", far.key_change() - 1);
            room.add(&in_time);
            far.transaction("one.test", &[in_time]).await.ok();
            alice.hears(&room.id, "while the key was good").await;
        }
    }

    /// Canonical JSON: floats, ±2^53, duplicate keys, by room version. Where a hash alone was wrong the event would come
    /// redacted, so that nothing comes shows that it was not read.
    async fn what_is_no_canonical_json_is_dropped(one, far) {
        let alice = one.user("alice").await;
        for version in ["6", "9", "12"] {
            let room = shared_with(&far, &alice, version).await;
            for (index, value) in [
                "1.5", "1e3", "-0.0", "9007199254740992", "-9007199254740992", "1e400", "18446744073709551616",
                r#""a","body":"twice""#, r#"{"b":1,"b":2}"#,
            ].iter().enumerate() {
                let (bad, good) = (room.message(&format!("bad {index}")), room.say(&format!("good {index}")));
                let text = bad.to_string().replacen(r#""msgtype":"#, &format!(r#""more":{value},"msgtype":"#), 1);
                let answer = send_text(&far, &text, &good).await;
                if answer.status != 200 {
                    // `1e400` is none of JSON's that can be read, so nothing can be said of the rest.
                    assert!(*value == "1e400", "{version} {value}: {answer:?}");
                    far.transaction("one.test", &[good]).await.ok();
                }
                alice.hears(&room.id, &format!("good {index}")).await;
                let id = escape(&room.id_of(&bad));
                let seen = alice.get(&at(&room.id, &format!("/event/{id}"))).await;
                assert_eq!(seen.status, 404, "{version} {value}: {seen:?}");
            }
        }
    }

    /// Sizes: 65,536-byte PDU, 255-byte fields, deep nesting.
    async fn what_is_too_large_is_dropped_and_what_is_just_not_is_taken(one, far) {
        let alice = one.user("alice").await;
        let mallory = far.user("mallory");
        let room = shared_with(&far, &alice, "11").await;
        // Of the event as it is sent, so that its length is known: no hash covers what is added.
        let padded = |length: usize| {
            let mut event = room.message(&format!("{length} bytes"));
            event["padding"] = "".into();
            let missing = length - event.to_string().len();
            event["padding"] = "x".repeat(missing).into();
            assert_eq!(event.to_string().len(), length);
            event
        };
        is_not_shown(&far, &alice, &room, &padded(65_537), "65,537 bytes").await;
        let largest = padded(65_536);
        room.add(&largest);
        far.transaction("one.test", std::slice::from_ref(&largest)).await.ok();
        far.transaction("one.test", &[room.say("after 65,536 bytes")]).await.ok();
        alice.hears(&room.id, "after 65,536 bytes").await;
        // Its hash is wrong, so it comes redacted, and it comes.
        alice.get(&at(&room.id, &format!("/event/{}", escape(&room.id_of(&largest))))).await.ok();

        for (what, event) in [
            ("a long type", room.event(&mallory, &"x".repeat(256), None, json!({}))),
            ("a long state key", room.event(&mallory, "org.example", Some(&"x".repeat(256)), json!({}))),
            ("21 events that it follows", room.changed(&room.message("21"), |event| {
                event["prev_events"] = (0..21).map(|number| json!(format!("$unknown{number}"))).collect();
            })),
            ("11 events that it cites", room.changed(&room.message("11"), |event| {
                event["auth_events"] = (0..11).map(|number| json!(format!("$unknown{number}"))).collect();
            })),
            ("a depth below zero", room.changed(&room.message("depth"), |event| event["depth"] = json!(-1))),
            ("no depth", room.changed(&room.message("no depth"), |event| drop(event.as_object_mut().unwrap().remove("depth")))),
        ] {
            is_not_shown(&far, &alice, &room, &event, what).await;
        }
        let longest = room.send(&mallory, &"x".repeat(255), None, json!({ "body": "a type of 255 bytes" }));
        far.transaction("one.test", &[longest]).await.ok();
        alice.hears(&room.id, "a type of 255 bytes").await;

        // Nobody can parse it who goes into it step by step without a bound.
        for depth in [100, 120, 1_000, 30_000] {
            let (open, close) = (r#"{"a":"#.repeat(depth), "}".repeat(depth));
            let (bad, good) = (room.message(&format!("deep {depth}")), room.say(&format!("beside {depth}")));
            let text = bad.to_string().replacen(r#""msgtype":"#, &format!(r#""deep":{open}1{close},"msgtype":"#), 1);
            send_text(&far, &text, &good).await.ok();
            alice.hears(&room.id, &format!("beside {depth}")).await;
        }
    }
}
