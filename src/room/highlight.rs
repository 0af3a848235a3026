//! Whose attention an event asks for, by the default push rules.
//!
//! Most default rules say the same to everybody in a room, so an event carries one flag for "counts as
//! unread", and a row for each user whom it mentions. A message in a room of 10,000 costs no more than one
//! in a room of two.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>

use std::sync::Arc;

use ruma::{OwnedUserId, ServerName, events::room::member::MembershipState};
use serde::Deserialize;

use super::{State, state::membership_of};
use crate::event::Pdu;

/// What an event asks of those in the room.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attention {
    /// Counts as unread for everybody but the sender.
    pub(super) notifies: bool,
    /// The users of this server whom it highlights.
    pub(super) highlights: Vec<OwnedUserId>,
}

/// The parts of a content that the default rules look at. What has another shape is not there.
#[derive(Default, Deserialize)]
struct Content {
    #[serde(default, deserialize_with = "lenient")]
    msgtype: Option<String>,
    #[serde(default, rename = "m.relates_to", deserialize_with = "lenient")]
    relates_to: Option<Relation>,
    #[serde(default, rename = "m.mentions", deserialize_with = "lenient")]
    mentions: Option<Mentions>,
}

#[derive(Deserialize)]
struct Relation {
    rel_type: Option<String>,
}

#[derive(Deserialize)]
struct Mentions {
    #[serde(default)]
    user_ids: Vec<String>,
    #[serde(default)]
    room: bool,
}

fn lenient<'de, D: serde::Deserializer<'de>, T: serde::de::DeserializeOwned>(d: D) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(d)?;
    Ok(serde_json::from_value(value).ok())
}

/// Applies the default rules to an event in the state before it.
pub(super) fn attention(pdu: &Arc<Pdu>, state: &State, here: &ServerName) -> Attention {
    let content: Content = pdu.content_as().unwrap_or_default();
    let kind = pdu.kind().to_string();
    // .m.rule.suppress_notices and .m.rule.member_event come before the mentions.
    let is_notice = kind == "m.room.message" && content.msgtype.as_deref() == Some("m.notice");
    if is_notice || kind == "m.room.member" {
        return Attention::default();
    }
    let is_tombstone = kind == "m.room.tombstone" && pdu.state_key() == Some("");
    let mut highlights = Vec::new();
    if is_tombstone || mentions_room(&content, pdu, state) {
        highlights.extend(members(state, here).filter(|user| *user != pdu.sender()).map(ToOwned::to_owned));
    } else if let Some(mentions) = &content.mentions {
        let mentioned = mentions.user_ids.iter().filter_map(|user| <&ruma::UserId>::try_from(user.as_str()).ok());
        for user in mentioned.filter(|user| user.server_name() == here && *user != pdu.sender()) {
            if state.membership(user) == MembershipState::Join && !highlights.iter().any(|known| known == user) {
                highlights.push(user.to_owned());
            }
        }
    }
    let is_edit = content.relates_to.as_ref().and_then(|r| r.rel_type.as_deref()) == Some("m.replace");
    let counts = matches!(kind.as_str(), "m.room.message" | "m.room.encrypted" | "m.call.invite");
    Attention { notifies: is_tombstone || (counts && !is_edit), highlights }
}

/// `.m.rule.is_room_mention`: only from somebody who may.
fn mentions_room(content: &Content, pdu: &Pdu, state: &State) -> bool {
    content.mentions.as_ref().is_some_and(|mentions| mentions.room)
        && state.power_levels(pdu.rules()).user_can_trigger_room_notification(pdu.sender())
}

/// Those who have joined and live on this server.
fn members<'a>(state: &'a State, here: &'a ServerName) -> impl Iterator<Item = &'a ruma::UserId> {
    state
        .members()
        .filter(move |(user, pdu)| user.server_name() == here && membership_of(pdu) == MembershipState::Join)
        .map(|(user, _)| user)
}
