//! The servers of a room's members, counted.
//!
//! A server is in a room while one of its users has joined it.

use std::collections::BTreeMap;

use ruma::{OwnedServerName, UserId};

/// The servers of those who have joined a room, each with how many they are. In the order of their names, none with zero.
pub type Servers = BTreeMap<OwnedServerName, usize>;

/// Counts somebody who has come or gone.
pub(super) fn count_server(servers: &mut Servers, user_id: &UserId, has_come: bool) {
    let server = user_id.server_name();
    let count = servers.get(server).copied().unwrap_or_default();
    match if has_come { count + 1 } else { count.saturating_sub(1) } {
        0 => drop(servers.remove(server)),
        count => drop(servers.insert(server.to_owned(), count)),
    }
}
