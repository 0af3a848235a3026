//! What may be known of a room from outside: of one of this server's, or as another server says it.
//!
//! A room may hold any state, and another server may say anything. So every field is read by itself, and what is not as the
//! specification has it is taken as not being there: one odd field must not hide a room, nor one odd room a list.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-summaries>

use ruma::{
    EventEncryptionAlgorithm, OwnedMxcUri, OwnedRoomAliasId, OwnedRoomId, RoomId, RoomVersionId, UInt, room::RoomType,
};
use serde::Serialize;
use serde_json::{Map, Value};

/// The longest text of another server's that is shown, in bytes: no event is longer.
const MAX_TEXT: usize = 64 * 1024;
/// How many rooms another server may name whose members may join one.
const MAX_ALLOWED: usize = 100;

/// The part of it that everybody reads who may know of the room.
///
/// ruma's type can't be written where a room has a join rule that ruma does not know, and says nothing where everybody
/// may join.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RoomSummary {
    pub(crate) room_id: OwnedRoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) canonical_alias: Option<OwnedRoomAliasId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) avatar_url: Option<OwnedMxcUri>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room_type: Option<RoomType>,
    pub(crate) num_joined_members: UInt,
    /// As the room has it, whatever that means.
    pub(crate) join_rule: String,
    /// For rules that let members of other rooms in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allowed_room_ids: Option<Vec<OwnedRoomId>>,
    pub(crate) world_readable: bool,
    pub(crate) guest_can_join: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption: Option<EventEncryptionAlgorithm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room_version: Option<RoomVersionId>,
}

/// A page of a directory. Of each room it says how to join it, also where everybody may, and no more than the
/// specification's `PublishedRoomsChunk` has.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct PublicRoomsPage {
    pub(crate) chunk: Vec<RoomSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total_room_count_estimate: Option<UInt>,
}

impl RoomSummary {
    /// What a directory says of a room.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>
    pub(crate) fn as_published(&self) -> Self {
        Self { allowed_room_ids: None, encryption: None, room_version: None, ..self.clone() }
    }

    /// A room as another server says it is. None of what does not say which.
    pub(crate) fn read(said: &Value) -> Option<Self> {
        let said = said.as_object()?;
        let join_rule = match said.get("join_rule") {
            // As the specification has it where nothing is said.
            None | Some(Value::Null) => "public".to_owned(),
            Some(_) => text(said, "join_rule").unwrap_or_else(|| "invite".to_owned()),
        };
        let flag = |field: &str| said.get(field) == Some(&Value::Bool(true));
        Some(Self {
            room_id: text(said, "room_id")?.try_into().ok()?,
            canonical_alias: text(said, "canonical_alias").and_then(|alias| alias.try_into().ok()),
            name: text(said, "name"),
            topic: text(said, "topic"),
            avatar_url: text(said, "avatar_url").map(Into::into),
            room_type: text(said, "room_type").map(Into::into),
            num_joined_members: number(said, "num_joined_members").unwrap_or_default(),
            allowed_room_ids: matches!(&*join_rule, "restricted" | "knock_restricted").then(|| allowed_rooms(said)),
            join_rule,
            world_readable: flag("world_readable"),
            guest_can_join: flag("guest_can_join"),
            encryption: text(said, "encryption").map(Into::into),
            room_version: text(said, "room_version").and_then(|version| version.try_into().ok()),
        })
    }

    /// The rooms whose members may join.
    pub(crate) fn allowed_rooms(&self) -> impl Iterator<Item = &RoomId> {
        self.allowed_room_ids.iter().flatten().map(AsRef::as_ref)
    }

    /// How many bytes it takes in memory beside itself, about.
    pub(crate) fn bytes(&self) -> usize {
        const PIECE: usize = 64;
        let Self { room_id, canonical_alias, name, topic, avatar_url, join_rule, allowed_room_ids, .. } = self;
        let texts = [name.as_deref(), topic.as_deref(), avatar_url.as_ref().map(|url| url.as_str())];
        let alias = canonical_alias.as_ref().map(|alias| alias.as_str());
        let texts = texts.into_iter().chain([alias]).flatten().chain([join_rule.as_str(), room_id.as_str()]);
        let allowed = allowed_room_ids.iter().flatten().map(|room_id| PIECE + room_id.as_str().len());
        texts.map(str::len).chain(allowed).sum()
    }
}

impl PublicRoomsPage {
    /// A page of another server's directory, of so many rooms at most. What is no room in it is passed over.
    pub(crate) fn read(said: &Value, most: usize) -> Option<Self> {
        let said = said.as_object()?;
        let chunk = said.get("chunk")?.as_array()?.iter().take(most).filter_map(RoomSummary::read);
        Some(Self {
            chunk: chunk.map(|room| room.as_published()).collect(),
            next_batch: text(said, "next_batch"),
            prev_batch: text(said, "prev_batch"),
            total_room_count_estimate: number(said, "total_room_count_estimate"),
        })
    }
}

/// A text that says something, and not too much.
fn text(said: &Map<String, Value>, field: &str) -> Option<String> {
    let text = said.get(field)?.as_str()?;
    (1..=MAX_TEXT).contains(&text.len()).then(|| text.to_owned())
}

fn number(said: &Map<String, Value>, field: &str) -> Option<UInt> {
    said.get(field)?.as_u64().and_then(|number| UInt::try_from(number).ok())
}

fn allowed_rooms(said: &Map<String, Value>) -> Vec<OwnedRoomId> {
    let rooms = said.get("allowed_room_ids").and_then(Value::as_array);
    let rooms = rooms.into_iter().flatten().take(MAX_ALLOWED);
    rooms.filter_map(|room_id| OwnedRoomId::try_from(room_id.as_str()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fuzz::{cases, mutate};

    /// Names and pictures that are no strings break lists (Synapse 1.157.2).
    #[test]
    fn what_is_no_text_is_absent_and_hides_nothing_else() {
        for odd in [json!(7), json!(null), json!([]), json!({ "a": 1 }), json!(true), json!(""), json!(1.5)] {
            let said = json!({
                "room_id": "!a:b", "name": odd, "topic": odd, "avatar_url": odd, "canonical_alias": odd,
                "room_type": odd, "num_joined_members": odd, "encryption": odd, "room_version": odd,
                "world_readable": odd, "guest_can_join": odd, "allowed_room_ids": odd, "join_rule": "restricted",
            });
            let room = RoomSummary::read(&said).unwrap();
            let RoomSummary { name, topic, avatar_url, canonical_alias, room_type, encryption, .. } = &room;
            assert!(name.is_none() && topic.is_none() && avatar_url.is_none() && canonical_alias.is_none(), "{odd}");
            assert!(room_type.is_none() && encryption.is_none() && room.room_version.is_none(), "{odd}");
            assert!(room.num_joined_members <= UInt::from(7_u32), "{odd}");
            assert_eq!(room.allowed_room_ids.as_deref(), Some(&[][..]), "{odd}");
            let page = json!({ "chunk": [odd, said, { "room_id": odd }], "next_batch": odd, "prev_batch": odd });
            let page = PublicRoomsPage::read(&page, 10).unwrap();
            assert_eq!((page.chunk.len(), &page.next_batch, &page.prev_batch), (1, &None, &None), "{odd}");
        }
    }

    #[test]
    fn how_a_room_is_joined_is_public_where_nothing_is_said_and_closed_where_nonsense_is() {
        let rule = |said: Value| RoomSummary::read(&said).unwrap().join_rule;
        assert_eq!(rule(json!({ "room_id": "!a:b" })), "public");
        assert_eq!(rule(json!({ "room_id": "!a:b", "join_rule": null })), "public");
        assert_eq!(rule(json!({ "room_id": "!a:b", "join_rule": 7 })), "invite");
        assert_eq!(rule(json!({ "room_id": "!a:b", "join_rule": "org.example" })), "org.example");
    }

    #[test]
    fn no_page_is_longer_than_was_asked_for_and_no_text_longer_than_an_event() {
        let room = json!({ "room_id": "!a:b", "name": "x".repeat(MAX_TEXT + 1), "topic": "x".repeat(MAX_TEXT) });
        let page = PublicRoomsPage::read(&json!({ "chunk": vec![room; 20] }), 3).unwrap();
        assert_eq!(page.chunk.len(), 3);
        assert!(page.chunk.iter().all(|room| room.name.is_none() && room.topic.is_some()));
        for no_page in [json!({}), json!([]), json!({ "chunk": {} }), json!(null)] {
            assert_eq!(PublicRoomsPage::read(&no_page, 3), None);
        }
    }

    #[test]
    fn whatever_another_server_says_can_be_written_for_a_client() {
        for mut case in cases("summaries", 1) {
            let mut said = json!({
                "room_id": "!a:b", "name": "Name", "topic": "Topic", "avatar_url": "mxc://a/b", "room_type": "m.space",
                "canonical_alias": "#a:b", "num_joined_members": 7, "join_rule": "restricted", "encryption": "m.a",
                "allowed_room_ids": ["!c:d"], "world_readable": true, "guest_can_join": false, "room_version": "12",
            });
            for _ in 0..3 {
                mutate::json(&mut case.dice, &mut said);
            }
            if let Some(room) = RoomSummary::read(&said) {
                let written = serde_json::to_value(&room).unwrap();
                assert_eq!(RoomSummary::read(&written).unwrap().room_id, room.room_id);
                assert!(room.bytes() <= said.to_string().len() + 64 * MAX_ALLOWED + 16, "{said}");
            }
        }
    }
}
