//! Why an address cannot be listened on, in words for the operator.
//!
//! The five that happen have advice of their own; the rest repeats what the system says.

use std::io;

use super::tls::CertificateError;
use crate::{config::ListenAddress, ground::cause};

/// What the system said of an address, or of the certificate for it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("address {0} is in use: is another hearth running? Stop it, or change `listen`")]
    InUse(ListenAddress),
    #[error("address {0} is not one of this machine's; change `listen`, for instance to 0.0.0.0 for all of them")]
    NotHere(ListenAddress),
    #[error("listening on {0} is not permitted; ports below 1024 and folders of others need more rights")]
    NotPermitted(ListenAddress),
    #[error("{0} names a file that is not a socket; move it away, or change `listen`")]
    NotASocket(ListenAddress),
    /// Only of unix sockets.
    #[error("the folder of {0} does not exist; make it, or change `listen`")]
    NoFolder(ListenAddress),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot listen on {address}: {}", cause::in_words(error))]
    Other { address: ListenAddress, error: io::Error },
}

impl BindError {
    /// For what `bind` and `listen` return; [`Self::NotASocket`] is found out before.
    pub(super) fn new(address: &ListenAddress, error: io::Error) -> Self {
        let address = address.clone();
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(address),
            io::ErrorKind::PermissionDenied => Self::NotPermitted(address),
            io::ErrorKind::NotFound => Self::NoFolder(address),
            _ => Self::Other { address, error },
        }
    }
}
