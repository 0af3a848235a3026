//! Limits that there need not be: 0 in the configuration, where nothing can be written for None, and where a variable that
//! is empty brings the default back.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(
    limit: &(impl Copy + Into<Option<u32>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let limit: Option<u32> = (*limit).into();
    limit.unwrap_or(0).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let limit = u32::deserialize(deserializer)?;
    Ok((limit > 0).then_some(limit))
}
