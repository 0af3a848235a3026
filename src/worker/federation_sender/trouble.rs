//! Why nothing more is sent to a destination for now.

use super::ledger::Lost;
use crate::{edge::federation_client::RemoteError, error::Error};

/// What ends the work on a destination before it has everything.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is to be left alone for a while.
    Remote(RemoteError),
    /// This server has failed, and the destination is not to blame.
    Here(Error),
    /// The bucket is another node's by now.
    Lost,
}

/// How many events in a row a destination has not wanted.
#[derive(Debug, Default)]
pub(super) struct Refusals(pub(super) usize);

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl From<Lost> for Trouble {
    fn from(_lost: Lost) -> Self {
        Self::Lost
    }
}
