//! How an event relates to an earlier one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events>

use ruma::{OwnedEventId, events::TimelineEventType};
use serde::{Deserialize, de::IgnoredAny};

use super::Pdu;

/// The longest type of relation that is one.
const MAX_BYTES: usize = 255;

/// What an event says of itself and another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `rel_type`: `m.thread`, `m.replace`, `m.annotation`, `m.reference`, or anything else.
    pub kind: String,
    /// The event that it relates to, which need not be known.
    pub parent: OwnedEventId,
    /// What an annotation annotates with.
    pub key: Option<String>,
    /// Whether it has the form of an edit. Whether it is one depends on the parent.
    pub is_edit: bool,
}

#[derive(Deserialize)]
struct RelationContent {
    #[serde(rename = "m.relates_to")]
    relates_to: RelatesTo,
    #[serde(rename = "m.new_content")]
    new_content: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RelatesTo {
    rel_type: String,
    event_id: OwnedEventId,
    #[serde(default)]
    key: Option<serde_json::Value>,
}

impl Relation {
    /// The relation of an event, if it has one of the right shape. What is redacted relates to nothing.
    pub fn of(pdu: &Pdu) -> Option<Self> {
        // Most events have none, and their content need not be read for that.
        if !pdu.content().get().contains("\"m.relates_to\"") {
            return None;
        }
        let RelationContent { relates_to, new_content } = pdu.content_as().ok()?;
        let relation = Self::new(pdu.kind(), relates_to, new_content.is_some())?;
        Some(Self { is_edit: relation.is_edit && !pdu.is_state(), ..relation })
    }

    /// The relation that a message with this content would have.
    pub fn of_content(kind: &TimelineEventType, content: &super::Content) -> Option<Self> {
        let relates_to = serde_json::to_value(content.get("m.relates_to")?).ok()?;
        Self::new(kind, serde_json::from_value(relates_to).ok()?, content.contains_key("m.new_content"))
    }

    /// The relation of an event of which only the JSON is at hand.
    pub fn of_json(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct RelatingEvent {
            #[serde(rename = "type")]
            kind: TimelineEventType,
            content: RelationContent,
        }
        let RelatingEvent { kind, content: RelationContent { relates_to, new_content } } =
            serde_json::from_str(json).ok()?;
        Self::new(&kind, relates_to, new_content.is_some())
    }

    fn new(kind: &TimelineEventType, relates_to: RelatesTo, has_new_content: bool) -> Option<Self> {
        let RelatesTo { rel_type, event_id, key } = relates_to;
        // The kind of event is kept beside the relation, and no database keeps a NUL in a text.
        let is_storable = |text: &str| !text.contains('\0') && text.len() <= MAX_BYTES;
        let texts = [rel_type.as_str(), event_id.as_str(), &kind.to_string()];
        if rel_type.is_empty() || !texts.into_iter().all(is_storable) {
            return None;
        }
        let is_edit = rel_type == "m.replace" && (has_new_content || *kind == TimelineEventType::RoomEncrypted);
        let key = key.and_then(|key| key.as_str().map(ToOwned::to_owned));
        Some(Self { kind: rel_type, parent: event_id, key, is_edit })
    }

    /// Whether it puts its event into the thread that the parent is the root of.
    pub fn is_thread(&self) -> bool {
        self.kind == "m.thread"
    }
}
