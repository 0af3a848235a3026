//! The beginning of a day in UTC, which the configuration writes as people do. 0 where there is none.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

use crate::ground::date;

pub(super) fn serialize<S: Serializer>(time: &(impl Copy + Into<u64>), serializer: S) -> Result<S::Ok, S::Error> {
    match i64::try_from((*time).into()) {
        Ok(time) if time > 0 => serializer.serialize_some(&date::day(time)),
        _ => serializer.serialize_none(),
    }
}

/// The error is a sentence for the operator.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = date::parse_day(&text).and_then(|time| u64::try_from(time).ok());
    time.ok_or_else(|| D::Error::custom(format!("`{text}` is no day of the calendar after 1970")))
}
