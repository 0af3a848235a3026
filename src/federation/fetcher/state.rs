//! The state before an event whose past is not here, as another server has it.
//!
//! What a server says of it can't be checked but for its events: each has to be valid, of the room, and allowed by what it
//! cites. What else it brings about is bounded by the room's own present state, in which events are judged last.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-missing-events>

use std::collections::{BTreeSet, HashMap, HashSet};

use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName, events::StateEventType};

use super::{
    FetchError, Fetcher, MOST_SERVERS, OfRoom, StateIds, WholeState, by_id, cited::MOST_OF_CHAIN, read, refused, walk,
};
use crate::{
    event::{Pdu, ReceivedPdu, Standing},
    room::Resident,
    store,
};

/// How many events of a state are looked at.
const MOST_OF_STATE: usize = 200_000;
/// Up to so many are fetched one by one, even if that is a large part of the state.
const FEW: usize = 32;
/// How many are fetched one by one at most.
const MOST_SINGLE: usize = 500;
/// If more than one in so many are missing, the state is fetched as a whole.
const SHARE: usize = 10;
/// How many events are read at once.
const STEP: usize = 1_000;

impl Fetcher {
    /// The state before an event, from the first server that returns it: identifiers of events that are here now, as
    /// outliers at least, one for each key.
    pub(crate) async fn fetch_state(
        &self,
        room: &Resident,
        event_id: &EventId,
        servers: &[OwnedServerName],
    ) -> Result<Vec<OwnedEventId>, FetchError> {
        let mut last = FetchError::Missing(format!("no server to ask for the state before {event_id}"));
        for server in servers.iter().take(MOST_SERVERS) {
            match self.fetch_state_from(room, event_id, server).await {
                Err(error @ FetchError::Own(_)) => return Err(error),
                Err(error) => last = error,
                state => return state,
            }
        }
        Err(last)
    }

    async fn fetch_state_from(
        &self,
        room: &Resident,
        event_id: &EventId,
        server: &ServerName,
    ) -> Result<Vec<OwnedEventId>, FetchError> {
        let of = OfRoom::of(room);
        let StateIds { state, auth_chain } =
            self.0.source.state_ids(server, &of.room_id, event_id).await.map_err(|error| refused(server, error))?;
        if state.len() > MOST_OF_STATE || auth_chain.len() > MOST_OF_STATE {
            return Err(FetchError::Missing(format!("{server} says that {} events are a state", state.len())));
        }
        let named = state.len() + auth_chain.len();
        let missing = self.list_unknown(&join(&state, &auth_chain)).await?;
        if missing.len() > FEW && (missing.len() > MOST_SINGLE || missing.len().saturating_mul(SHARE) > named) {
            self.keep_whole_state(room, &of, event_id, server).await?;
        } else if !missing.is_empty() {
            let servers = [server.to_owned()];
            let events = self.fetch_events(&of, &servers, &missing, MOST_SINGLE).await;
            self.keep_in_order(room, &missing, events).await?;
        }
        self.list_usable(room, &of, event_id, &state).await
    }

    /// Fetches the events of a state and those that they cite, and keeps what is new.
    async fn keep_whole_state(
        &self,
        room: &Resident,
        of: &OfRoom,
        event_id: &EventId,
        server: &ServerName,
    ) -> Result<(), FetchError> {
        let answer = self.0.source.state(server, &of.room_id, event_id).await;
        let WholeState { state, auth_chain } = answer.map_err(|error| refused(server, error))?;
        let mut received = by_id(read(&auth_chain, of, MOST_OF_CHAIN + MOST_OF_STATE), ReceivedPdu::event_id);
        drop(auth_chain);
        received.extend(by_id(read(&state, of, MOST_OF_STATE), ReceivedPdu::event_id));
        drop(state);
        let wanted: Vec<OwnedEventId> = received.keys().cloned().collect();
        self.keep_new(room, &wanted, received).await
    }

    /// Keeps verified events, each after those that it cites.
    async fn keep_in_order(
        &self,
        room: &Resident,
        wanted: &[OwnedEventId],
        events: Vec<Pdu>,
    ) -> Result<(), FetchError> {
        let sorted = walk(wanted, by_id(events, Pdu::event_id), Pdu::auth_events);
        if !sorted.is_empty() {
            self.0.rooms.keep_allowed_outliers(room, sorted).await?;
        }
        Ok(())
    }

    /// Those events of a state that are here and can be a part of it. An error where the room's beginning is not among
    /// them, or most are not.
    async fn list_usable(
        &self,
        room: &Resident,
        of: &OfRoom,
        event_id: &EventId,
        state: &[OwnedEventId],
    ) -> Result<Vec<OwnedEventId>, FetchError> {
        let create =
            room.view(|view| view.state.find(&StateEventType::RoomCreate).map(|pdu| pdu.event_id().to_owned()));
        let mut by_key: HashMap<(String, String), OwnedEventId> = HashMap::with_capacity(state.len());
        for some in state.chunks(STEP) {
            let wanted: Vec<&EventId> = some.iter().map(|id| &**id).collect();
            let known = store::event::list(&mut self.0.db.read().await?, &wanted).await?;
            for event in known.iter().filter(|event| event.standing != Standing::Rejected) {
                let Some(state_key) = event.pdu.state_key().filter(|_| of.room_id == event.pdu.room_id()) else {
                    continue;
                };
                let key = (event.pdu.kind().to_string(), state_key.to_owned());
                by_key.entry(key).or_insert_with(|| event.pdu.event_id().to_owned());
            }
        }
        let usable: HashSet<OwnedEventId> = by_key.into_values().collect();
        let lacking = state.len().saturating_sub(usable.len());
        if lacking > 0 {
            tracing::info!(room_id = %of.room_id, %event_id, lacking, "a state was fetched of which events are missing");
        }
        if create.is_none_or(|create| !usable.contains(&create)) || lacking > usable.len() {
            let message = format!("{lacking} events of the state before {event_id} are missing or not valid");
            return Err(FetchError::Missing(message));
        }
        Ok(usable.into_iter().collect())
    }
}

/// Each once.
fn join(some: &[OwnedEventId], others: &[OwnedEventId]) -> Vec<OwnedEventId> {
    some.iter().chain(others).collect::<BTreeSet<_>>().into_iter().cloned().collect()
}
