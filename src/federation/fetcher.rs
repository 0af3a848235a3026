//! Fetching events from other servers: what an event cites, what it follows, the state before it, and history.
//!
//! Whatever comes is read as an event of the one room that was asked for, verified, and then kept or placed by
//! [`Rooms`]. No answer is believed beyond that: events are found again by their identifiers, which are their hashes, edges
//! are followed only among what was answered, each once, and how much is asked for, read, verified and kept is bounded
//! apart from how much comes.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

mod backfill;
mod cited;
mod missing;
mod source;
mod state;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName, room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

pub(crate) use self::{
    source::{EventSource, OtherServers, StateIds, Stretch, WholeState},
    walk::walk,
};
use super::server_keys::VerifyError;
use crate::{
    db::Db,
    edge::federation_client::RemoteError,
    error::Error,
    event::{Pdu, ReceivedPdu},
    ground::position::Order,
    room::{Resident, Rooms},
    store,
};

/// How many identifiers are looked up at once.
const LOOKED_UP: usize = 1_000;
/// How many single events are asked for at once.
const AT_ONCE: usize = 8;
/// How many servers are asked for one thing, one after the other.
const MOST_SERVERS: usize = 5;

/// Fetches events of rooms from other servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher(Arc<Inner>);

struct Inner {
    db: Db,
    rooms: Rooms,
    source: Arc<dyn EventSource>,
}

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The last server that was asked did not answer, or refused. The others had not done better.
    #[error("{0}: {1}")]
    Remote(OwnedServerName, RemoteError),
    /// All have answered, and what is needed is not in it, or not valid.
    #[error("{0}")]
    Missing(String),
    /// This server could not read or keep what came.
    #[error(transparent)]
    Own(#[from] Error),
}

impl From<crate::db::DbError> for FetchError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Own(error.into())
    }
}

impl From<FetchError> for Error {
    /// What this server asked for itself can be asked for again.
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Own(error) => error,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A room as the reading of answers needs it.
#[derive(Clone, Debug)]
pub(crate) struct OfRoom {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) rules: &'static RoomVersionRules,
}

impl OfRoom {
    pub(crate) fn new(room_id: &RoomId, rules: &'static RoomVersionRules) -> Self {
        Self { room_id: room_id.to_owned(), rules }
    }

    fn of(room: &Resident) -> Self {
        room.view(|view| Self { room_id: view.room_id.clone(), rules: view.rules })
    }
}

impl Fetcher {
    pub(crate) fn new(db: Db, rooms: Rooms, source: Arc<dyn EventSource>) -> Self {
        Self(Arc::new(Inner { db, rooms, source }))
    }

    /// Where events come from.
    pub(crate) fn source(&self) -> &dyn EventSource {
        &*self.0.source
    }

    /// The other servers in a room whom to ask about it: a few, those with the most users first.
    pub(crate) fn list_servers(&self, room: &Resident) -> Vec<OwnedServerName> {
        let here = self.0.rooms.server_name();
        let mut servers: Vec<(usize, OwnedServerName)> = room.view(|view| {
            let others = view.servers().iter().filter(|(name, _)| name.as_str() != here.as_str());
            others.map(|(name, users)| (*users, name.clone())).collect()
        });
        servers.sort_unstable_by(|(some, one), (others, other)| others.cmp(some).then_with(|| one.cmp(other)));
        servers.into_iter().take(MOST_SERVERS).map(|(_, name)| name).collect()
    }

    /// Events by their identifiers, verified, from the first of the servers that has them. Those that none has, and those
    /// that are not valid, are missing from the answer. Nothing is kept here.
    ///
    /// At most `most` are asked for.
    pub(crate) async fn fetch_events(
        &self,
        of: &OfRoom,
        servers: &[OwnedServerName],
        ids: &[OwnedEventId],
        most: usize,
    ) -> Vec<Pdu> {
        let wanted: Vec<OwnedEventId> = ids.iter().take(most).cloned().collect();
        let found = stream::iter(wanted)
            .map(|id| async move { self.fetch_event(of, servers, &id).await })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        self.verify(found).await
    }

    /// One event as the first server has it that has it. Not verified.
    async fn fetch_event(&self, of: &OfRoom, servers: &[OwnedServerName], id: &EventId) -> Option<ReceivedPdu> {
        for server in servers.iter().take(MOST_SERVERS) {
            let answer = match self.0.source.event(server, id).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%server, event_id = %id, %error, "an event could not be fetched");
                    continue;
                }
            };
            let found = read(&[answer], of, 1).pop().filter(|found| found.event_id() == id);
            if found.is_some() {
                return found;
            }
            tracing::debug!(%server, event_id = %id, "another event came than was asked for");
        }
        None
    }

    /// Those of the events whose signatures are right, in the order given. The others are logged.
    async fn verify(&self, received: Vec<ReceivedPdu>) -> Vec<Pdu> {
        if received.is_empty() {
            return Vec::new();
        }
        let ids: Vec<OwnedEventId> = received.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let verified = self.0.source.verify_all(received).await;
        let valid = |(id, verified): (OwnedEventId, Result<Pdu, VerifyError>)| {
            let refused = |error: &VerifyError| tracing::info!(event_id = %id, %error, "a fetched event is not valid");
            verified.inspect_err(refused).ok()
        };
        ids.into_iter().zip(verified).filter_map(valid).collect()
    }

    /// Those of the events that are not here at all.
    pub(crate) async fn list_unknown(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, FetchError> {
        let mut unknown = Vec::new();
        for some in ids.chunks(LOOKED_UP) {
            let wanted: Vec<&EventId> = some.iter().map(|id| &**id).collect();
            let known = store::event::keys(&mut self.0.db.read().await?, &wanted).await?;
            let known: HashSet<OwnedEventId> = known.into_iter().map(|(id, _)| id).collect();
            unknown.extend(some.iter().filter(|id| !known.contains(*id)).cloned());
        }
        Ok(unknown)
    }

    /// Those of the events that have no place in their room here: they are unknown, or outliers.
    pub(crate) async fn list_unplaced(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, FetchError> {
        let wanted: Vec<&EventId> = ids.iter().map(|id| &**id).collect();
        let known = store::event::orders(&mut self.0.db.read().await?, &wanted).await?;
        let placed: HashSet<OwnedEventId> =
            known.into_iter().filter(|(_, order)| *order != Order::START).map(|(id, _)| id).collect();
        Ok(ids.iter().filter(|id| !placed.contains(*id)).cloned().collect())
    }
}

/// The events of an answer that can be read and are of the room, each once. What goes beyond `most` is not looked at.
fn read(answer: &[Box<RawValue>], of: &OfRoom, most: usize) -> Vec<ReceivedPdu> {
    if answer.len() > most {
        tracing::debug!(room_id = %of.room_id, events = answer.len(), most, "more events came than were asked for");
    }
    let mut seen = HashSet::new();
    let readable = answer.iter().take(most).filter_map(|json| match ReceivedPdu::read(json, of.rules) {
        Ok(pdu) => Some(pdu),
        Err(error) => {
            tracing::debug!(room_id = %of.room_id, %error, "an event that was fetched can't be read");
            None
        }
    });
    readable.filter(|pdu| of.room_id == pdu.room_id() && seen.insert(pdu.event_id().to_owned())).collect()
}

/// Events by their identifiers.
fn by_id<T>(events: Vec<T>, id: impl Fn(&T) -> &EventId) -> HashMap<OwnedEventId, T> {
    events.into_iter().map(|event| (id(&event).to_owned(), event)).collect()
}

/// What comes of an answer that is none.
fn refused(server: &ServerName, error: RemoteError) -> FetchError {
    FetchError::Remote(server.to_owned(), error)
}
