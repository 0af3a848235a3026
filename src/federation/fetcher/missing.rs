//! The events that lie between an event and what is here of its room.

use std::collections::{BTreeSet, HashMap};

use ruma::{OwnedEventId, ServerName};

use super::{FetchError, Fetcher, OfRoom, Stretch, by_id, read, walk};
use crate::{
    event::{Pdu, ReceivedPdu},
    room::Resident,
};

/// How many events are asked for at once. Other servers return no more.
const LIMIT: u32 = 20;
/// How often it is asked for what is still missing: so many rounds lead over a gap of 200 events. What goes beyond comes as
/// history, when somebody wants to read it.
const ROUNDS: usize = 10;
/// How many ends are named in a request.
const MOST_NAMED: usize = 20;

impl Fetcher {
    /// What `pdu` follows and is not here, as far as `from` says: verified, each after those of them that it follows. Not
    /// all of it need be there, and where the server does not answer there is nothing.
    pub(crate) async fn list_missing_before(
        &self,
        room: &Resident,
        pdu: &Pdu,
        from: &ServerName,
    ) -> Result<Vec<Pdu>, FetchError> {
        let of = OfRoom::of(room);
        let mut found: HashMap<OwnedEventId, Pdu> = HashMap::new();
        let mut open = self.list_unplaced(pdu.prev_events()).await?;
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            let stretch = Stretch {
                room_id: of.room_id.clone(),
                earliest: newest_ends(room),
                latest: followers(pdu, &found, &open),
                limit: LIMIT,
            };
            let answer = match self.0.source.missing_events(from, stretch).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(server = %from, room_id = %of.room_id, %error, "missing events can't be fetched");
                    break;
                }
            };
            let received = by_id(read(&answer, &of, LIMIT as usize), ReceivedPdu::event_id);
            // Only what leads to the event is worth verifying.
            let reached = walk(&open, received, ReceivedPdu::prev_events);
            let verified = self.verify(reached).await;
            if verified.is_empty() {
                break;
            }
            found.extend(verified.into_iter().map(|pdu| (pdu.event_id().to_owned(), pdu)));
            open = self.list_still_missing(pdu, &found).await?;
        }
        Ok(walk(pdu.prev_events(), found, Pdu::prev_events))
    }

    /// What an event and those that were found follow and is neither here nor among them.
    async fn list_still_missing(
        &self,
        pdu: &Pdu,
        found: &HashMap<OwnedEventId, Pdu>,
    ) -> Result<Vec<OwnedEventId>, FetchError> {
        let followed = found.values().flat_map(Pdu::prev_events).chain(pdu.prev_events());
        let wanted: BTreeSet<&OwnedEventId> = followed.filter(|id| !found.contains_key(*id)).collect();
        self.list_unplaced(&wanted.into_iter().cloned().collect::<Vec<_>>()).await
    }
}

/// The newest of a room's extremities.
fn newest_ends(room: &Resident) -> Vec<OwnedEventId> {
    room.view(|view| view.head.extremities.iter().rev().take(MOST_NAMED).cloned().collect())
}

/// Those of the events that follow what is missing.
fn followers(pdu: &Pdu, found: &HashMap<OwnedEventId, Pdu>, open: &[OwnedEventId]) -> Vec<OwnedEventId> {
    let follows = |pdu: &&Pdu| pdu.prev_events().iter().any(|id| open.contains(id));
    let ids = found.values().chain([pdu]).filter(follows).map(Pdu::event_id);
    ids.take(MOST_NAMED).map(ToOwned::to_owned).collect()
}
