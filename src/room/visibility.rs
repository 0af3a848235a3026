//! Who may read which event: one function for every read path.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::sync::Arc;

use ruma::{
    UserId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use serde::Deserialize;

use super::{Room, Rooms, state::membership_of};
use crate::{
    db::Conn,
    error::Result,
    event::{Pdu, Stored},
    position::Position,
    store::{self, room::Lineage},
};

/// What one user may see of one room: how its visibility and the user's membership went over time.
#[derive(Clone, Debug)]
pub struct Sight {
    /// From each place on, ascending. Before the first there is no such state.
    visibility: Vec<(Position, HistoryVisibility)>,
    membership: Vec<(Position, MembershipState)>,
}

impl Sight {
    /// Whether the user may read an event.
    ///
    /// The event that changes the visibility or the user's own membership is judged by the more permissive of
    /// what was before it and what is after it.
    pub fn sees(&self, event: &Stored) -> bool {
        let at = event.position;
        self.sees_at(at.before(), at) || self.sees_at(at, at)
    }

    /// With visibility and membership as they were just after `then`, for an event at `at`.
    fn sees_at(&self, then: Position, at: Position) -> bool {
        let visibility = value_at(&self.visibility, then).unwrap_or(&HistoryVisibility::Shared);
        let membership = value_at(&self.membership, then).unwrap_or(&MembershipState::Leave);
        if *visibility == HistoryVisibility::WorldReadable || *membership == MembershipState::Join {
            return true;
        }
        match visibility {
            HistoryVisibility::Shared => self.joins_after(at),
            HistoryVisibility::Invited => *membership == MembershipState::Invite,
            _ => false,
        }
    }

    /// Whether the user joined at some point after an event.
    fn joins_after(&self, at: Position) -> bool {
        self.membership.iter().any(|(from, membership)| *from > at && *membership == MembershipState::Join)
    }

    /// Whether the user is or was in the room.
    pub fn was_member(&self) -> bool {
        self.membership.iter().any(|(_, membership)| *membership == MembershipState::Join)
    }

    /// The user's membership just after `at`.
    pub fn membership_at(&self, at: Position) -> MembershipState {
        value_at(&self.membership, at).cloned().unwrap_or(MembershipState::Leave)
    }

    /// Whether anybody may read the room as it is now.
    pub fn is_world_readable(&self) -> bool {
        self.visibility.last().is_some_and(|(_, visibility)| *visibility == HistoryVisibility::WorldReadable)
    }
}

fn value_at<T>(values: &[(Position, T)], at: Position) -> Option<&T> {
    values.iter().rev().find(|(from, _)| *from <= at).map(|(_, value)| value)
}

impl Rooms {
    /// What a user may see of a room.
    pub async fn sight(&self, room: &Room, user_id: &UserId) -> Result<Sight> {
        let trunk = room.view(|view| view.trunk);
        let mut conn = self.0.db.read().await?;
        let visibility = history(&mut conn, trunk, "m.room.history_visibility", "").await?;
        let membership = history(&mut conn, trunk, "m.room.member", user_id.as_str()).await?;
        Ok(Sight {
            visibility: visibility.into_iter().map(|(from, pdu)| (from, visibility_of(pdu.as_deref()))).collect(),
            membership: membership
                .into_iter()
                .map(|(from, pdu)| (from, pdu.as_ref().map_or(MembershipState::Leave, membership_of)))
                .collect(),
        })
    }
}

/// Every event that a key has had, with where it began to hold.
async fn history(
    conn: &mut Conn,
    trunk: Lineage,
    kind: &str,
    state_key: &str,
) -> Result<Vec<(Position, Option<Arc<Pdu>>)>> {
    let versions = store::state::versions_of(conn, trunk, kind, state_key).await?;
    let places: Vec<i64> = versions.iter().filter_map(|(_, event)| event.map(|at| at.0)).collect();
    let events = store::event::list_at(conn, &places).await?;
    let find = |place: Position| events.iter().find(|e| e.position == place).map(|e| Arc::clone(&e.pdu));
    Ok(versions.into_iter().map(|(from, place)| (from, place.and_then(find))).collect())
}

fn visibility_of(pdu: Option<&Pdu>) -> HistoryVisibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    pdu.and_then(|pdu| pdu.content_as::<Content>().ok())
        .map_or(HistoryVisibility::Shared, |content| content.history_visibility)
}
