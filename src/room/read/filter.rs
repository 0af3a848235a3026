//! Which events a client wants to see.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>
//!
//! Filters are evaluated here and not in the database: what they may say is more than an index could serve, and most of
//! them let nearly everything through. How many events are looked at for one page is bounded by whoever asks.

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::filter::{Filter, RoomEventFilter, RoomFilter, UrlFilter},
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::event::Pdu;

/// What every filter of events can be asked.
pub trait EventFilter {
    /// Whether events of this type are wanted, from somebody.
    fn passes_kind(&self, kind: &str) -> bool;

    /// Whether events of this sender are wanted, of some type.
    fn passes_sender(&self, sender: &UserId) -> bool;
}

/// What filters that know of rooms can be asked as well.
pub trait RoomAware {
    /// Whether anything is wanted from this room.
    fn passes_room(&self, room_id: &RoomId) -> bool;
}

/// What a filter of room events can be asked.
pub trait PduFilter: EventFilter + RoomAware + Sync {
    /// Whether this event is wanted.
    fn passes(&self, pdu: &Pdu) -> bool;

    /// Whether no event of the room could ever pass, so that there is no need to look for one. False says nothing: it
    /// may still be that none passes.
    fn passes_nothing_in(&self, room_id: &RoomId) -> bool;

    /// Whether every event passes. It saves looking at each.
    fn passes_everything(&self) -> bool;
}

/// Which events are wanted by somebody who does not say it in a filter of the client-server API. Lists of what is
/// wanted are None for everything and empty for nothing; lists of what is not wanted win over them.
#[derive(Clone, Debug, Default)]
pub struct EventSelection {
    /// Patterns, in which `*` stands for any sequence of characters. None for all types.
    pub types: Option<Vec<String>>,
    pub not_types: Vec<String>,
    pub senders: Option<Vec<OwnedUserId>>,
    pub not_senders: Vec<OwnedUserId>,
    pub rooms: Option<Vec<OwnedRoomId>>,
    pub not_rooms: Vec<OwnedRoomId>,
    /// Whether they have to have a `url`, or must not have one. None if either will do.
    pub has_url: Option<bool>,
}

/// Which rooms are wanted. As in an [`EventSelection`].
#[derive(Clone, Debug, Default)]
pub struct RoomSelection {
    pub rooms: Option<Vec<OwnedRoomId>>,
    pub not_rooms: Vec<OwnedRoomId>,
}

macro_rules! event_filter {
    ($($filter:ty),*) => {$(
        impl EventFilter for $filter {
            fn passes_kind(&self, kind: &str) -> bool {
                let listed = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, kind));
                self.types.as_deref().is_none_or(listed) && !listed(&self.not_types)
            }

            fn passes_sender(&self, sender: &UserId) -> bool {
                let listed = |senders: &[OwnedUserId]| senders.iter().any(|one| one == sender);
                self.senders.as_deref().is_none_or(listed) && !listed(&self.not_senders)
            }
        }
    )*};
}
event_filter!(Filter, RoomEventFilter, EventSelection);

macro_rules! room_aware {
    ($($filter:ty),*) => {$(
        impl RoomAware for $filter {
            fn passes_room(&self, room_id: &RoomId) -> bool {
                let listed = |rooms: &[OwnedRoomId]| rooms.iter().any(|one| one == room_id);
                self.rooms.as_deref().is_none_or(listed) && !listed(&self.not_rooms)
            }
        }
    )*};
}
room_aware!(RoomFilter, RoomEventFilter, RoomSelection, EventSelection);

/// The second of each pair says whether events have to have a `url` or must not.
macro_rules! pdu_filter {
    ($($filter:ty: $wanted_url:path),*) => {$(
        impl PduFilter for $filter {
            fn passes(&self, pdu: &Pdu) -> bool {
                self.passes_sender(pdu.sender())
                    && (self.types.is_none() && self.not_types.is_empty() || self.passes_kind(&pdu.kind().to_string()))
                    && self.passes_room(pdu.room_id())
                    && $wanted_url(self).is_none_or(|wanted| wanted == has_url(pdu))
            }

            fn passes_nothing_in(&self, room_id: &RoomId) -> bool {
                self.types.as_ref().is_some_and(Vec::is_empty)
                    || self.senders.as_ref().is_some_and(Vec::is_empty)
                    || self.not_types.iter().any(|pattern| pattern == "*")
                    || !self.passes_room(room_id)
            }

            fn passes_everything(&self) -> bool {
                self.types.is_none()
                    && self.senders.is_none()
                    && self.rooms.is_none()
                    && $wanted_url(self).is_none()
                    && self.not_types.is_empty()
                    && self.not_senders.is_empty()
                    && self.not_rooms.is_empty()
            }
        }
    )*};
}
pdu_filter!(RoomEventFilter: wanted_url, EventSelection: EventSelection::wanted_url);

fn wanted_url(filter: &RoomEventFilter) -> Option<bool> {
    filter.url_filter.map(|wanted| wanted == UrlFilter::EventsWithUrl)
}

impl EventSelection {
    fn wanted_url(&self) -> Option<bool> {
        self.has_url
    }
}

/// Whether `text` is what `pattern` says, in which `*` stands for any sequence of characters.
///
/// What lies between two stars is taken where it first occurs: no choice is ever taken back, so a hostile
/// pattern costs no more than its length and the text's.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let (between, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(text) = text.strip_prefix(start).and_then(|text| text.strip_suffix(end)) else { return false };
    let mut left = Some(text);
    for part in between.split('*') {
        left = left.and_then(|text| text.split_once(part)).map(|(_, after)| after);
    }
    left.is_some()
}

/// Whether the content has a `url`, whatever its value.
fn has_url(pdu: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct UrlContent {
        #[serde(default, deserialize_with = "present")]
        url: bool,
    }
    fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| true)
    }
    pdu.content_as::<UrlContent>().is_ok_and(|content| content.url)
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::{event::RelationFilter, room::testing::pdu_of};

    fn filter(json: serde_json::Value) -> RoomEventFilter {
        serde_json::from_value(json).unwrap()
    }

    fn message(content: &serde_json::Value) -> Pdu {
        pdu_of(&json!({ "type": "m.room.message", "sender": "@alice:here", "content": content }))
    }

    #[test]
    fn stars_stand_for_any_sequence() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "m.room.message"),
            ("m.*", "m.room.message"),
            ("*.message", "m.room.message"),
            ("m.*.message", "m.room.message"),
            ("*room*", "m.room.message"),
            ("m*o*o*e", "m.room.message"),
            ("**", "x"),
            ("a*b*b", "abb"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "x"),
            ("m.room", "m.room.message"),
            ("*room", "m.room.message"),
            ("a*a", "a"),
            ("ab*bc", "abc"),
            ("a*b*b", "ab"),
            ("*x*", "m.room.message"),
            ("M.*", "m.room.message"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        let text = "a".repeat(255);
        let pattern = "*a".repeat(30_000);
        let started = std::time::Instant::now();
        assert!(!matches(&pattern, &text));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }

    #[test]
    fn an_empty_filter_passes_everything() {
        let pdu = message(&json!({ "body": "hello" }));
        assert!(RoomEventFilter::default().passes(&pdu));
        assert!(!RoomEventFilter::default().passes_nothing_in(pdu.room_id()));
        assert!(filter(json!({ "limit": 5, "lazy_load_members": true })).passes_everything());
        for one in ["types", "senders", "rooms", "not_types", "not_senders", "not_rooms"] {
            let value = match one {
                "rooms" | "not_rooms" => "!x:here",
                _ => "@x:here",
            };
            assert!(!filter(json!({ one: [value] })).passes_everything(), "{one}");
        }
        assert!(!filter(json!({ "contains_url": false })).passes_everything());
    }

    #[test]
    fn exclusion_wins_over_inclusion() {
        let pdu = message(&json!({ "body": "hello" }));
        let room = pdu.room_id().as_str();
        for (name, value) in [("types", "m.room.*"), ("senders", "@alice:here"), ("rooms", room)] {
            assert!(filter(json!({ name: [value] })).passes(&pdu), "{name}");
            assert!(!filter(json!({ name: [] })).passes(&pdu), "{name}");
            let not = format!("not_{name}");
            assert!(!filter(json!({ &not: [value] })).passes(&pdu), "{name}");
            assert!(!filter(json!({ name: [value], &not: [value] })).passes(&pdu), "{name}");
        }
    }

    #[test]
    fn a_url_is_there_or_not_whatever_its_value() {
        let (with, without) = (json!({ "contains_url": true }), json!({ "contains_url": false }));
        for content in [json!({ "url": "mxc://hearth/x" }), json!({ "url": null }), json!({ "url": { "a": 1 } })] {
            assert!(filter(with.clone()).passes(&message(&content)), "{content}");
            assert!(!filter(without.clone()).passes(&message(&content)), "{content}");
        }
        let content = json!({ "info": { "url": "mxc://hearth/x" } });
        assert!(!filter(with).passes(&message(&content)));
        assert!(filter(without).passes(&message(&content)));
    }

    #[test]
    fn a_filter_that_nothing_can_pass_is_recognised() {
        let room = room_id!("!room:here");
        for nothing in [
            json!({ "types": [] }),
            json!({ "senders": [] }),
            json!({ "rooms": [] }),
            json!({ "not_rooms": [room] }),
            json!({ "not_types": ["*"] }),
        ] {
            assert!(filter(nothing.clone()).passes_nothing_in(room), "{nothing}");
        }
        assert!(!filter(json!({ "types": ["m.room.name"], "rooms": [room] })).passes_nothing_in(room));
    }

    #[test]
    fn filters_without_rooms_look_at_type_and_sender() {
        let filter: Filter =
            serde_json::from_value(json!({ "types": ["m.presence"], "not_senders": ["@bob:here"] })).unwrap();
        assert!(filter.passes_kind("m.presence"));
        assert!(!filter.passes_kind("m.direct"));
        assert!(filter.passes_sender(user_id!("@alice:here")));
        assert!(!filter.passes_sender(user_id!("@bob:here")));
    }

    #[test]
    fn events_pass_by_how_they_relate() {
        let plain = pdu_of(&json!({ "content": { "body": "hi" } }));
        let relating =
            |kind: &str| pdu_of(&json!({ "content": { "m.relates_to": { "rel_type": kind, "event_id": "$root" } } }));
        let (thread, reference) = (relating("m.thread"), relating("m.reference"));
        let passes = |filter: serde_json::Value| {
            let filter: RelationFilter = serde_json::from_value(filter).unwrap();
            [&plain, &thread, &reference].map(|pdu| filter.passes(pdu))
        };
        assert_eq!(passes(json!({})), [true, true, true]);
        for prefix in ["", "org.matrix.msc3874."] {
            let (wanted, unwanted) = (format!("{prefix}rel_types"), format!("{prefix}not_rel_types"));
            assert_eq!(passes(json!({ &wanted: ["m.thread"] })), [false, true, false]);
            assert_eq!(passes(json!({ &wanted: ["m.thread", "m.reference"] })), [false, true, true]);
            assert_eq!(passes(json!({ &wanted: [] })), [false, false, false]);
            assert_eq!(passes(json!({ &unwanted: ["m.thread"] })), [true, false, true]);
            assert_eq!(passes(json!({ &unwanted: [] })), [true, true, true]);
            let both = json!({ &wanted: ["m.thread", "m.reference"], &unwanted: ["m.thread"] });
            assert_eq!(passes(both), [false, false, true]);
        }
    }
}
