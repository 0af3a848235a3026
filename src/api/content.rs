//! Contents of events in requests.
//!
//! It has to be canonical JSON, because other servers compute hashes of it: no fractions, no integers beyond 2^53.

use ruma::serde::Raw;

use crate::{
    error::{Error, Result},
    event::{Content, parse_content},
};

/// The content of an event as the caller sent it.
///
/// <https://spec.matrix.org/v1.19/appendices/#canonical-json>
pub(crate) fn read_content<T>(raw: &Raw<T>) -> Result<Content> {
    parse_content(raw.json()).map_err(|e| Error::bad_json(e.to_string()))
}
