//! Who made a request, for the line that the log has of it: known at the earliest while it is being answered.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

/// In the extensions of a request whose line will be logged; others have none. Clones are the same visitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitor(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    address: Option<IpAddr>,
    user_id: Option<OwnedUserId>,
}

impl Visitor {
    /// Notes where the request comes from, as far as trusted proxies and other nodes tell.
    pub(crate) fn comes_from(&self, address: IpAddr) {
        self.0.lock().address = Some(address);
    }

    /// Notes whose token the request has.
    pub(crate) fn is(&self, user_id: &UserId) {
        self.0.lock().user_id = Some(user_id.to_owned());
    }

    pub(super) fn address(&self) -> Option<String> {
        self.0.lock().address.map(|address| address.to_string())
    }

    pub(super) fn user_id(&self) -> Option<String> {
        self.0.lock().user_id.as_ref().map(ToString::to_string)
    }
}
