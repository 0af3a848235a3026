//! What comes of asking several servers for one thing of which none has done it.

use ruma::{OwnedServerName, ServerName};

use crate::{
    edge::federation_client::RemoteError,
    error::{Error, Result},
    room::graph::rooms::no_entry,
};

/// Why something was not done by the help of one server.
#[derive(Debug)]
pub(super) enum Failed {
    /// Another one may do better.
    There(RemoteError),
    /// With no other it would be different.
    Here(Error),
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        Self::There(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

/// Of those that were asked, the one that has said most, and what that was.
#[derive(Debug, Default)]
pub(super) struct Failures(Option<(OwnedServerName, RemoteError)>);

impl Failures {
    /// Notes why a server was no help. An error where no other would be.
    pub(super) fn note(&mut self, server: &ServerName, failed: Failed) -> Result<()> {
        let error = match failed {
            Failed::Here(error) => return Err(error),
            Failed::There(error) => error,
        };
        tracing::info!(%server, %error, "a server has not helped with a room");
        if is_final(&error) {
            return Err(error.for_client(server));
        }
        let is_more = |known: &RemoteError| weight(&error) > weight(known);
        if self.0.as_ref().is_none_or(|(_, known)| is_more(known)) {
            self.0 = Some((server.to_owned(), error));
        }
        Ok(())
    }

    /// What a client is told. Where nobody was asked, as much as of a room that is not there.
    pub(super) fn into_error(self) -> Error {
        self.0.map_or_else(no_entry, |(server, error)| error.for_client(&server))
    }
}

/// Every server of the room would say that.
fn is_final(error: &RemoteError) -> bool {
    matches!(code(error), Some("M_INCOMPATIBLE_ROOM_VERSION" | "M_UNSUPPORTED_ROOM_VERSION"))
}

/// How much an error says: that a server can't be reached says less than that it does not know the room, and that less
/// than that the room is closed.
fn weight(error: &RemoteError) -> u8 {
    match error {
        RemoteError::Off | RemoteError::NotAllowed => 0,
        RemoteError::Unreachable(_) => 1,
        RemoteError::Malformed(_) => 2,
        RemoteError::Refused { .. } => match code(error) {
            Some("M_FORBIDDEN" | "M_UNABLE_TO_AUTHORISE_JOIN" | "M_UNABLE_TO_GRANT_JOIN") => 5,
            Some("M_NOT_FOUND") => 4,
            _ => 3,
        },
    }
}

fn code(error: &RemoteError) -> Option<&str> {
    match error {
        RemoteError::Refused { errcode, .. } => errcode.as_deref(),
        _ => None,
    }
}
