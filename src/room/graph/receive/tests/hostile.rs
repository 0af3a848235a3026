//! Events of other servers with anything in them: the rules and the resolution of state take or reject them, and the
//! model agrees.

use super::*;
use crate::fuzz::{cases, dice::Dice, mutate};

/// Events of one room before the next one is made.
const EVENTS: usize = 25;

const KINDS: [&str; 8] = [
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.third_party_invite",
    "m.room.redaction",
    "m.room.name",
    "m.room.message",
];

fn proper(kind: &str) -> Value {
    let alice = user("alice");
    match kind {
        "m.room.member" => json!({
            "membership": "join", "displayname": "A", "join_authorised_via_users_server": alice,
            "third_party_invite": { "signed": { "mxid": alice, "token": "t", "signatures": {} } },
        }),
        "m.room.power_levels" => json!({
            "users": { user("bob").as_str(): 50 }, "events": { "m.room.name": 50 }, "users_default": 0, "state_default": 0,
            "events_default": 0, "ban": 50, "kick": 50, "redact": 50, "invite": 0, "notifications": { "room": 50 },
        }),
        "m.room.join_rules" => json!({ "join_rule": "public", "allow": [{ "type": "m.room_membership" }] }),
        "m.room.history_visibility" => json!({ "history_visibility": "shared" }),
        "m.room.third_party_invite" => {
            json!({ "public_key": "aaaa", "key_validity_url": "https://a/", "public_keys": [] })
        }
        "m.room.redaction" => json!({ "redacts": "$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }),
        "m.room.name" => json!({ "name": "N" }),
        _ => json!({ "body": "hello" }),
    }
}

/// Content that canonical JSON has: None where a number or a name is none of its.
fn draw(dice: &mut Dice, kind: &str) -> Option<Value> {
    let mut value = proper(kind);
    for _ in 0..dice.small(4) {
        mutate::json(dice, &mut value);
    }
    let is_canonical = serde_json::from_value::<ruma::CanonicalJsonObject>(value.clone()).is_ok();
    (is_canonical && value.to_string().len() < 20_000 && !value.to_string().contains("\\u0000")).then_some(value)
}

#[tokio::test]
async fn whatever_another_server_sends_the_model_agrees() {
    for mut case in cases("remote-events", 10) {
        let dice = &mut case.dice;
        let mut stage = Stage::new(dice.of(&STABLE).clone()).await;
        for name in ["bob", "carol"] {
            let join = json!({ "membership": "join" });
            stage.receive_next(name, "m.room.member", Some(user(name).as_str()), join).await;
        }
        for _ in 0..EVENTS {
            let kind = dice.pick(&KINDS);
            let Some(content) = draw(dice, kind) else { continue };
            let (sender, about) = (dice.pick(&USERS), dice.pick(&USERS));
            let key = match kind {
                "m.room.message" | "m.room.redaction" => None,
                "m.room.member" => Some(user(about).to_string()),
                _ if dice.one_in(10) => Some("a".to_owned()),
                _ => Some(String::new()),
            };
            let draft = stage.draft(sender, kind, key.as_deref(), content);
            let mut before: Vec<_> = stage.model.extremities.iter().cloned().collect();
            if dice.one_in(3) {
                before = vec![stage.event_before(dice.below(6)), stage.event_before(dice.below(6))];
                before.sort();
                before.dedup();
            }
            stage.receive(draft, &before, None).await;
        }
        stage.check().await;
        stage.world.close().await;
    }
}
