//! The way into rooms that other servers have, and out of them: joining, knocking, turning down, and inviting users of
//! other servers.
//!
//! What this server can do alone, it does ([`Rooms`]). For the rest another server is needed that is in the room: one after
//! the other is asked (`entrance/candidates.rs`) until one has done it, and if none has, the client is told what the most
//! telling of them has said (`entrance/failures.rs`). Of what they answer nothing is signed as it came
//! (`entrance/template.rs`), and nothing becomes a part of the room that has not been looked at (`entrance/arrival.rs`).
//!
//! Work that others may have seen already runs to its end, whoever hangs up: who asks again finds it done.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

mod answer;
mod arrival;
mod candidates;
mod failures;
mod invite;
mod join;
mod knock;
mod leave;
mod residents;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use tokio::sync::Semaphore;

pub(crate) use self::residents::{OtherResidents, Residents};
use crate::{
    error::{Error, Result},
    ground::{flights::Flights, tasks::Tasks},
    room::{Held, Rooms},
};

/// How many rooms are joined at once. Each may be large, and its servers slow.
const JOINS_AT_ONCE: usize = 64;

/// The way into rooms of other servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Entrance(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    tasks: Tasks,
    residents: Arc<dyn Residents>,
    /// Joins under way, by who joins what.
    joins: Flights<(OwnedUserId, OwnedRoomId), Result<(), Arc<Error>>>,
    places: Semaphore,
}

impl Entrance {
    pub(crate) fn new(rooms: Rooms, tasks: Tasks, residents: Arc<dyn Residents>) -> Self {
        let (joins, places) = (Flights::default(), Semaphore::new(JOINS_AT_ONCE));
        Self(Arc::new(Inner { rooms, tasks, residents, joins, places }))
    }

    /// Whether users can come into a room without another server's help.
    async fn can_let_in(&self, room_id: &RoomId) -> Result<bool> {
        Ok(match self.0.rooms.find_held(room_id).await? {
            Some(Held::Resident(_)) => true,
            Some(Held::Left(room)) => room.is_empty(),
            None => false,
        })
    }

    /// Those who are asked.
    fn residents(&self) -> &dyn Residents {
        &*self.0.residents
    }
}
