//! What has arrived with a join: the events of the room's state and those that they cite, read and verified while further
//! ones come, and then judged as a whole.
//!
//! An event that can't be read or is not valid is left out, as by everybody who has ever received it; one of another room
//! is no mistake that happens, and ends it. What is left is a room only if it begins as its version has it, and each event
//! is allowed by what it cites. Whether the state lets the user in, [`crate::room::Rooms`] asks.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use ruma::{
    OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    answer::{Piece, Splitter},
    residents::{Body, Residents},
};
use crate::{
    edge::federation_client::RemoteError,
    event::{Pdu, ReceivedPdu},
    federation::fetcher::walk,
    room::{Entry, list_allowed},
};

/// How many events an answer may have.
pub(super) const MOST_EVENTS: usize = 1_000_000;
/// How many are verified together, and how many such batches at once. Until one is done, no more is read.
const BATCH: usize = 1_000;
const BATCHES: usize = 4;

/// What has arrived, each event verified by itself.
#[derive(Debug)]
pub(super) struct Arrival {
    room_id: OwnedRoomId,
    /// What the other server says that the state consists of, in its order.
    state: Vec<OwnedEventId>,
    /// The events of the state and those that are cited.
    pdus: HashMap<OwnedEventId, Pdu>,
    /// The join as the other server has signed it. Not verified.
    pub(super) join: Option<Box<RawValue>>,
}

/// Reads and verifies an answer to a join.
pub(super) async fn receive(
    residents: &dyn Residents,
    mut body: Body,
    (room_id, rules): (&RoomId, &'static RoomVersionRules),
    most: usize,
) -> Result<Arrival, RemoteError> {
    let mut reading = Reading::new(room_id, rules, most);
    let (mut verifying, mut pdus) = (FuturesUnordered::new(), HashMap::new());
    let mut has_ended = false;
    loop {
        tokio::select! {
            bytes = body.next(), if !has_ended && verifying.len() < BATCHES => {
                if let Some(bytes) = bytes {
                    reading.push(&bytes?)?;
                } else {
                    reading.splitter.end()?;
                    has_ended = true;
                }
                if !reading.unverified.is_empty() && (has_ended || reading.unverified.len() >= BATCH) {
                    verifying.push(verify(residents, mem::take(&mut reading.unverified)));
                }
            }
            Some(verified) = verifying.next(), if !verifying.is_empty() => {
                pdus.extend(verified.into_iter().map(|pdu: Pdu| (pdu.event_id().to_owned(), pdu)));
            }
            else => break,
        }
    }
    let Reading { room_id, state, join, .. } = reading;
    Ok(Arrival { room_id, state, pdus, join })
}

/// Those of the events that are valid.
async fn verify(residents: &dyn Residents, events: Vec<ReceivedPdu>) -> Vec<Pdu> {
    let ids: Vec<OwnedEventId> = events.iter().map(|event| event.event_id().to_owned()).collect();
    let verified = residents.verify_all(events).await;
    let valid = ids.into_iter().zip(verified).filter_map(|(event_id, verified)| {
        verified.inspect_err(|error| tracing::info!(%event_id, %error, "an event of a room is not valid")).ok()
    });
    valid.collect()
}

/// An answer as far as it has been read.
struct Reading {
    splitter: Splitter,
    room_id: OwnedRoomId,
    rules: &'static RoomVersionRules,
    most: usize,
    /// How many events have come.
    count: usize,
    seen: HashSet<OwnedEventId>,
    state: Vec<OwnedEventId>,
    unverified: Vec<ReceivedPdu>,
    join: Option<Box<RawValue>>,
}

impl Reading {
    fn new(room_id: &RoomId, rules: &'static RoomVersionRules, most: usize) -> Self {
        Self {
            splitter: Splitter::default(),
            room_id: room_id.to_owned(),
            rules,
            most,
            count: 0,
            seen: HashSet::new(),
            state: Vec::new(),
            unverified: Vec::new(),
            join: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        self.splitter.push(bytes)?;
        for piece in self.splitter.take() {
            match piece {
                Piece::State(json) => {
                    if let Some(event_id) = self.read(&json)? {
                        self.state.push(event_id);
                    }
                }
                Piece::AuthChain(json) => drop(self.read(&json)?),
                Piece::Join(json) => self.join = Some(json),
                Piece::MembersOmitted => return Err(malformed("leaves out members, which was not asked for")),
            }
        }
        Ok(())
    }

    /// The identifier of a state event of the room. None of what is no such event.
    fn read(&mut self, json: &RawValue) -> Result<Option<OwnedEventId>, RemoteError> {
        self.count += 1;
        if self.count > self.most {
            return Err(malformed("has too many events"));
        }
        let event = match ReceivedPdu::read(json, self.rules) {
            Ok(event) if event.unverified().is_state() => event,
            Ok(_) => return Ok(None),
            Err(error) => {
                tracing::info!(room_id = %self.room_id, %error, "an event of a room can't be read");
                return Ok(None);
            }
        };
        if event.room_id() != self.room_id {
            return Err(malformed("has an event of another room"));
        }
        let event_id = event.event_id().to_owned();
        if self.seen.insert(event_id.clone()) {
            self.unverified.push(event);
        }
        Ok(Some(event_id))
    }
}

impl Arrival {
    /// The room, if it is one that the user may come into as far as its events say. `join` is the user's, signed by
    /// everybody who has to. It takes some time.
    pub(super) fn judge(self, version: RoomVersionId, join: Pdu) -> Result<Entry, RemoteError> {
        let Self { room_id, state, pdus, .. } = self;
        let is_create = |pdu: &&Pdu| *pdu.kind() == TimelineEventType::RoomCreate && pdu.state_key() == Some("");
        let create = state.iter().filter_map(|event_id| pdus.get(event_id)).find(is_create);
        let create = Arc::new(create.cloned().ok_or_else(|| malformed("has a state without a valid create event"))?);
        if version_of(&create).as_ref() != Some(&version) {
            return Err(malformed("is of a room of another version than it has said"));
        }
        let needed: Vec<OwnedEventId> = state.iter().chain(join.auth_events()).cloned().collect();
        let sorted = walk(&needed, pdus, Pdu::auth_events);
        let (in_state, mut keys) = (state.into_iter().collect::<HashSet<_>>(), HashSet::new());
        let is_of_state =
            |pdu: &Arc<Pdu>| in_state.contains(pdu.event_id()) && keys.insert((pdu.kind().to_string(), key_of(pdu)));
        let (state, auth_chain): (Vec<_>, Vec<_>) =
            list_allowed(&room_id, &create, sorted).into_iter().partition(is_of_state);
        if !state.iter().any(|pdu| pdu.event_id() == create.event_id()) {
            return Err(malformed("is of a room that has begun as none may"));
        }
        Ok(Entry { version, state, auth_chain, join })
    }
}

fn key_of(pdu: &Pdu) -> String {
    pdu.state_key().unwrap_or_default().to_owned()
}

/// None of what can't be read.
fn version_of(create: &Pdu) -> Option<RoomVersionId> {
    #[derive(Deserialize)]
    struct CreateContent {
        room_version: Option<RoomVersionId>,
    }
    let content: CreateContent = create.content_as().ok()?;
    Some(content.room_version.unwrap_or(RoomVersionId::V1))
}

fn malformed(what: &str) -> RemoteError {
    RemoteError::Malformed(format!("its answer to a join {what}"))
}
