//! The room versions that Hearth speaks.
//!
//! The rules themselves are ruma's. Rooms of versions 1 to 5 are not spoken: hardly anybody makes them any more, and
//! their identifiers and signatures follow rules of their own.
//!
//! <https://spec.matrix.org/v1.19/rooms/>

use ruma::{
    RoomVersionId,
    room_version_rules::{RoomVersionDisposition, RoomVersionRules},
};

static V6: RoomVersionRules = RoomVersionRules::V6;
static V7: RoomVersionRules = RoomVersionRules::V7;
static V8: RoomVersionRules = RoomVersionRules::V8;
static V9: RoomVersionRules = RoomVersionRules::V9;
static V10: RoomVersionRules = RoomVersionRules::V10;
static V11: RoomVersionRules = RoomVersionRules::V11;
static V12: RoomVersionRules = RoomVersionRules::V12;
static MSC3757_10: RoomVersionRules = unstable(RoomVersionRules::V10);
static MSC3757_11: RoomVersionRules = unstable(RoomVersionRules::V11);

/// An unstable version's rules are a stable one's, marked so that [`has_owned_state`] knows them.
const fn unstable(mut rules: RoomVersionRules) -> RoomVersionRules {
    rules.disposition = RoomVersionDisposition::Unstable;
    rules
}

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
        other => match other.as_str() {
            "org.matrix.msc3757.10" => &MSC3757_10,
            "org.matrix.msc3757.11" => &MSC3757_11,
            _ => return None,
        },
    })
}

/// Whether state can belong to a user beyond what they have at their own identifier
/// ([MSC3757](https://github.com/matrix-org/matrix-spec-proposals/pull/3757)): that is all that the unstable versions
/// here are for.
pub fn has_owned_state(rules: &RoomVersionRules) -> bool {
    rules.disposition == RoomVersionDisposition::Unstable
}

/// The stable versions in which rooms can be created and to which they can be upgraded.
pub const STABLE: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// Further versions, for those who try out proposals and ask for them by name.
pub const UNSTABLE: [&str; 2] = ["org.matrix.msc3757.10", "org.matrix.msc3757.11"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_rules() {
        for version in STABLE {
            assert!(!has_owned_state(rules(&version).unwrap()), "{version}");
        }
        for version in UNSTABLE {
            assert!(has_owned_state(rules(&RoomVersionId::try_from(version).unwrap()).unwrap()), "{version}");
        }
    }
}
