//! Contents of events in requests, and who may send which request at all.

use ruma::{api::error::ErrorKind, serde::Raw};

use crate::{
    account::Caller,
    error::{Error, Result},
    event::{Content, parse_content},
};

/// The content of an event as the caller sent it.
///
/// <https://spec.matrix.org/v1.19/appendices/#canonical-json>
pub(crate) fn read_content<T>(raw: &Raw<T>) -> Result<Content> {
    parse_content(raw.json()).map_err(|e| Error::bad_json(e.to_string()))
}

/// Refuses a guest what the specification does not list for them.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#guest-access>
pub(crate) fn refuse_guest(caller: &Caller) -> Result<()> {
    if caller.guest {
        let message = "Guests can't do this: register an account";
        return Err(Error::refused(ErrorKind::GuestAccessForbidden, message));
    }
    Ok(())
}
