//! What is searched, and what for.

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedUserId, RoomId, UserId, api::client::filter::RoomEventFilter};

use super::place::ResultPlace;
use crate::{
    db::Db,
    error::{Error, Result},
    ground::{sizes::SearchSizes, tasks::Tasks},
    log::cursor::{self, KnownPlace},
    node::Duty,
    room::{Rooms, read::reading::ReadableRoom},
    store::search::Fields,
};

/// The search over all rooms. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Searches(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) db: Db,
    pub(super) rooms: Rooms,
    pub(super) sizes: SearchSizes,
    /// Held while something is taken into the index: so that one node does not index a stretch twice and discard one.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) known: KnownPlace,
}

/// In which order results come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResultOrder {
    /// The best first.
    Rank,
    /// The newest first.
    Recent,
}

/// What somebody searches for.
pub(crate) struct Criteria<'a> {
    pub(crate) reader: &'a UserId,
    pub(crate) ignored: Arc<HashSet<OwnedUserId>>,
    pub(crate) term: &'a str,
    pub(crate) fields: Fields,
    pub(crate) filter: &'a RoomEventFilter,
    pub(crate) order: ResultOrder,
    pub(crate) limit: usize,
    /// Where an earlier page ended.
    pub(crate) from: Option<ResultPlace>,
}

impl Searches {
    /// Without tasks: only searches update the index.
    pub(crate) fn new(db: Db, rooms: Rooms, sizes: SearchSizes) -> Self {
        Self(Arc::new(Inner { db, rooms, sizes, turn: tokio::sync::Mutex::default(), known: KnownPlace::default() }))
    }

    /// Starts the tasks that take the log and history into the index.
    pub(crate) fn start(db: Db, rooms: Rooms, sizes: SearchSizes, duty: Duty, tasks: &Tasks) -> Self {
        let searches = Self::new(db, rooms, sizes);
        let (db, log) = (searches.0.db.clone(), searches.0.rooms.log().clone());
        let following = cursor::follow(searches.clone(), db, log, duty.clone(), tasks.shutdown().clone());
        tasks.spawn("search index", following);
        tasks.spawn("search index of history", searches.clone().follow_history(duty, tasks.shutdown().clone()));
        searches
    }

    /// A room as the reader sees it, unless they may not or what is said there is encrypted.
    pub(super) async fn open(&self, criteria: &Criteria<'_>, room_id: &RoomId) -> Result<Option<ReadableRoom>> {
        let reading = match self.0.rooms.open(room_id, criteria.reader).await {
            Err(Error::Refused { .. }) => return Ok(None),
            opened => opened?.ignoring(Arc::clone(&criteria.ignored)),
        };
        let is_encrypted = reading.room.view(|view| view.state.get("m.room.encryption", "").is_some());
        Ok((!is_encrypted).then_some(reading))
    }
}
