//! What a room is known by to those who are not in it, and what one is called by that has no name.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};

use super::state::State;
use crate::event::Pdu;

/// What is shown of a room to those outside.
const SHOWN: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];
/// How many members give a room its name.
const MOST_HEROES: usize = 5;

impl State {
    /// What somebody who is invited or has knocked is shown of the room, whoever they are. The create event first.
    pub fn introduction(&self) -> Vec<Arc<Pdu>> {
        SHOWN.iter().filter_map(|kind| self.get(kind, "").cloned()).collect()
    }

    /// Up to five others, for naming a room that has no name: members and invited before those who have left.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-room>
    pub fn heroes(&self, user_id: &UserId) -> Vec<OwnedUserId> {
        if self.has_name() {
            return Vec::new();
        }
        let mut present = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for member in self.members().filter(|member| member.user_id != user_id) {
            let group = match member.membership() {
                MembershipState::Join | MembershipState::Invite => &mut present,
                _ => &mut gone,
            };
            group.insert((member.depth(), member.user_id));
        }
        let heroes = if present.is_empty() { gone } else { present };
        heroes.into_iter().take(MOST_HEROES).map(|(_, user)| user.to_owned()).collect()
    }

    /// An empty name is none.
    fn has_name(&self) -> bool {
        let filled = |kind: &str, field: &str| {
            self.get(kind, "").is_some_and(|pdu| {
                let content = pdu.content_as::<serde_json::Map<String, serde_json::Value>>();
                content.is_ok_and(|content| content.get(field).and_then(|v| v.as_str()).is_some_and(|v| !v.is_empty()))
            })
        };
        filled("m.room.name", "name") || filled("m.room.canonical_alias", "alias")
    }
}
