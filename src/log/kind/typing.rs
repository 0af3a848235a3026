//! Who types, in `typing`. Whoever is out of a room does not type there, however briefly they have been out.

use std::collections::{HashMap, HashSet};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState,
};

use super::rows::{Rows, each_once};
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{Fact, NewEvent, Typing, Write},
    ground::position::Position,
    store::{self, membership::MembershipRow},
};

/// Of some users, who is in which of some rooms.
pub(in crate::log) type JoinedPairs = HashSet<(OwnedRoomId, OwnedUserId)>;

/// Who ceases to be in a room, each at the last place where they do.
pub(in crate::log) type GoneUsers<'a> = HashMap<(&'a RoomId, &'a UserId), Position>;

impl Rows for Typing {
    async fn write(tx: &mut Tx, facts: &[(Position, &Self)]) -> DbResult<()> {
        let newest: HashMap<_, _> =
            facts.iter().map(|(at, typing)| ((&typing.room_id, &typing.user_id), (*at, *typing))).collect();
        let rows: Vec<_> = newest.into_values().collect();
        store::ephemeral::upsert_typing(tx, &rows).await
    }

    /// As it is now, whatever stood there.
    async fn read(
        conn: &mut Conn,
        entries: Vec<(Position, (OwnedRoomId, OwnedUserId))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        let rooms = each_once(entries.iter().map(|(_, (room_id, _))| &**room_id));
        let users = each_once(entries.iter().map(|(_, (_, user_id))| &**user_id));
        let found = store::ephemeral::list_typing_of(conn, &rooms, &users).await?;
        let now: HashMap<(OwnedRoomId, OwnedUserId), Option<MilliSecondsSinceUnixEpoch>> =
            found.into_iter().map(|typing| ((typing.room_id, typing.user_id), typing.until)).collect();
        let typing = |(at, whose): (Position, (OwnedRoomId, OwnedUserId))| {
            let until = now.get(&whose).copied().flatten();
            let (room_id, user_id) = whose;
            (at, Self { room_id, user_id, until })
        };
        Ok(entries.into_iter().map(typing).collect())
    }
}

/// The rooms in which somebody begins to type, and who, pair by pair: whether they are there is asked in the database.
pub(in crate::log) fn list_begun(writes: &[Write]) -> (Vec<&RoomId>, Vec<&UserId>) {
    let facts = writes.iter().flat_map(|write| &write.facts);
    let typing = facts.filter_map(|fact| if let Fact::Typing(typing) = fact { Some(typing) } else { None });
    typing.filter(|typing| typing.until.is_some()).map(|typing| (&*typing.room_id, &*typing.user_id)).unzip()
}

/// The places of facts by which somebody begins to type in a room that they are not in there, or no longer are by the
/// end of the batch, even if they have come back. `joined` is how it was before the batch.
pub(in crate::log) fn list_outside(
    events: &[(Position, &NewEvent)],
    facts: &[(Position, &Typing)],
    joined: &JoinedPairs,
) -> HashSet<Position> {
    let begun: Vec<_> = facts.iter().copied().filter(|(_, typing)| typing.until.is_some()).collect();
    if begun.is_empty() {
        return HashSet::new();
    }
    let mut changes: HashMap<(&RoomId, &UserId), Vec<(Position, bool)>> = HashMap::new();
    for (at, event) in events {
        let changed = event.changes.iter().filter_map(|change| MembershipRow::of(change, event.pdu.room_id(), *at));
        for MembershipRow { user_id, room_id, state, position } in changed {
            changes.entry((room_id, user_id)).or_default().push((position, state == MembershipState::Join));
        }
    }
    let is_outside = |(at, typing): &(Position, &Typing)| {
        // They lie in the order of the log, so the last one before the fact says how it was at its place.
        let changes = changes.get(&(&*typing.room_id, &*typing.user_id)).map_or(&[][..], Vec::as_slice);
        let before = changes.iter().rev().find(|(changed, _)| changed < at).map(|(_, is_in)| *is_in);
        let is_in = before.unwrap_or_else(|| joined.contains(&(typing.room_id.clone(), typing.user_id.clone())));
        !is_in || changes.iter().any(|(changed, is_in)| changed > at && !is_in)
    };
    begun.into_iter().filter(is_outside).map(|(at, _)| at).collect()
}

/// Has those who are gone stop typing who did so before the batch. Readers have it from the change of membership. Only
/// the table is changed here. Without this, somebody who comes back would seem to type on.
pub(in crate::log) async fn end(tx: &mut Tx, gone: &GoneUsers<'_>) -> DbResult<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let (rooms, users): (Vec<&RoomId>, Vec<&UserId>) = gone.keys().copied().unzip();
    let typing = store::ephemeral::list_typing_of(tx, &rooms, &users).await?;
    let ended: Vec<(Position, Typing)> = typing
        .into_iter()
        .filter(|typing| typing.until.is_some())
        .filter_map(|typing| {
            let at = gone.get(&(&*typing.room_id, &*typing.user_id))?;
            // At the place of the change, so that a reader of the table sees when it was.
            Some((*at, Typing { until: None, ..typing }))
        })
        .collect();
    let rows: Vec<(Position, &Typing)> = ended.iter().map(|(at, typing)| (*at, typing)).collect();
    store::ephemeral::upsert_typing(tx, &rows).await
}
