//! Who made a request, for the line that the log has of it: known at the earliest while it is being answered.
//!
//! It is filled by whoever finds out: the address by the listener or by the node that forwarded the request, the user
//! by authentication.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

/// In the extensions of a request whose line will be logged; others have none. Clones share what is known of the
/// caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoggedCaller(Arc<Mutex<LoggedCallerFields>>);

#[derive(Debug, Default)]
struct LoggedCallerFields {
    address: Option<IpAddr>,
    user_id: Option<OwnedUserId>,
}

impl LoggedCaller {
    /// Notes where the request comes from, as far as trusted proxies and other nodes report it.
    pub(crate) fn set_address(&self, address: IpAddr) {
        self.0.lock().address = Some(address);
    }

    /// Notes whose token the request has.
    pub(crate) fn set_user(&self, user_id: &UserId) {
        self.0.lock().user_id = Some(user_id.to_owned());
    }

    pub(super) fn address(&self) -> Option<String> {
        self.0.lock().address.map(|address| address.to_string())
    }

    pub(super) fn user_id(&self) -> Option<String> {
        self.0.lock().user_id.as_ref().map(ToString::to_string)
    }
}
