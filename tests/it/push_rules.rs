//! What clients read of notifications and key backups where nobody can set any yet.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

use serde_json::{Value, json};

use crate::{on_both, world::escape};

const RULES: &str = "/_matrix/client/v3/pushrules/global";

on_both! {
    async fn rules_have_all_kinds_and_can_be_read_one_by_one(world) {
        let alice = world.user("alice").await;
        let all = alice.get("/_matrix/client/v3/pushrules/").await.ok();
        let global = alice.get(&format!("{RULES}/")).await.ok();
        assert_eq!(all, json!({ "global": global }));
        for kind in ["override", "content", "room", "sender", "underride"] {
            let rules = global[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {global}"));
            for rule in rules {
                let path = format!("{RULES}/{kind}/{}", escape(rule["rule_id"].as_str().unwrap()));
                assert_eq!(alice.get(&path).await.ok(), *rule);
                assert_eq!(alice.get(&format!("{path}/enabled")).await.ok(), json!({ "enabled": rule["enabled"] }));
                assert_eq!(alice.get(&format!("{path}/actions")).await.ok(), json!({ "actions": rule["actions"] }));
            }
        }
        let ids = |kind: &str| -> Vec<&str> {
            global[kind].as_array().unwrap().iter().map(|rule| rule["rule_id"].as_str().unwrap()).collect()
        };
        assert!(ids("override").contains(&".m.rule.master") && ids("underride").contains(&".m.rule.message"));
        for missing in ["override/nonsense", "underride/.m.rule.master", "nonsense/.m.rule.master"] {
            for part in ["", "/enabled", "/actions"] {
                alice.get(&format!("{RULES}/{missing}{part}")).await.refused(404, "M_NOT_FOUND");
            }
        }
        // However clients come by them.
        let sync = alice.sync(None).await;
        let events = sync["account_data"]["events"].as_array().unwrap();
        let of = |events: &[Value]| events.iter().find(|event| event["type"] == "m.push_rules").unwrap()["content"].clone();
        assert_eq!(of(events), all);
        let initial = alice.get("/_matrix/client/v3/initialSync").await.ok();
        assert_eq!(of(initial["account_data"].as_array().unwrap()), all);
    }

    async fn nobody_has_pushers_or_backups_of_keys(world) {
        let alice = world.user("alice").await;
        assert_eq!(alice.get("/_matrix/client/v3/pushers").await.ok(), json!({ "pushers": [] }));
        for path in ["room_keys/version", "room_keys/version/1"] {
            alice.get(&format!("/_matrix/client/v3/{path}")).await.refused(404, "M_NOT_FOUND");
        }
    }
}
