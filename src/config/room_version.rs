//! `rooms.default_version`: only room versions that this server can create
//! (<https://spec.matrix.org/v1.19/rooms/>).

use ruma::RoomVersionId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::ground::room_version::STABLE;

pub(super) fn serialize<S: Serializer>(version: &RoomVersionId, serializer: S) -> Result<S::Ok, S::Error> {
    version.serialize(serializer)
}

/// The error is a sentence for the operator.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RoomVersionId, D::Error> {
    let version = RoomVersionId::deserialize(deserializer)?;
    if STABLE.contains(&version) {
        Ok(version)
    } else {
        Err(D::Error::custom(format!("rooms of version `{version}` cannot be created here")))
    }
}
