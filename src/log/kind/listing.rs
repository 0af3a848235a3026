//! Aliases in `aliases` and what the directory shows in `published_rooms`.

use ruma::OwnedRoomId;

use super::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{Listing, ListingChange},
    ground::position::Position,
    store,
};

impl Rows for Listing {
    /// One after the other, so that an alias can move.
    async fn write(tx: &mut Tx, facts: &[(Position, &ListingChange)]) -> DbResult<()> {
        for (_, change) in facts {
            match change {
                ListingChange::AliasAdded { alias, room_id, creator } => {
                    store::alias::insert(tx, alias, room_id, creator).await?;
                }
                ListingChange::AliasRemoved { alias, .. } => store::alias::delete(tx, alias).await?,
                ListingChange::Published { room_id, listed } => store::room::publish(tx, room_id, *listed).await?,
            }
        }
        Ok(())
    }

    /// The entry says it all.
    async fn read(_conn: &mut Conn, entries: Vec<(Position, OwnedRoomId)>) -> DbResult<Vec<(Position, Self)>> {
        Ok(entries.into_iter().map(|(at, room_id)| (at, Self { room_id })).collect())
    }
}
