//! An event that is the whole body of a request and is named in its path.

use ruma::api::error::DeserializationError;

use crate::{api::own::read_path, federation::handshakes::SentEvent};

/// `path` has the room and the event.
pub(super) fn read_sent(request: &http::Request<&[u8]>, path: &[&str]) -> Result<SentEvent, DeserializationError> {
    let (room_id, event_id) = read_path(path)?;
    Ok(SentEvent { room_id, event_id, json: serde_json::from_slice(request.body())? })
}
