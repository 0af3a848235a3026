//! The room versions that Hearth speaks.
//!
//! <https://spec.matrix.org/v1.19/rooms/>

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

static V6: RoomVersionRules = RoomVersionRules::V6;
static V7: RoomVersionRules = RoomVersionRules::V7;
static V8: RoomVersionRules = RoomVersionRules::V8;
static V9: RoomVersionRules = RoomVersionRules::V9;
static V10: RoomVersionRules = RoomVersionRules::V10;
static V11: RoomVersionRules = RoomVersionRules::V11;
static V12: RoomVersionRules = RoomVersionRules::V12;

/// The rules of a room version, if Hearth supports it.
pub fn rules(version: &RoomVersionId) -> Option<&'static RoomVersionRules> {
    Some(match version {
        RoomVersionId::V6 => &V6,
        RoomVersionId::V7 => &V7,
        RoomVersionId::V8 => &V8,
        RoomVersionId::V9 => &V9,
        RoomVersionId::V10 => &V10,
        RoomVersionId::V11 => &V11,
        RoomVersionId::V12 => &V12,
        _ => return None,
    })
}

/// Every version that rooms can be created in and upgraded to; all of them are stable.
pub const STABLE: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stable_version_has_rules() {
        for version in STABLE {
            assert!(rules(&version).is_some(), "{version}");
        }
    }
}
