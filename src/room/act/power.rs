//! Power levels of a room as its state has them, creators included.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#permissions>
//!
//! Levels are integers of 53 bits; creators of rooms since version 12 stand above all of them.

use std::collections::BTreeSet;

use ruma::{
    CanonicalJsonValue, Int, OwnedUserId,
    events::{
        StateEventType,
        room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource},
    },
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;

use crate::{
    error::{Error, Result},
    event::Content,
    room::{State, graph::auth::LEVEL_FIELDS},
};

impl State {
    /// The power levels, or their defaults where the room has none. A content that can't be read counts as none, as in
    /// the authorization rules.
    pub fn power_levels(&self, rules: &RoomVersionRules) -> RoomPowerLevels {
        let content: Option<RoomPowerLevelsEventContent> = self.content(&StateEventType::RoomPowerLevels);
        RoomPowerLevels::new(RoomPowerLevelsSource::from(content), &rules.authorization, self.creators(rules))
    }

    /// Who made the room, and whom its maker named beside them.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v12/#room-creators> for versions that know more than one. In older versions
    /// it is the one in `creator`, or since version 11 the sender of the create event.
    pub fn creators(&self, rules: &RoomVersionRules) -> BTreeSet<OwnedUserId> {
        // Where the version gives a field no meaning there may be anything in it.
        #[derive(Default, Deserialize)]
        struct CreatorsContent {
            #[serde(default)]
            creator: serde_json::Value,
            #[serde(default)]
            additional_creators: serde_json::Value,
        }
        let Some(create) = self.find(&StateEventType::RoomCreate) else { return BTreeSet::new() };
        let content: CreatorsContent = create.content_as().unwrap_or_default();
        let user = |value: &serde_json::Value| OwnedUserId::try_from(value.as_str()?).ok();
        let mut creators = BTreeSet::new();
        if rules.authorization.use_room_create_sender {
            creators.insert(create.sender().to_owned());
        } else {
            creators.extend(user(&content.creator));
        }
        if rules.authorization.additional_room_creators {
            creators.extend(content.additional_creators.as_array().into_iter().flatten().filter_map(user));
        }
        creators
    }
}

/// Power levels as far as their keys have a meaning. `Error::Broken` where they can't be, although the room has them.
pub(super) fn read_levels(levels: &Content) -> Result<RoomPowerLevelsEventContent> {
    let levels = serde_json::to_value(levels).map_err(Error::broken)?;
    serde_json::from_value(levels)
        .map_err(|e| Error::broken(format!("power levels that a room has can't be read: {e}")))
}

/// Power levels with numbers where versions before 10 allow to write them as strings.
///
/// <https://spec.matrix.org/v1.19/rooms/v10/#values-in-mroompower_levels-events-must-be-integers>
pub(super) fn with_integers(mut levels: Content) -> Content {
    for field in LEVEL_FIELDS {
        levels.get_mut(field.as_str()).map(make_integer);
    }
    for key in ["events", "notifications", "users"] {
        find_map(&mut levels, key).into_iter().flat_map(|map| map.values_mut()).for_each(make_integer);
    }
    levels
}

/// A text that is no number stays as it is, for the authorization rules to refuse.
fn make_integer(level: &mut CanonicalJsonValue) {
    if let Some(text) = level.as_str()
        && let Some(number) = text.trim().parse().ok().and_then(Int::new)
    {
        *level = CanonicalJsonValue::Integer(number);
    }
}

/// None where something else than an object stands there.
pub(super) fn find_map<'a>(levels: &'a mut Content, key: &str) -> Option<&'a mut Content> {
    match levels.get_mut(key) {
        Some(CanonicalJsonValue::Object(map)) => Some(map),
        _ => None,
    }
}

/// Sets one level of a map in power levels, which is made if it is missing. Nothing happens where something else than
/// an object stands there.
pub(super) fn set_level(levels: &mut Content, map: &str, key: &str, level: Int) {
    let map = levels.entry(map.to_owned()).or_insert_with(|| CanonicalJsonValue::Object(Content::new()));
    if let CanonicalJsonValue::Object(map) = map {
        map.insert(key.to_owned(), level.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn levels_that_are_written_as_strings_become_numbers_and_nothing_else_changes() {
        let levels = json!({
            "ban": " +50 ", "kick": 7, "users_default": "-1", "org.example": "5", "invite": "much",
            "users": {"@a:here": "100"}, "events": {"m.room.name": "0"}, "notifications": {"room": "20", "other": 3},
        });
        let changed: Value = serde_json::to_value(with_integers(serde_json::from_value(levels).unwrap())).unwrap();
        let expected = json!({
            "ban": 50, "kick": 7, "users_default": -1, "org.example": "5", "invite": "much",
            "users": {"@a:here": 100}, "events": {"m.room.name": 0}, "notifications": {"room": 20, "other": 3},
        });
        assert_eq!(changed, expected);
    }
}
