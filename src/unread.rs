//! Unread counts: derived from the log and the receipts, never counted up and down in the database.
//!
//! An event is unread for a user if it notifies or highlights them, came after they joined, and lies beyond what they
//! have read: a receipt for the whole room, one for its thread, or something that they said themselves there. What those
//! say whom the user ignores at that moment does not count, whenever they said it; nor does it count as read. Only a
//! room's newest events count, 5,000 at least; which ones they are depends on nothing but the log, so that all nodes
//! tell the same.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

mod book;
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
    book::Book,
    tally::{Count, Counts},
};
use crate::{
    account_data::AccountDataBook,
    db::{Conn, Db},
    error::{Error, Result},
    position::Position,
    receipt::Receipts,
    room::{Room, Rooms, state::membership_of},
    store,
};

/// How often a count is begun again because the user's membership has changed meanwhile, or the room has grown.
const ATTEMPTS: usize = 8;
/// Counts reach back into the stretch of a room's events before the newest one: whoever never reads shall not have
/// the whole history counted each time. In tests so short that it matters.
const STRETCH: i64 = if cfg!(test) { 24 } else { 5_000 };

/// Everybody's unread counts. Cheap to clone.
#[derive(Clone)]
pub struct Unread(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    receipts: Receipts,
    account_data: AccountDataBook,
    book: Arc<Book>,
}

impl Unread {
    /// `book` has to follow the log.
    pub fn new(db: Db, rooms: Rooms, receipts: Receipts, account_data: AccountDataBook, book: Arc<Book>) -> Self {
        Self(Arc::new(Inner { db, rooms, receipts, account_data, book }))
    }

    /// What a user has not read in a room at this moment; nothing in a room that they are not in.
    pub async fn counts(&self, user_id: &UserId, room_id: &RoomId) -> Result<Counts> {
        let ignored = self.0.account_data.ignored(user_id).await?;
        for _ in 0..ATTEMPTS {
            if let Some(counts) = self.0.book.find(user_id, room_id, &ignored) {
                return Ok(counts);
            }
            let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(Counts::default()) };
            if room.view(|view| view.state.membership(user_id)) != MembershipState::Join {
                return Ok(Counts::default());
            }
            if !self.remember(user_id, room_id, &room, &ignored) {
                self.load(user_id, room_id, &room, &ignored).await?;
            }
        }
        Err(Error::Unavailable(format!("{user_id} joins and leaves {room_id} faster than can be counted")))
    }

    /// Begins a tally with nothing but what is remembered, if that is enough. The log stands still meanwhile.
    fn remember(&self, user_id: &UserId, room_id: &RoomId, room: &Room, ignored: &Arc<HashSet<OwnedUserId>>) -> bool {
        if !self.0.book.is_complete(room_id) {
            return false;
        }
        let tail = self.0.rooms.log().tail();
        let remembered = tail.catch_up(tail.reached(), |_| {
            let (joined, head) = room.view(|view| view.joined_at(user_id).map(|joined| (joined, view.head.head)))?;
            let receipts = self.0.receipts.find_own(user_id, room_id)?;
            let mut tally = Tally::new(joined, Arc::clone(ignored));
            for receipt in receipts {
                tally.receipt(&receipt);
            }
            self.0.book.keep(user_id, room_id, tally, head, &[]);
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
        loop {
            let mut snapshot = self.0.db.snapshot().await?;
            let position = store::log::last_position(&mut snapshot).await?;
            let Some((head, _)) = store::room::find_head(&mut snapshot, room_id).await? else { return Ok(()) };
            let reach = reach(&mut snapshot, room_id, head.head, position).await?;
            let Some(tally) = count(&mut snapshot, (user_id, ignored), room, reach, position).await? else {
                return Ok(());
            };
            drop(snapshot);
            self.0.rooms.log().tail().reach(position).await;
            let keep = |missed: &[_]| self.0.book.keep(user_id, room_id, tally, head.head, missed);
            if self.0.rooms.log().tail().catch_up(position, keep).is_some() {
                return Ok(());
            }
        }
    }
}

/// How many of a room's first events no longer count when it has `head` events.
fn beyond_reach(head: i64) -> i64 {
    (head / STRETCH - 1).max(0) * STRETCH
}

/// Where the last event is that no longer counts, in a room with `head` events up to `until`.
async fn reach(snapshot: &mut Conn, room_id: &RoomId, head: i64, until: Position) -> Result<Position> {
    let found = match beyond_reach(head) {
        0 => None,
        beyond => store::event::nth_newest(snapshot, room_id, until, head - beyond).await?,
    };
    Ok(found.unwrap_or(Position::START))
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
    let silent: Vec<i64> = memberships.iter().filter_map(|(_, place, _)| place.map(|at| at.0)).collect();
    let ignored: Vec<&str> = ignored.iter().map(|user| user.as_str()).collect();
    let place = (&*room_id, trunk, &tally.unread(until));
    for attention in store::event::count_attention(snapshot, place, user_id, &silent, &ignored).await? {
        tally.take(&attention);
    }
    tally.counted = until;
    Ok(Some(tally))
}

/// From where on which event held the user's membership, oldest first, and whether it is a join.
async fn own_memberships(
    snapshot: &mut Conn,
    user_id: &UserId,
    room: &Room,
) -> Result<Vec<(Position, Option<Position>, bool)>> {
    let trunk = room.view(|view| view.trunk);
    let kind = StateEventType::RoomMember.to_string();
    let versions = store::state::versions_of(snapshot, trunk, (&kind, user_id.as_str())).await?;
    let memberships = versions.into_iter().map(|held| {
        let (place, membership) = held.event.map(|(place, pdu)| (place, membership_of(&pdu))).unzip();
        (held.from, place, membership == Some(MembershipState::Join))
    });
    Ok(memberships.collect())
}

/// Where somebody who is in the room came in.
fn joined_at(memberships: &[(Position, Option<Position>, bool)]) -> Option<Position> {
    let stay = memberships.iter().rev().take_while(|(_, _, is_join)| *is_join);
    stay.last().map(|(from, ..)| *from)
}
