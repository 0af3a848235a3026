//! Profiles of users of other servers.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>

use std::collections::BTreeMap;

use ruma::profile::ProfileFieldValue;
use serde_json::Value;

/// The specification's limit for a profile, in bytes of JSON, and for the name of a field.
const MAX_PROFILE_BYTES: usize = 64 * 1024;
const MAX_KEY_BYTES: usize = 255;

/// What another server says of a user.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Profile {
    pub(crate) fields: BTreeMap<String, Value>,
    /// What they take in memory, about.
    pub(super) bytes: usize,
}

impl Profile {
    /// Reads a profile field by field. Those that are not as specified, or beyond the limit, are left out.
    pub(super) fn read(said: Value) -> Option<Self> {
        let Value::Object(said) = said else { return None };
        let mut profile = Self::default();
        for (field, value) in said {
            let bytes = field.len() + value.to_string().len();
            let fits = field.len() <= MAX_KEY_BYTES && profile.bytes + bytes <= MAX_PROFILE_BYTES;
            if !value.is_null() && fits && ProfileFieldValue::new(&field, value.clone()).is_ok() {
                profile.bytes += bytes;
                profile.fields.insert(field, value);
            }
        }
        Some(profile)
    }
}
