//! Presets: the rules that a new room starts with when nobody says otherwise. Values only.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use ruma::{CanonicalJsonValue, Int, OwnedUserId, UserId, room_version_rules::AuthorizationRules};

use crate::event::{Content, content};

/// What a tombstone takes where creators outrank every level. More than the 100 of administrators, so that these can't
/// replace a room without its creators.
pub(super) const TOMBSTONE: i32 = 150;

/// A set of rules that goes by one name. Each is a default and nothing more: no trace of it stays in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    PrivateChat,
    /// Everybody who is invited gets as much power as the creator.
    TrustedPrivateChat,
    PublicChat,
}

impl Preset {
    /// The state that the preset gives a room. In the order in which the events are sent.
    pub(super) fn state(self) -> [(&'static str, Content); 3] {
        let (join_rule, guest_access) = match self {
            Self::PrivateChat | Self::TrustedPrivateChat => ("invite", "can_join"),
            Self::PublicChat => ("public", "forbidden"),
        };
        [
            ("m.room.join_rules", content([("join_rule", join_rule.into())])),
            ("m.room.history_visibility", content([("history_visibility", "shared".into())])),
            ("m.room.guest_access", content([("guest_access", guest_access.into())])),
        ]
    }

    /// The power levels of a room that `creator` makes and to which `invited` are invited. All levels are written out,
    /// also those that are the rules' defaults: people read them in their clients.
    pub(super) fn power_levels(self, rules: &AuthorizationRules, creator: &UserId, invited: &[OwnedUserId]) -> Content {
        let mut users = Content::new();
        // Creators who outrank every level can't be listed.
        if !rules.explicitly_privilege_room_creators {
            users.insert(creator.to_string(), level(100));
            if self == Self::TrustedPrivateChat {
                users.extend(invited.iter().map(|user| (user.to_string(), level(100))));
            }
        }
        // In a room that everybody can join, it takes some trust to bring in others or to ring.
        let public = self == Self::PublicChat;
        let mut events = content([
            ("m.room.avatar", level(50)),
            ("m.room.canonical_alias", level(50)),
            ("m.room.encryption", level(100)),
            ("m.room.history_visibility", level(100)),
            ("m.room.name", level(50)),
            ("m.room.power_levels", level(100)),
            ("m.room.server_acl", level(100)),
            ("m.room.tombstone", level(if rules.explicitly_privilege_room_creators { TOMBSTONE } else { 100 })),
        ]);
        if public {
            events.insert("m.call.invite".to_owned(), level(50));
        }
        content([
            ("ban", level(50)),
            ("events", events.into()),
            ("events_default", level(0)),
            ("invite", level(if public { 50 } else { 0 })),
            ("kick", level(50)),
            ("notifications", content([("room", level(50))]).into()),
            ("redact", level(50)),
            ("state_default", level(50)),
            ("users", users.into()),
            ("users_default", level(0)),
        ])
    }
}

/// Puts the caller's wishes over the preset's power levels, key by key.
///
/// Since room version 12 replacing a room is for its creators: unless the caller says otherwise, a tombstone
/// takes more than `state_default`, whatever that has become.
pub(super) fn override_power_levels(levels: &mut Content, wishes: Content, rules: &AuthorizationRules) {
    let events = wishes.get("events").and_then(CanonicalJsonValue::as_object);
    let chosen = events.is_some_and(|events| events.contains_key("m.room.tombstone"));
    levels.extend(wishes);
    if chosen || !rules.explicitly_privilege_room_creators {
        return;
    }
    let state_default = levels.get("state_default").and_then(CanonicalJsonValue::as_integer).unwrap_or_default();
    let level = Int::from(TOMBSTONE).max(state_default.saturating_add(Int::from(1)));
    if let Some(CanonicalJsonValue::Object(events)) = levels.get_mut("events") {
        events.insert("m.room.tombstone".to_owned(), level.into());
    }
}

fn level(value: i32) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(Int::from(value))
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, user_id};
    use serde_json::{Value, json};

    use super::*;

    const V11: AuthorizationRules = AuthorizationRules::V11;
    const V12: AuthorizationRules = AuthorizationRules::V12;

    fn levels(preset: Preset, rules: &AuthorizationRules) -> Value {
        let invited = [owned_user_id!("@friend:here")];
        serde_json::to_value(preset.power_levels(rules, user_id!("@me:here"), &invited)).unwrap()
    }

    #[test]
    fn presets_give_the_state_of_the_specifications_table() {
        for (preset, join_rule, guest_access) in [
            (Preset::PrivateChat, "invite", "can_join"),
            (Preset::TrustedPrivateChat, "invite", "can_join"),
            (Preset::PublicChat, "public", "forbidden"),
        ] {
            let state = serde_json::to_value(preset.state().map(|(_, content)| content)).unwrap();
            assert_eq!(
                state,
                json!([
                    {"join_rule": join_rule},
                    {"history_visibility": "shared"},
                    {"guest_access": guest_access},
                ])
            );
        }
    }

    #[test]
    fn creators_are_listed_up_to_room_version_11_and_never_after() {
        assert_eq!(levels(Preset::PrivateChat, &V11)["users"], json!({"@me:here": 100}));
        assert_eq!(levels(Preset::TrustedPrivateChat, &V11)["users"], json!({"@me:here": 100, "@friend:here": 100}));
        assert_eq!(levels(Preset::PrivateChat, &V12)["users"], json!({}));
        assert_eq!(levels(Preset::TrustedPrivateChat, &V12)["users"], json!({}));
    }

    #[test]
    fn since_room_version_12_a_tombstone_takes_more_than_state_default() {
        assert_eq!(levels(Preset::PublicChat, &V11)["events"]["m.room.tombstone"], json!(100));
        assert_eq!(levels(Preset::PublicChat, &V12)["events"]["m.room.tombstone"], json!(150));

        let wishes: Content =
            serde_json::from_value(json!({"events": {"m.room.name": 0}, "state_default": 200})).unwrap();
        let mut overridden = Preset::PublicChat.power_levels(&V12, user_id!("@me:here"), &[]);
        override_power_levels(&mut overridden, wishes, &V12);
        let overridden = serde_json::to_value(overridden).unwrap();
        assert_eq!(overridden["events"], json!({"m.room.name": 0, "m.room.tombstone": 201}));
        assert_eq!((&overridden["state_default"], &overridden["ban"]), (&json!(200), &json!(50)));
    }
}
