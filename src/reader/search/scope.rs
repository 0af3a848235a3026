//! Where somebody searches: their rooms, each as far as they may read it.
//!
//! What they may not read must not even be counted: how many matches there are decides where a window of results
//! begins, and whether a term stands for longer words. Whoever has left a room would learn from that whether a word has
//! been said there since.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedRoomId, RoomId, events::room::member::MembershipState};

use super::searches::{Criteria, Searches};
use crate::{
    error::Result,
    ground::position::Order,
    room::read::{filter::PduFilter as _, reading::ReadableRoom, visibility::Sight},
    store::{
        self,
        search::{SearchHit, SearchedRoom},
    },
};

/// The rooms of a search, and what is known of each. Nobody looks before something has been found there.
///
/// By room. Whatever is not in it is not searched.
pub(super) struct Scope(HashMap<OwnedRoomId, VisiblePart>);

/// How much of a room the reader sees. Unknown as long as nobody has looked; `is_in` says whether they are a member.
enum VisiblePart {
    Unknown {
        is_in: bool,
    },
    /// All that was ever said there.
    All,
    /// First and last place of each stretch, ascending.
    Stretches(Vec<(Order, Order)>),
}

impl VisiblePart {
    /// The part that a sight shows.
    fn of(sight: &Sight) -> Self {
        if sight.is_everything() { Self::All } else { Self::Stretches(sight.stretches().to_vec()) }
    }

    /// For a room that may not be read, or is encrypted.
    fn nothing() -> Self {
        Self::Stretches(Vec::new())
    }

    /// What is not known is taken for visible.
    fn in_room<'a>(&'a self, room_id: &'a RoomId) -> SearchedRoom<'a> {
        let stretches = if let Self::Stretches(stretches) = self { Some(&**stretches) } else { None };
        SearchedRoom { room_id, stretches }
    }
}

impl Scope {
    /// As the index is asked for them.
    pub(super) fn rooms(&self) -> Vec<SearchedRoom<'_>> {
        self.0.iter().map(|(room_id, part)| part.in_room(room_id)).collect()
    }

    /// A hit in a room that is not searched is not seen.
    fn sees(&self, hit: &SearchHit) -> bool {
        self.0.get(&hit.room_id).is_some_and(|part| part.in_room(&hit.room_id).holds(hit.order))
    }
}

impl Searches {
    /// The rooms in which the reader is or was and wants to search.
    pub(super) async fn scope(&self, criteria: &Criteria<'_>) -> Result<Scope> {
        let memberships = store::membership::list_of_user(&mut self.0.db.read().await?, criteria.reader).await?;
        let wanted = memberships
            .into_iter()
            .filter(|membership| !membership.forgotten && !criteria.filter.passes_nothing_in(&membership.room_id));
        let part = |membership: &MembershipState| VisiblePart::Unknown { is_in: *membership == MembershipState::Join };
        Ok(Scope(wanted.map(|membership| (membership.room_id, part(&membership.membership))).collect()))
    }

    /// Leaves the hits that the reader may see. True if those were all that there are, as far as they go: where
    /// something was found that they may not see, more may follow that they may.
    pub(super) async fn look_into(
        &self,
        criteria: &Criteria<'_>,
        scope: &mut Scope,
        readings: &mut HashMap<OwnedRoomId, ReadableRoom>,
        hits: &mut Vec<SearchHit>,
    ) -> Result<bool> {
        let is_unknown = |hit: &&SearchHit| matches!(scope.0.get(&hit.room_id), Some(VisiblePart::Unknown { .. }));
        let unknown: HashSet<OwnedRoomId> = hits.iter().filter(is_unknown).map(|hit| hit.room_id.clone()).collect();
        for room_id in unknown {
            match scope.0.get(&room_id) {
                Some(VisiblePart::Unknown { is_in: true }) => {
                    let reading = self.open(criteria, &room_id).await?;
                    let part =
                        reading.as_ref().map_or_else(VisiblePart::nothing, |reading| VisiblePart::of(&reading.sight));
                    scope.0.insert(room_id.clone(), part);
                    readings.extend(reading.map(|reading| (room_id, reading)));
                }
                Some(VisiblePart::Unknown { is_in: false }) => self.look_back(criteria, scope).await?,
                _ => {}
            }
        }
        let found = hits.len();
        hits.retain(|hit| scope.sees(hit));
        Ok(hits.len() == found)
    }

    /// Finds out what the reader sees of the rooms in which they are not, of all at once: most are quiet, few are open.
    async fn look_back(&self, criteria: &Criteria<'_>, scope: &mut Scope) -> Result<()> {
        let outside = scope.0.iter().filter(|(_, part)| matches!(part, VisiblePart::Unknown { is_in: false }));
        let outside: Vec<OwnedRoomId> = outside.map(|(room_id, _)| room_id.clone()).collect();
        let rooms: Vec<&RoomId> = outside.iter().map(AsRef::as_ref).collect();
        let sights = self.0.rooms.sights(&rooms, criteria.reader).await?;
        for room_id in outside {
            let sight = sights.get(&room_id).filter(|sight| sight.was_member() || sight.is_world_readable());
            scope.0.insert(room_id, sight.map_or_else(VisiblePart::nothing, VisiblePart::of));
        }
        Ok(())
    }
}
