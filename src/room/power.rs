//! Power levels of a room as its state has them, creators included.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#permissions>

use std::collections::BTreeSet;

use ruma::{
    OwnedUserId,
    events::{
        StateEventType,
        room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource},
    },
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;

use super::State;

impl State {
    /// The power levels, or their defaults where the room has none.
    pub fn power_levels(&self, rules: &RoomVersionRules) -> RoomPowerLevels {
        let content: Option<RoomPowerLevelsEventContent> = self.content(&StateEventType::RoomPowerLevels);
        RoomPowerLevels::new(RoomPowerLevelsSource::from(content), &rules.authorization, self.creators(rules))
    }

    /// Who made the room, and whom its maker named beside them.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v12/#room-creators> for versions that know more than one.
    pub fn creators(&self, rules: &RoomVersionRules) -> BTreeSet<OwnedUserId> {
        #[derive(Deserialize)]
        struct Content {
            creator: Option<OwnedUserId>,
            #[serde(default)]
            additional_creators: Vec<OwnedUserId>,
        }
        let Some(create) = self.find(&StateEventType::RoomCreate) else { return BTreeSet::new() };
        let content = create.content_as::<Content>().unwrap_or(Content { creator: None, additional_creators: vec![] });
        let mut creators = BTreeSet::new();
        if rules.authorization.use_room_create_sender {
            creators.insert(create.sender().to_owned());
        } else {
            creators.extend(content.creator);
        }
        if rules.authorization.additional_room_creators {
            creators.extend(content.additional_creators);
        }
        creators
    }
}
