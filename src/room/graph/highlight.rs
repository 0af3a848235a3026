//! Whose attention an event asks for, by the default push rules.
//!
//! Most default rules say the same to everybody in a room, so an event carries one flag for "counts as
//! unread", one for "highlights everybody", and a row for each user whom it mentions. A message in a room of 10,000
//! costs no more than one in a room of two.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>
//!
//! It is worked out once, when the event is built, and stored with it, so that counting unread events needs no rules.
//! Rules that users make themselves are not looked at.

use std::sync::Arc;

use ruma::{OwnedUserId, ServerName, events::room::member::MembershipState};
use serde::Deserialize;

use super::state::State;
use crate::event::Pdu;

/// What an event asks of those in the room.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PushEffect {
    /// Counts as unread for everybody but the sender.
    pub(super) notifies: bool,
    /// The users of this server whom it highlights, where that is not everybody.
    pub(super) highlights: Vec<OwnedUserId>,
    /// Whether it highlights everybody in the room.
    pub(super) highlights_everybody: bool,
}

/// The parts of a content that the default rules look at. What has another shape is not there.
#[derive(Default, Deserialize)]
struct NotifyingContent {
    #[serde(default, deserialize_with = "lenient")]
    msgtype: Option<String>,
    #[serde(default, rename = "m.relates_to", deserialize_with = "lenient")]
    relates_to: Option<RelationType>,
    #[serde(default, rename = "m.mentions", deserialize_with = "lenient")]
    mentions: Option<Mentions>,
}

#[derive(Deserialize)]
struct RelationType {
    rel_type: Option<String>,
}

#[derive(Deserialize)]
struct Mentions {
    /// What is no user's identifier is passed over.
    #[serde(default)]
    user_ids: Vec<String>,
    #[serde(default)]
    room: bool,
}

/// A field of another shape is missing, rather than the whole content unreadable: strangers write it.
fn lenient<'de, D: serde::Deserializer<'de>, T: serde::de::DeserializeOwned>(d: D) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(d)?;
    Ok(serde_json::from_value(value).ok())
}

/// Applies the default rules to an event in the state before it. `here` is this server: users of others are counted by
/// theirs.
pub(super) fn attention(pdu: &Arc<Pdu>, state: &State, here: &ServerName) -> PushEffect {
    let content: NotifyingContent = pdu.content_as().unwrap_or_default();
    let kind = pdu.kind().to_string();
    // .m.rule.suppress_notices and .m.rule.member_event come before the mentions.
    let is_notice = kind == "m.room.message" && content.msgtype.as_deref() == Some("m.notice");
    if is_notice || kind == "m.room.member" {
        return PushEffect::default();
    }
    let is_tombstone = kind == "m.room.tombstone" && pdu.state_key() == Some("");
    let mut highlights = Vec::new();
    let highlights_everybody = is_tombstone || mentions_room(&content, pdu, state);
    if let Some(mentions) = content.mentions.as_ref().filter(|_| !highlights_everybody) {
        let mentioned = mentions.user_ids.iter().filter_map(|user| <&ruma::UserId>::try_from(user.as_str()).ok());
        for user in mentioned.filter(|user| user.server_name() == here && *user != pdu.sender()) {
            if state.membership(user) == MembershipState::Join && !highlights.iter().any(|known| known == user) {
                highlights.push(user.to_owned());
            }
        }
    }
    let is_edit = content.relates_to.as_ref().and_then(|r| r.rel_type.as_deref()) == Some("m.replace");
    // The types for which a default rule says `notify`.
    let counts = matches!(kind.as_str(), "m.room.message" | "m.room.encrypted" | "m.call.invite");
    PushEffect { notifies: is_tombstone || (counts && !is_edit), highlights, highlights_everybody }
}

/// `.m.rule.is_room_mention`: only from somebody who may.
fn mentions_room(content: &NotifyingContent, pdu: &Pdu, state: &State) -> bool {
    content.mentions.as_ref().is_some_and(|mentions| mentions.room)
        && state.power_levels(pdu.rules()).user_can_trigger_room_notification(pdu.sender())
}
