//! Server access control lists: whom a room's servers let take part in it.
//!
//! It is asked of every server that sends something into a room or reads it, whoever has signed what it sends. Events that
//! are in the room already stay.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms>
//!
//! Members write the list, so nothing in it is relied on: what has another type than it should is taken as not being there,
//! and a pattern costs what `ground/glob.rs` says.

use ruma::{ServerName, events::StateEventType};
use serde::Deserialize;
use serde_json::Value;

use super::{state::State, view::View};
use crate::ground::glob;

/// The list as it was written, whatever is in it.
#[derive(Deserialize)]
struct ServerAclContent {
    #[serde(default)]
    allow_ip_literals: Value,
    #[serde(default)]
    allow: Value,
    #[serde(default)]
    deny: Value,
}

impl View {
    /// Whether a server may take part in the room, as its state is. Who is in it is another question.
    pub fn allows(&self, server: &ServerName) -> bool {
        self.state.allows(server)
    }
}

impl State {
    /// Whether a server may take part in a room with this state.
    pub fn allows(&self, server: &ServerName) -> bool {
        let Some(event) = self.find(&StateEventType::RoomServerAcl) else { return true };
        // A content is always an object, so it can be read.
        let Ok(content) = event.content_as::<ServerAclContent>() else { return false };
        if content.allow_ip_literals == Value::Bool(false) && server.is_ip_literal() {
            return false;
        }
        // Its port does not count.
        let host = server.host();
        let names = |list: &Value| -> bool {
            let mut patterns = list.as_array().into_iter().flatten().filter_map(Value::as_str);
            patterns.any(|pattern| glob::matches(pattern, host))
        };
        !names(&content.deny) && names(&content.allow)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma::ServerName;
    use serde_json::{Value, json};

    use crate::room::{State, testing::pdu_of};

    fn allows(content: &Value, server: &str) -> bool {
        let event = pdu_of(&json!({ "type": "m.room.server_acl", "state_key": "", "content": content }));
        let state: State = [Arc::new(event)].into_iter().collect();
        state.allows(<&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn everybody_is_let_in_without_a_list_and_nobody_by_an_empty_one() {
        let server = <&ServerName>::try_from("evil.com").unwrap();
        assert!(State::default().allows(server));
        assert!(!allows(&json!({}), "good.com"));
        assert!(!allows(&json!({ "allow": "*" }), "good.com"), "it is no list");
        assert!(allows(&json!({ "allow": [7, null, "*"], "deny": { "evil.com": true } }), "evil.com"));
    }

    #[test]
    fn names_are_compared_without_case_and_ports() {
        let list = json!({ "allow": ["*"], "deny": ["EVIL.com", "*.evil.com"] });
        for denied in ["evil.com", "Evil.COM", "evil.com:8448", "a.evil.com:1", "x.y.evil.com"] {
            assert!(!allows(&list, denied), "{denied}");
        }
        for allowed in ["evil.com.org", "notevil.com", "good.com:8448"] {
            assert!(allows(&list, allowed), "{allowed}");
        }
    }

    #[test]
    fn addresses_are_let_in_unless_the_list_says_no() {
        for address in ["1.2.3.4", "1.2.3.4:8448", "[2001:db8::1]", "[2001:db8::1]:80"] {
            assert!(allows(&json!({ "allow": ["*"] }), address));
            assert!(allows(&json!({ "allow": ["*"], "allow_ip_literals": "no" }), address));
            assert!(!allows(&json!({ "allow": ["*"], "allow_ip_literals": false }), address));
        }
        assert!(allows(&json!({ "allow": ["*"], "allow_ip_literals": false }), "good.com"));
    }
}
