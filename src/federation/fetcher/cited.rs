//! What events cite for being allowed: it has to be here, as outliers at least, before they can be judged.

use std::collections::{BTreeSet, HashMap};

use ruma::{OwnedEventId, OwnedServerName};
use serde_json::value::RawValue;

use super::{FetchError, Fetcher, MOST_SERVERS, OfRoom, by_id, read, refused, walk};
use crate::{
    event::{Pdu, ReceivedPdu},
    room::Resident,
};

/// How many events of an auth chain are looked at.
pub(super) const MOST_OF_CHAIN: usize = 10_000;
/// How many cited events are fetched one by one where a server returns no whole chain.
const MOST_SINGLE: usize = 200;
/// How often it is looked what those cite in turn.
const MOST_LEVELS: usize = 20;

impl Fetcher {
    /// Sees to it that everything is here which an event cites: what is not is fetched from the first server that has it,
    /// with what that cites in turn, and kept as outliers.
    pub(crate) async fn keep_cited(
        &self,
        room: &Resident,
        pdu: &Pdu,
        servers: &[OwnedServerName],
    ) -> Result<(), FetchError> {
        let mut missing = self.list_unknown(pdu.auth_events()).await?;
        let mut last = None;
        for server in servers.iter().take(MOST_SERVERS) {
            if missing.is_empty() {
                break;
            }
            match self.0.source.event_auth(server, pdu.room_id(), pdu.event_id()).await {
                Ok(chain) => self.keep_chain(room, &missing, &chain).await?,
                Err(error) => last = Some(refused(server, error)),
            }
            missing = self.list_unknown(&missing).await?;
        }
        if !missing.is_empty() {
            self.keep_each(room, &missing, servers).await?;
            missing = self.list_unknown(&missing).await?;
        }
        match missing.first() {
            None => Ok(()),
            Some(missing) => Err(last.unwrap_or_else(|| {
                FetchError::Missing(format!(
                    "{} cites {missing}, which no server has, or which is refused",
                    pdu.event_id()
                ))
            })),
        }
    }

    /// Keeps those events of an auth chain that lead to `wanted` and are not here.
    pub(super) async fn keep_chain(
        &self,
        room: &Resident,
        wanted: &[OwnedEventId],
        chain: &[Box<RawValue>],
    ) -> Result<(), FetchError> {
        let of = OfRoom::of(room);
        let received = by_id(read(chain, &of, MOST_OF_CHAIN), ReceivedPdu::event_id);
        self.keep_new(room, wanted, received).await
    }

    /// Verifies and keeps those of the events that are wanted and not here, and what they cite among the others.
    pub(super) async fn keep_new(
        &self,
        room: &Resident,
        wanted: &[OwnedEventId],
        mut received: HashMap<OwnedEventId, ReceivedPdu>,
    ) -> Result<(), FetchError> {
        let ids: Vec<OwnedEventId> = received.keys().cloned().collect();
        let unknown: BTreeSet<OwnedEventId> = self.list_unknown(&ids).await?.into_iter().collect();
        received.retain(|id, _| unknown.contains(id));
        let verified = self.verify(walk(wanted, received, ReceivedPdu::auth_events)).await;
        if !verified.is_empty() {
            self.0.rooms.keep_allowed_outliers(room, verified).await?;
        }
        Ok(())
    }

    /// Fetches events one by one, then what they cite, and so on.
    async fn keep_each(
        &self,
        room: &Resident,
        wanted: &[OwnedEventId],
        servers: &[OwnedServerName],
    ) -> Result<(), FetchError> {
        let of = OfRoom::of(room);
        let mut found: HashMap<OwnedEventId, Pdu> = HashMap::new();
        let mut missing = wanted.to_vec();
        for _ in 0..MOST_LEVELS {
            let left = MOST_SINGLE.saturating_sub(found.len());
            if missing.is_empty() || left == 0 {
                break;
            }
            let events = self.fetch_events(&of, servers, &missing, left).await;
            let cited: BTreeSet<OwnedEventId> = events.iter().flat_map(Pdu::auth_events).cloned().collect();
            found.extend(by_id(events, Pdu::event_id));
            let further: Vec<OwnedEventId> = cited.into_iter().filter(|id| !found.contains_key(id)).collect();
            missing = self.list_unknown(&further).await?;
        }
        let found = walk(wanted, found, Pdu::auth_events);
        if !found.is_empty() {
            self.0.rooms.keep_allowed_outliers(room, found).await?;
        }
        Ok(())
    }

    /// Those of the events that cite something which is neither here nor among them.
    pub(super) async fn list_lacking(
        &self,
        events: &HashMap<OwnedEventId, Pdu>,
    ) -> Result<Vec<OwnedEventId>, FetchError> {
        let cited = events.values().flat_map(Pdu::auth_events).filter(|id| !events.contains_key(*id));
        let cited: BTreeSet<OwnedEventId> = cited.cloned().collect();
        let unknown = self.list_unknown(&cited.into_iter().collect::<Vec<_>>()).await?;
        let lacks = |pdu: &&Pdu| pdu.auth_events().iter().any(|id| unknown.contains(id));
        Ok(events.values().filter(lacks).map(|pdu| pdu.event_id().to_owned()).collect())
    }
}
