//! Which events a client wants to see by how they relate to each other.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3874> for what an event relates by, and, for what relates to
//! it, <https://github.com/matrix-org/matrix-spec-proposals/pull/3440>, of which clients still use it.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::{Pdu, Relation};

/// The part of a filter of room events that ruma does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationFilter {
    /// The types of relations that events may have; those without any are not wanted then.
    #[serde(rename = "org.matrix.msc3874.rel_types", skip_serializing_if = "Option::is_none")]
    unstable_rel_types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rel_types: Option<Vec<String>>,
    /// The types that they may not have, even if the other list has them.
    #[serde(rename = "org.matrix.msc3874.not_rel_types", skip_serializing_if = "Option::is_none")]
    unstable_not_rel_types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_rel_types: Option<Vec<String>>,
    /// Something has to relate to the event, by one of these types.
    #[serde(skip_serializing_if = "Option::is_none")]
    related_by_rel_types: Option<Vec<String>>,
    /// Something has to relate to the event, that was sent by one of these users.
    #[serde(skip_serializing_if = "Option::is_none")]
    related_by_senders: Option<Vec<OwnedUserId>>,
}

/// What has to relate to an event. None of either for anything.
#[derive(Clone, Copy, Debug)]
pub struct ChildFilter<'a> {
    pub rel_types: Option<&'a [String]>,
    pub senders: Option<&'a [OwnedUserId]>,
}

impl RelationFilter {
    /// Wants every event.
    pub const ANY: Self = Self {
        unstable_rel_types: None,
        rel_types: None,
        unstable_not_rel_types: None,
        not_rel_types: None,
        related_by_rel_types: None,
        related_by_senders: None,
    };

    /// Whether every event is wanted.
    pub fn is_any(&self) -> bool {
        *self == Self::ANY
    }

    /// Whether an event is wanted for what it relates by. What relates to it is another question.
    pub fn passes(&self, pdu: &Pdu) -> bool {
        let wanted = [&self.rel_types, &self.unstable_rel_types];
        let unwanted = [&self.not_rel_types, &self.unstable_not_rel_types];
        if wanted.into_iter().chain(unwanted).all(Option::is_none) {
            return true;
        }
        let relation = Relation::of(pdu);
        let is_of = |kinds: &Vec<String>| relation.as_ref().is_some_and(|relation| kinds.contains(&relation.kind));
        wanted.into_iter().flatten().all(is_of) && !unwanted.into_iter().flatten().any(is_of)
    }

    /// What has to relate to an event. None where that is nothing.
    pub fn children(&self) -> Option<ChildFilter<'_>> {
        let (rel_types, senders) = (self.related_by_rel_types.as_deref(), self.related_by_senders.as_deref());
        (rel_types.is_some() || senders.is_some()).then_some(ChildFilter { rel_types, senders })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_written_as_it_was_read() {
        for json in [
            json!({}),
            json!({ "org.matrix.msc3874.rel_types": ["m.thread"], "related_by_senders": ["@alice:here"] }),
            json!({ "rel_types": [], "not_rel_types": ["x"], "related_by_rel_types": ["m.thread"] }),
        ] {
            let filter: RelationFilter = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&filter).unwrap(), json);
            assert_eq!(filter.is_any(), json == json!({}));
        }
    }
}
