//! What is kept of a page that was looked at, for its preview to be shown again.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// As it is in the database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kept {
    /// As clients get it.
    Preview(Map<String, Value>),
    /// The page could not be looked at. Kept for a while as well: everybody in a room asks for the same page.
    Nothing,
}
