//! What is read of other servers on behalf of clients: what their aliases name, their users' profiles, their directories,
//! how rooms look from outside that nobody of this server is in ([`look`]), and what is missing here of rooms that somebody
//! is in ([`history`]).
//!
//! Nothing of an answer is believed beyond what was asked, and of whom: what a server says of a room is remembered as its
//! word, and is not what another server is taken to have said. Answers are read field by field and bounded in bytes, time
//! and number. Where this server does not federate, what is elsewhere is not found.

mod alias;
mod answers;
mod asked;
mod history;
mod look;
mod profile;
mod room_elsewhere;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ruma::{OwnedEventId, OwnedRoomId, ServerName};
use tokio::sync::Semaphore;

use self::{alias::Aliases, answers::Answers};
pub(crate) use self::{
    asked::{AskedServers, RoomsWanted},
    history::{Filled, Wait},
    room_elsewhere::{ChildElsewhere, RoomElsewhere},
};
use super::{fetcher::Fetcher, remote::Remote};
use crate::{
    ground::{clock::Clock, flights::Flights, sizes::CacheSizes, tasks::Tasks, weighed::Weighed},
    room::Rooms,
};

/// For how many places in rooms history is fetched at once on this node.
const DIGS_AT_ONCE: usize = 32;

/// Reads of other servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reach(Arc<Inner>);

struct Inner {
    asked: Arc<dyn AskedServers>,
    rooms: Rooms,
    fetcher: Fetcher,
    tasks: Tasks,
    answers: Arc<Answers>,
    /// History that is being fetched, by its room and an event that is missing.
    digs: Flights<(OwnedRoomId, OwnedEventId), Dug>,
    /// For those that fetch history.
    places: Semaphore,
}

/// What came of fetching history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dug {
    /// There is more here than before.
    More,
    /// No server that was asked has it, or none answers.
    Nothing,
}

impl Reach {
    pub(crate) fn new(
        asked: Arc<dyn AskedServers>,
        (rooms, fetcher): (Rooms, Fetcher),
        (clock, tasks): (Clock, Tasks),
        sizes: &CacheSizes,
    ) -> Self {
        let (answers, digs) = (Arc::new(Answers::new(clock, sizes)), Flights::default());
        let places = Semaphore::new(DIGS_AT_ONCE);
        // Rooms ask, too, when somebody says in one what an alias names.
        rooms.ask_for_aliases(Arc::new(Aliases(Arc::clone(&asked))));
        Self(Arc::new(Inner { asked, rooms, fetcher, tasks, answers, digs, places }))
    }

    /// Over the network.
    pub(crate) fn over(
        remote: Remote,
        (rooms, fetcher): (Rooms, Fetcher),
        (clock, tasks): (Clock, Tasks),
        sizes: &CacheSizes,
    ) -> Self {
        Self::new(Arc::new(remote), (rooms, fetcher), (clock, tasks), sizes)
    }

    /// What is remembered of answers.
    pub(crate) fn cache(&self) -> Arc<dyn Weighed> {
        Arc::clone(&self.0.answers) as _
    }

    fn is_here(&self, server: &ServerName) -> bool {
        *server == *self.0.rooms.server_name()
    }
}
