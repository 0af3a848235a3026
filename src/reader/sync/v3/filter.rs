//! What a client wants, as the filter of a classic `/sync` says it.
//!
//! The core does not know this shape: what it has no word for, fields and format of events, is applied by the writer.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use ruma::api::client::filter::{Filter, RoomEventFilter, UrlFilter};

use crate::{
    people::filter::StoredFilter,
    reader::sync::wanted::{Members, Wanted, WantedState, WantedTimeline},
    room::read::filter::{EventSelection, RoomSelection},
};

// Nothing is refused here: a filter was judged when it was stored, or when the request was read.
impl From<&StoredFilter> for Wanted {
    fn from(definition: &StoredFilter) -> Self {
        let room = &definition.events.room;
        // Whether redundant members are sent is not asked: whom the client knows is not remembered.
        let members = if room.state.lazy_load_options.is_disabled() { Members::All } else { Members::Needed };
        Self {
            // Rooms that the filter leaves out for everything, before those of its parts.
            rooms: RoomSelection { rooms: room.rooms.clone(), not_rooms: room.not_rooms.clone() },
            left_rooms: room.include_leave,
            timeline: WantedTimeline {
                // The sync itself has a greatest number of its own.
                limit: room.timeline.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
                events: in_rooms(&room.timeline),
                relations: definition.relations.clone(),
            },
            // Members are chosen by the state filter alone.
            state: WantedState { events: in_rooms(&room.state), members },
            ephemeral: in_rooms(&room.ephemeral),
            room_account_data: in_rooms(&room.account_data),
            account_data: outside_rooms(&definition.events.account_data),
            presence: outside_rooms(&definition.events.presence),
        }
    }
}

/// A filter of what is in rooms. Its limit is for the timeline, which takes it by itself; the rest has no use for one.
fn in_rooms(filter: &RoomEventFilter) -> EventSelection {
    EventSelection {
        types: filter.types.clone(),
        not_types: filter.not_types.clone(),
        senders: filter.senders.clone(),
        not_senders: filter.not_senders.clone(),
        rooms: filter.rooms.clone(),
        not_rooms: filter.not_rooms.clone(),
        // None for events of either kind.
        has_url: filter.url_filter.map(|wanted| wanted == UrlFilter::EventsWithUrl),
    }
}

/// A filter of what is in no room: it can't choose any.
fn outside_rooms(filter: &Filter) -> EventSelection {
    EventSelection {
        types: filter.types.clone(),
        not_types: filter.not_types.clone(),
        senders: filter.senders.clone(),
        not_senders: filter.not_senders.clone(),
        ..EventSelection::default()
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::room::read::filter::{EventFilter as _, PduFilter as _, RoomAware as _};

    fn wanted(filter: &serde_json::Value) -> Wanted {
        Wanted::from(&StoredFilter::from_json(&filter.to_string()).unwrap())
    }

    #[test]
    fn an_empty_filter_wants_everything_as_is_usual() {
        let wanted = wanted(&json!({}));
        assert_eq!((wanted.timeline.limit, wanted.left_rooms, wanted.state.members), (None, false, Members::All));
        assert!(wanted.rooms.passes_room(room_id!("!a:b")) && wanted.timeline.relations.is_any());
        for events in [
            &wanted.timeline.events,
            &wanted.state.events,
            &wanted.ephemeral,
            &wanted.room_account_data,
            &wanted.account_data,
            &wanted.presence,
        ] {
            assert!(events.passes_everything());
        }
    }

    #[test]
    fn each_part_of_a_filter_is_about_what_it_names() {
        let wanted = wanted(&json!({
            "presence": { "not_senders": ["@bob:b"] },
            "account_data": { "types": ["m.direct"] },
            "room": {
                "not_rooms": ["!other:b"],
                "include_leave": true,
                "timeline": { "limit": 5, "contains_url": true, "rel_types": ["m.thread"] },
                "state": { "types": ["m.room.*"], "lazy_load_members": true },
                "ephemeral": { "not_types": ["m.typing"] },
                "account_data": { "rooms": ["!a:b"] },
            },
        }));
        assert!(!wanted.presence.passes_sender(user_id!("@bob:b")) && wanted.presence.passes_kind("m.presence"));
        assert!(wanted.account_data.passes_kind("m.direct") && !wanted.account_data.passes_kind("m.tag"));
        assert!(!wanted.rooms.passes_room(room_id!("!other:b")) && wanted.left_rooms);
        let timeline = &wanted.timeline;
        assert_eq!(
            (timeline.limit, timeline.events.has_url, timeline.relations.is_any()),
            (Some(5), Some(true), false)
        );
        assert!(wanted.state.events.passes_kind("m.room.name") && !wanted.state.events.passes_kind("x"));
        assert_eq!(wanted.state.members, Members::Needed);
        assert!(!wanted.ephemeral.passes_kind("m.typing") && wanted.ephemeral.passes_kind("m.receipt"));
        assert!(!wanted.room_account_data.passes_room(room_id!("!other:b")));
    }
}
