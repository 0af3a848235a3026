//! Invitations from outside and knocks: what each user is in each such room, in `outside_memberships`.

use std::collections::HashMap;

use ruma::{OwnedRoomId, OwnedUserId};

use super::rows::{Rows, span};
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{NewOutsideMembership, OutsideMembership},
    ground::position::Position,
    store,
};

impl Rows for OutsideMembership {
    /// One row may be touched once in a statement, so of several facts about one user in one room the last is written.
    async fn write(tx: &mut Tx, facts: &[(Position, &NewOutsideMembership)]) -> DbResult<()> {
        let mut newest = HashMap::new();
        for (at, NewOutsideMembership { membership, .. }) in facts {
            newest.insert((&membership.user_id, &membership.room_id), (*at, &**membership));
        }
        store::outside_membership::upsert(tx, &newest.into_values().collect::<Vec<_>>()).await
    }

    async fn read(
        conn: &mut Conn,
        entries: Vec<(Position, (OwnedUserId, OwnedRoomId))>,
    ) -> DbResult<Vec<(Position, Self)>> {
        let (first, last) = span(&entries);
        store::outside_membership::list_between(conn, first, last).await
    }
}
