//! Unread counts: derived from the log and the receipts, never counted up and down in the database.
//!
//! An event is unread for a user if it notifies or highlights them, came after they joined, and lies beyond what they
//! have read: a receipt for the whole room, one for its thread, or something that they said themselves there. What
//! those say whom the user ignores at that moment does not count, whenever they said it; nor does it count as read.
//! Only a room's newest events count, 5,000 at least; which ones they are depends on nothing but the log, so that all
//! nodes count the same.
//!
//! Both ways to count are of one meaning: what is in memory ([`UnreadCache`]) and, where that does not reach back, one
//! query over what the user has not read ([`store::attention::count`]).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

mod cache;
mod tally;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};

use self::tally::Tally;
pub use self::{
    cache::UnreadCache,
    tally::{Count, Counts},
};
use crate::{
    db::{Conn, Db},
    ephemeral::receipt::Receipts,
    error::{Error, Result},
    ground::position::{EventKey, Position},
    people::account_data::AccountDataOfUsers,
    room::{Room, Rooms, graph::state::membership_of},
    store,
};

/// How often a count is begun again because the user's membership has changed meanwhile, or the room has grown.
const ATTEMPTS: usize = 8;
/// Everybody's unread counts. Cheap to clone.
#[derive(Clone)]
pub struct Unread(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    receipts: Receipts,
    account_data: AccountDataOfUsers,
    cache: Arc<UnreadCache>,
}

impl Unread {
    /// `cache` has to follow the log.
    pub fn new(
        db: Db,
        rooms: Rooms,
        receipts: Receipts,
        account_data: AccountDataOfUsers,
        cache: Arc<UnreadCache>,
    ) -> Self {
        Self(Arc::new(Inner { db, rooms, receipts, account_data, cache }))
    }

    /// What a user has not read in a room at this moment; nothing in a room that they are not in.
    pub async fn counts(&self, user_id: &UserId, room_id: &RoomId) -> Result<Counts> {
        let ignored = self.0.account_data.ignored(user_id).await?;
        self.counts_of(user_id, room_id, &ignored).await
    }

    /// Whether a user's counts are others in a room if they ignore these now and ignored those `before`. Where it is
    /// not known whom they ignored, they may be.
    pub async fn are_others(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        before: Option<&Arc<HashSet<OwnedUserId>>>,
        now: &Arc<HashSet<OwnedUserId>>,
    ) -> Result<bool> {
        let Some(before) = before else { return Ok(true) };
        let counts_before = self.counts_of(user_id, room_id, before).await?;
        Ok(counts_before != self.counts_of(user_id, room_id, now).await?)
    }

    /// The counts of a user who ignores just these others.
    pub(crate) async fn counts_of(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        ignored: &Arc<HashSet<OwnedUserId>>,
    ) -> Result<Counts> {
        // Again where a tally that was just counted is void already.
        for _ in 0..ATTEMPTS {
            if let Some(counts) = self.0.cache.find(user_id, room_id, ignored) {
                return Ok(counts);
            }
            let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(Counts::default()) };
            if room.view(|view| view.state.membership(user_id)) != MembershipState::Join {
                return Ok(Counts::default());
            }
            if !self.remember(user_id, room_id, &room, ignored) {
                self.load(user_id, room_id, &room, ignored).await?;
            }
        }
        Err(Error::Unavailable(format!("{user_id} joins and leaves {room_id} faster than can be counted")))
    }

    /// Begins a tally with nothing but what is remembered, if that is enough. The log stands still meanwhile.
    ///
    /// True where nothing more has to be read. Whether the tally was kept shows with the next look for it.
    fn remember(&self, user_id: &UserId, room_id: &RoomId, room: &Room, ignored: &Arc<HashSet<OwnedUserId>>) -> bool {
        if !self.0.cache.is_complete(room_id) {
            return false;
        }
        let tail = self.0.rooms.log().tail();
        let remembered = tail.catch_up(tail.reached(), |_| {
            let (joined, head) =
                room.view(|view| view.joined_at(user_id).map(|joined| (joined.floor(), view.head.head)))?;
            let receipts = self.0.receipts.find_own(user_id, room_id)?;
            let mut tally = Tally::new(joined, Arc::clone(ignored));
            for receipt in receipts {
                tally.receipt(&receipt);
            }
            self.0.cache.keep(user_id, room_id, tally, head, &[]);
            Some(())
        });
        remembered.flatten().is_some()
    }

    /// Counts in the database.
    async fn load(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        room: &Room,
        ignored: &Arc<HashSet<OwnedUserId>>,
    ) -> Result<()> {
        // Again where the log has gone too far ahead to be caught up with.
        loop {
            let tail = self.0.rooms.log().tail();
            let mut snapshot = tail.snapshot(&self.0.db).await?;
            let position = snapshot.position();
            // No such room in this snapshot: the next round finds out why.
            let Some((head, _)) = store::room::find_head(&mut snapshot, room_id).await? else { return Ok(()) };
            let reach = self.reach(&mut snapshot, room_id, head.head, position).await?;
            let Some(tally) = count(&mut snapshot, (user_id, ignored), room, reach, position).await? else {
                return Ok(());
            };
            snapshot.close().await;
            let keep = |missed: &[_]| self.0.cache.keep(user_id, room_id, tally, head.head, missed);
            if tail.catch_up(position, keep).is_some() {
                return Ok(());
            }
        }
    }

    /// Where the last event is that no longer counts, in a room with `head` events up to `until`.
    async fn reach(&self, snapshot: &mut Conn, room_id: &RoomId, head: i64, until: Position) -> Result<Position> {
        let found = match self.0.cache.beyond_reach(head) {
            // As far as the cache reaches, so that both ways count alike.
            0 => None,
            beyond => store::attention::nth_newest(snapshot, room_id, until, head - beyond).await?,
        };
        Ok(found.unwrap_or(Position::START))
    }
}

/// The tally of a user who has joined and ignores these others, as the database has it after `from` and up to `until`.
async fn count(
    snapshot: &mut Conn,
    (user_id, ignored): (&UserId, &Arc<HashSet<OwnedUserId>>),
    room: &Room,
    from: Position,
    until: Position,
) -> Result<Option<Tally>> {
    let memberships = own_memberships(snapshot, user_id, room).await?;
    let Some(joined) = joined_at(&memberships) else { return Ok(None) };
    let (room_id, trunk) = room.view(|view| (view.room_id.clone(), view.trunk));
    let mut tally = Tally::new(joined.max(from), Arc::clone(ignored));
    for (_, receipt) in store::ephemeral::receipts_of(snapshot, &room_id, user_id).await? {
        tally.receipt(&receipt);
    }
    // These are no words of the user's: who joins or changes their name has read nothing by that.
    let silent: Vec<i64> = memberships.iter().filter_map(|(_, place, _)| place.map(|at| at.0)).collect();
    let ignored: Vec<&str> = ignored.iter().map(|user| user.as_str()).collect();
    let place = (&*room_id, trunk, &tally.unread(until));
    for attention in store::attention::count(snapshot, place, user_id, &silent, &ignored).await? {
        tally.take(&attention);
    }
    tally.counted = until;
    Ok(Some(tally))
}

/// From where on which event held the user's membership, oldest first, and whether it is a join.
///
/// In the trunk of the room: what was there at each moment. None for the event where the key is gone.
async fn own_memberships(
    snapshot: &mut Conn,
    user_id: &UserId,
    room: &Room,
) -> Result<Vec<(Position, Option<EventKey>, bool)>> {
    let trunk = room.view(|view| view.trunk);
    let kind = StateEventType::RoomMember.to_string();
    let versions = store::state::versions_of(snapshot, trunk, (&kind, user_id.as_str())).await?;
    let memberships = versions.into_iter().map(|held| {
        let (place, membership) = held.event.map(|(place, pdu)| (place, membership_of(&pdu))).unzip();
        (held.from.floor(), place, membership == Some(MembershipState::Join))
    });
    Ok(memberships.collect())
}

/// Where somebody who is in the room came in.
fn joined_at(memberships: &[(Position, Option<EventKey>, bool)]) -> Option<Position> {
    let stay = memberships.iter().rev().take_while(|(_, _, is_join)| *is_join);
    stay.last().map(|(from, ..)| *from)
}
