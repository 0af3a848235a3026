//! History from before what is here of a room: chunks that other servers return, made fit to be placed.
//!
//! A chunk can be placed if everything that its events cite is here, and the state before those that follow what is
//! neither here nor in the chunk. What can't be made so is left out: it comes with a later chunk, or from another server.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use std::collections::{BTreeSet, HashMap, HashSet};

use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};

use super::{FetchError, Fetcher, MOST_SERVERS, OfRoom, by_id, read, refused, walk};
use crate::{
    event::{Pdu, ReceivedPdu},
    room::{Resident, graph::history::Chunk},
    store,
};

/// How many events are asked for at once.
const MOST: u32 = 100;
/// For how many events of a chunk an auth chain is fetched.
const MOST_CHAINS: usize = 10;
/// For how many events of a chunk the state before them is fetched. Where history has not forked it is one.
const MOST_STATES: usize = 5;

/// A chunk in the making.
struct Gathered {
    events: HashMap<OwnedEventId, Pdu>,
    /// What they follow and is neither here nor among them.
    absent: HashSet<OwnedEventId>,
    states: HashMap<OwnedEventId, Vec<OwnedEventId>>,
}

impl Fetcher {
    /// Fetches up to `limit` events before some of a room, or those themselves where they are not here, from the first of
    /// the servers that has any, and gives them their places. Returns how many are new here.
    ///
    /// None, and no error, where all servers have answered and none has had more.
    pub(crate) async fn backfill(
        &self,
        room: &Resident,
        before: &[OwnedEventId],
        limit: u32,
        servers: &[OwnedServerName],
    ) -> Result<usize, FetchError> {
        let mut last = None;
        for server in servers.iter().take(MOST_SERVERS) {
            match self.backfill_from(room, before, limit.clamp(1, MOST), server).await {
                Ok(0) => {}
                Err(error @ FetchError::Own(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!(%server, %error, "history could not be fetched");
                    last = Some(error);
                }
                placed => return placed,
            }
        }
        last.map_or(Ok(0), Err)
    }

    async fn backfill_from(
        &self,
        room: &Resident,
        before: &[OwnedEventId],
        limit: u32,
        server: &ServerName,
    ) -> Result<usize, FetchError> {
        let of = OfRoom::of(room);
        let answer = self.0.source.backfill(server, &of.room_id, before, limit).await;
        let answer = answer.map_err(|error| refused(server, error))?;
        // Some servers count the events that were named, others don't.
        let most = (limit as usize).saturating_add(before.len());
        let mut received = by_id(read(&answer, &of, most), ReceivedPdu::event_id);
        drop(answer);
        let ids: Vec<OwnedEventId> = received.keys().cloned().collect();
        let new: BTreeSet<OwnedEventId> = self.list_unplaced(&ids).await?.into_iter().collect();
        received.retain(|id, _| new.contains(id));
        let from = self.list_starts(before).await?;
        let verified = self.verify(walk(&from, received, ReceivedPdu::prev_events)).await;
        let chunk = Box::pin(self.make_whole(room, verified, &from, server)).await?;
        let count = chunk.events.len();
        if count > 0 {
            self.0.rooms.insert_history(&of.room_id, &chunk).await?;
        }
        Ok(count)
    }

    /// Where a walk into the past begins: with the events before which somebody wants to read, and with what those of
    /// them follow that are here.
    async fn list_starts(&self, before: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, FetchError> {
        let wanted: Vec<&EventId> = before.iter().map(|id| &**id).collect();
        let known = store::event::list(&mut self.0.db.read().await?, &wanted).await?;
        let followed = known.iter().flat_map(|event| event.pdu.prev_events());
        Ok(before.iter().chain(followed).cloned().collect())
    }

    /// A chunk of those of the events for which everything is here, or could be fetched.
    async fn make_whole(
        &self,
        room: &Resident,
        events: Vec<Pdu>,
        from: &[OwnedEventId],
        server: &ServerName,
    ) -> Result<Chunk, FetchError> {
        let servers = [server.to_owned()];
        let events = by_id(events, Pdu::event_id);
        let followed: BTreeSet<OwnedEventId> =
            events.values().flat_map(Pdu::prev_events).filter(|id| !events.contains_key(*id)).cloned().collect();
        let absent = self.list_unplaced(&followed.into_iter().collect::<Vec<_>>()).await?.into_iter().collect();
        let mut gathered = Gathered { events, absent, states: HashMap::new() };
        self.keep_all_cited(room, &mut gathered, &servers).await?;
        loop {
            self.fetch_states(room, &mut gathered, &servers).await?;
            let lacking = self.list_lacking(&gathered.events).await?;
            if lacking.is_empty() {
                break;
            }
            for event_id in &lacking {
                gathered.leave_out(event_id);
            }
        }
        Ok(gathered.into_chunk(from))
    }

    /// Fetches what the events cite, and leaves out those of which it can't be had.
    async fn keep_all_cited(
        &self,
        room: &Resident,
        gathered: &mut Gathered,
        servers: &[OwnedServerName],
    ) -> Result<(), FetchError> {
        for _ in 0..MOST_CHAINS {
            let lacking = self.list_lacking(&gathered.events).await?;
            // The deepest cites most of what the others cite.
            let deepest = lacking.iter().filter_map(|id| gathered.events.get(id)).max_by_key(|pdu| pdu.depth());
            let Some(pdu) = deepest.cloned() else { return Ok(()) };
            match self.keep_cited(room, &pdu, servers).await {
                Ok(()) => {}
                Err(error @ FetchError::Own(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!(event_id = %pdu.event_id(), %error, "an event of the past is left out");
                    gathered.leave_out(pdu.event_id());
                }
            }
        }
        Ok(())
    }

    /// Fetches the state before those that follow what is absent, of a few, and leaves out the others.
    async fn fetch_states(
        &self,
        room: &Resident,
        gathered: &mut Gathered,
        servers: &[OwnedServerName],
    ) -> Result<(), FetchError> {
        let mut asked = 0;
        while let Some((lowest, count)) = gathered.find_without_state() {
            if asked >= 2 * MOST_STATES || gathered.states.len() + count > MOST_STATES {
                gathered.leave_out(&lowest);
                continue;
            }
            asked += 1;
            match self.fetch_state(room, &lowest, servers).await {
                Ok(state) => drop(gathered.states.insert(lowest, state)),
                Err(error @ FetchError::Own(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!(event_id = %lowest, %error, "an event of the past is left out");
                    gathered.leave_out(&lowest);
                }
            }
        }
        Ok(())
    }
}

impl Gathered {
    fn leave_out(&mut self, event_id: &EventId) {
        if let Some(pdu) = self.events.remove(event_id) {
            self.absent.insert(pdu.event_id().to_owned());
            self.states.remove(event_id);
        }
    }

    /// The lowest event of the chunk that follows what is absent, and of which it is not known what was before it; and how
    /// many such there are.
    fn find_without_state(&self) -> Option<(OwnedEventId, usize)> {
        let is_without = |pdu: &&Pdu| {
            !self.states.contains_key(pdu.event_id()) && pdu.prev_events().iter().any(|id| self.absent.contains(id))
        };
        let without: Vec<&Pdu> = self.events.values().filter(is_without).collect();
        let place = |pdu: &Pdu| (pdu.depth(), pdu.event_id().to_owned());
        let (_, lowest) = without.iter().map(|pdu| place(pdu)).min()?;
        Some((lowest, without.len()))
    }

    /// What is still reached, each after those of the chunk that it follows or cites.
    fn into_chunk(self, from: &[OwnedEventId]) -> Chunk {
        let reached = walk(from, self.events, Pdu::prev_events);
        let ids: Vec<OwnedEventId> = reached.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let leads_to = |pdu: Pdu| {
            let edges: Vec<OwnedEventId> = pdu.prev_events().iter().chain(pdu.auth_events()).cloned().collect();
            (edges, pdu)
        };
        let events: Vec<(Vec<OwnedEventId>, Pdu)> = reached.into_iter().map(leads_to).collect();
        let events = by_id(events, |(_, pdu)| pdu.event_id());
        let sorted = walk(&ids, events, |(edges, _)| edges);
        Chunk { events: sorted.into_iter().map(|(_, pdu)| pdu).collect(), states: self.states }
    }
}
