//! Which events of a room a server's users may see.
//!
//! A server sees what any of its users may, and all of what is not hidden from members who come later: one of its users is
//! in the room. What is hidden from these it sees where one of its users was in the room, or, as far as that is enough,
//! invited to it. Of a server with very many users in the room only some are looked at, those whose memberships have stood
//! for longest: what it does not see by these comes redacted, which is no more than a look at the room from later on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use ruma::{
    ServerName,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};

use crate::{
    error::Result,
    event::{Standing, Stored},
    ground::position::Order,
    room::{
        Room, Rooms,
        graph::{
            state::{membership_of, visibility_of},
            view::{HISTORY_VISIBILITY, hides},
        },
    },
    store,
};

/// Of how many of a server's users it is looked at when they were in the room.
const WITNESSES: usize = 100;

/// How something went over time: from each place on, ascending.
type History<T> = Vec<(Order, T)>;

/// What a server sees of a room.
pub(super) enum ServerSight {
    /// Nothing was ever hidden from members who came later.
    Everything,
    Since {
        visibility: History<HistoryVisibility>,
        witnesses: Vec<History<MembershipState>>,
    },
}

impl Rooms {
    pub(super) async fn sight_of_server(&self, room: &Room, server: &ServerName) -> Result<ServerSight> {
        if room.view(|view| !view.has_hidden_history && !view.has_gaps) {
            return Ok(ServerSight::Everything);
        }
        let (state, trunk) = room.view(|view| (view.state.clone(), view.trunk));
        let mut conn = self.0.db.read().await?;
        let versions = store::state::versions_of(&mut conn, trunk, HISTORY_VISIBILITY).await?;
        let visibility: History<HistoryVisibility> = versions
            .into_iter()
            .map(|held| (held.from, visibility_of(held.event.as_ref().map(|(_, pdu)| &**pdu))))
            .collect();
        if !visibility.iter().any(|(_, visibility)| hides(visibility)) {
            return Ok(ServerSight::Everything);
        }
        let mut own: Vec<(i64, &str)> = state
            .members()
            .filter(|member| member.user_id.server_name() == server)
            .map(|member| (member.depth(), member.user_id.as_str()))
            .collect();
        own.sort_unstable();
        let keys: Vec<&str> = own.into_iter().take(WITNESSES).map(|(_, key)| key).collect();
        let histories = store::state::versions_of_keys(&mut conn, trunk, "m.room.member", &keys).await?;
        let history = |versions: Vec<store::state::HeldSince>| {
            let from = |held: store::state::HeldSince| {
                (held.from, held.event.map_or(MembershipState::Leave, |(_, pdu)| membership_of(&pdu)))
            };
            versions.into_iter().map(from).collect()
        };
        Ok(ServerSight::Since { visibility, witnesses: histories.into_values().map(history).collect() })
    }
}

impl ServerSight {
    /// Whether that server's users may see an event. What has no place is known for being cited, or as a part of the state,
    /// which every member has.
    pub(super) fn sees(&self, event: &Stored) -> bool {
        let Self::Since { visibility, witnesses } = self else { return true };
        if event.standing == Standing::Outlier {
            return true;
        }
        // An event that makes a change is judged by the more permissive of what was and what is.
        [event.order.before(), event.order].into_iter().any(|at| match value_at(visibility, at) {
            Some(HistoryVisibility::Joined) => was(witnesses, at, &[MembershipState::Join]),
            Some(HistoryVisibility::Invited) => was(witnesses, at, &[MembershipState::Join, MembershipState::Invite]),
            _ => true,
        })
    }

    /// Whether one of the server's users was in the room when an event came, as far as is known here.
    pub(super) fn was_there(&self, event: &Stored) -> bool {
        match self {
            Self::Everything => false,
            Self::Since { witnesses, .. } => was(witnesses, event.order, &[MembershipState::Join]),
        }
    }
}

/// Whether one of some users had one of these memberships at a place.
fn was(witnesses: &[History<MembershipState>], at: Order, memberships: &[MembershipState]) -> bool {
    let had = |history: &History<MembershipState>| value_at(history, at).is_some_and(|one| memberships.contains(one));
    witnesses.iter().any(had)
}

fn value_at<T>(values: &[(Order, T)], at: Order) -> Option<&T> {
    values.iter().rev().find(|(from, _)| *from <= at).map(|(_, value)| value)
}
