//! Whom to ask about a room that another server is needed for.
//!
//! Identifiers of rooms name no server any more since version 12, so it matters whom the client names, who has invited the
//! user, and who is known of the room from elsewhere.
//!
//! <https://spec.matrix.org/v1.19/appendices/#routing>

use std::collections::HashSet;

use ruma::{OwnedServerName, OwnedUserId, RoomId, ServerName, UserId, events::AnyStrippedStateEvent, serde::Raw};

use super::Entrance;
use crate::{error::Result, event::fact::OutsideMembership, room::Held};

/// How many servers are asked for one thing, one after the other.
const MOST: usize = 12;
/// How many of them a client may name.
const MOST_NAMED: usize = 8;

impl Entrance {
    /// The servers to ask about a room on behalf of a user, in the order of what is to be hoped of them: those that the
    /// client names, that of who has invited the user, the one in the room's identifier, those of whom else is known
    /// from outside, and those that were in the room when it was last known here.
    pub(super) async fn candidates(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        via: &[OwnedServerName],
    ) -> Result<Vec<OwnedServerName>> {
        let rooms = &self.0.rooms;
        let outside = rooms.find_outside_membership(room_id, user_id).await?;
        let held = rooms.find_held(room_id).await?;
        let named = via.iter().take(MOST_NAMED).cloned();
        let (inviter, known) = outside.as_ref().map_or_else(Default::default, speakers);
        let of_room = room_id.server_name().map(ToOwned::to_owned);
        let all = named.chain(inviter).chain(of_room).chain(known).chain(held.iter().flat_map(servers));
        Ok(in_order(rooms.server_name(), all))
    }
}

/// Each once and at most [`MOST`], without this server.
fn in_order(here: &ServerName, servers: impl IntoIterator<Item = OwnedServerName>) -> Vec<OwnedServerName> {
    let mut seen = HashSet::from([here.to_owned()]);
    servers.into_iter().filter(|server| seen.insert(server.clone())).take(MOST).collect()
}

/// The server of who has made somebody what they are outside, and those of whom else that says something.
fn speakers(outside: &OutsideMembership) -> (Option<OwnedServerName>, Vec<OwnedServerName>) {
    let sender = |event: &Raw<AnyStrippedStateEvent>| {
        let sender: OwnedUserId = event.get_field("sender").ok()??;
        Some(sender.server_name().to_owned())
    };
    let others = outside.stripped_state.iter().filter_map(sender);
    (Some(outside.sender.server_name().to_owned()), others.collect())
}

/// Those with the most users first.
fn servers(room: &Held) -> Vec<OwnedServerName> {
    let mut servers: Vec<(usize, OwnedServerName)> =
        room.view(|view| view.servers().iter().map(|(name, users)| (*users, name.clone())).collect());
    servers.sort_unstable_by(|(some, one), (others, other)| others.cmp(some).then_with(|| one.cmp(other)));
    servers.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn each_is_asked_once_and_never_this_server() {
        let names = |names: &[&str]| -> Vec<OwnedServerName> {
            names.iter().map(|name| OwnedServerName::try_from(*name).unwrap()).collect()
        };
        let asked = in_order(server_name!("here"), names(&["a", "here", "b", "a", "c"]));
        assert_eq!(asked, names(&["a", "b", "c"]));
        let many = (0..100).map(|count| OwnedServerName::try_from(format!("s{count}")).unwrap());
        assert_eq!(in_order(server_name!("here"), many).len(), MOST);
    }
}
