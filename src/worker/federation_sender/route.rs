//! What of the log other servers have to get, and which: events of this server's users, and those that it passes on.
//!
//! The log is read in stretches, one for all buckets of this node. Where nobody of another server is in a room, finding that
//! out is a look into memory, or one small statement for all such rooms of a stretch.
//!
//! An event goes to the servers that were in its room just before it. Whoever takes a user of another server out of the
//! room, or takes an invitation or a knock of theirs back, has that server hear of it in any case. An invitation itself
//! reaches the invited server another way.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#pdus>

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{
    EventId, OwnedRoomId, RoomId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{FederationSender, outbox::LaneKey, outgoing::Outgoing};
use crate::{
    error::{Error, Result},
    event::{
        Pdu, Standing, Stored,
        fact::{News, Relay},
    },
    ground::position::Position,
    log::Stretch,
    room::{Held, Servers, graph::state::membership_of},
    store,
};

/// How many entries are read at once.
const STRETCH: usize = 500;

/// An event that has to be sent, before it is known to whom.
struct Candidate<'a> {
    entry_at: Position,
    stored: Stored,
    /// Who has handed it over.
    from: Option<&'a ServerName>,
}

impl FederationSender {
    /// Reads the next stretch of the log, and returns those to whom something is to be sent now, for somebody to begin to
    /// work on each. None where there is nothing to read.
    pub(super) async fn route(&self) -> Result<Option<Vec<LaneKey>>> {
        let log = self.0.rooms.log();
        let Some(routed) = self.0.outbox.routed().filter(|routed| *routed < log.tail().reached()) else {
            return Ok(None);
        };
        let stretch = log.read_after(routed, STRETCH).await?;
        if stretch.until <= routed {
            return Ok(None);
        }
        let outgoing = self.list_outgoing(&stretch).await?;
        Ok(Some(self.0.outbox.route(stretch.until, &outgoing)))
    }

    /// What of a stretch has to be sent, in its order.
    async fn list_outgoing(&self, stretch: &Stretch) -> Result<Vec<Outgoing>> {
        let candidates = self.list_candidates(stretch).await?;
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let rooms = self.find_shared_rooms(&candidates).await?;
        let here = self.0.rooms.server_name();
        let mut outgoing = Vec::new();
        for Candidate { entry_at, stored, from } in candidates {
            let servers = match rooms.get(stored.pdu.room_id()) {
                Some(room) => self.0.rooms.servers_before(room, stored.order).await?,
                None => Arc::new(Servers::new()),
            };
            let departing = departing(&stored.pdu).filter(|server| **server != *here);
            if servers.keys().all(|server| **server == *here) && departing.is_none() {
                continue;
            }
            outgoing.push(Outgoing {
                entry_at,
                at: Position(stored.key.0),
                servers,
                departing: departing.map(ToOwned::to_owned),
                known_to: [here].into_iter().chain(from).map(ToOwned::to_owned).collect(),
                pdu: stored.pdu,
            });
        }
        Ok(outgoing)
    }

    /// The events of a stretch that are this server's own, or that it passes on.
    async fn list_candidates<'a>(&self, stretch: &'a Stretch) -> Result<Vec<Candidate<'a>>> {
        let here = self.0.rooms.server_name();
        let relayed = self.list_relayed(stretch).await?;
        let mut candidates = Vec::new();
        for (entry_at, news) in &stretch.entries {
            match news {
                News::Event(logged) if is_sent(&logged.stored, here) => {
                    candidates.push(Candidate { entry_at: *entry_at, stored: logged.stored.clone(), from: None });
                }
                News::Relay(relay) => {
                    let stored = relayed.get(&*relay.event_id).cloned();
                    let from = Some(&*relay.from);
                    candidates.extend(stored.map(|stored| Candidate { entry_at: *entry_at, stored, from }));
                }
                _ => {}
            }
        }
        Ok(candidates)
    }

    /// The events that this server passes on: mostly in the stretch themselves, just before the entry that says so.
    async fn list_relayed<'a>(&self, stretch: &'a Stretch) -> Result<HashMap<&'a EventId, Stored>> {
        let relays = stretch.entries.iter().filter_map(|(_, news)| match news {
            News::Relay(relay) => Some(&**relay),
            _ => None,
        });
        let wanted: Vec<&'a EventId> = relays.map(|relay: &'a Relay| &*relay.event_id).collect();
        let mut found: HashMap<&EventId, Stored> = HashMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        for logged in stretch.events() {
            if let Some(&event_id) = wanted.iter().find(|event_id| **event_id == logged.stored.pdu.event_id()) {
                found.insert(event_id, logged.stored.clone());
            }
        }
        let missing: Vec<&EventId> = wanted.iter().copied().filter(|id| !found.contains_key(id)).collect();
        if !missing.is_empty() {
            for stored in store::event::list(&mut self.0.db.read().await?, &missing).await? {
                if let Some(&event_id) = wanted.iter().find(|event_id| **event_id == stored.pdu.event_id()) {
                    found.insert(event_id, stored);
                }
            }
        }
        Ok(found)
    }

    /// Those of the events' rooms that other servers may be in. A room that is in memory is at hand; of the others only
    /// those are read that are shared.
    async fn find_shared_rooms(&self, candidates: &[Candidate<'_>]) -> Result<HashMap<OwnedRoomId, Held>> {
        let rooms: BTreeSet<&RoomId> = candidates.iter().map(|candidate| candidate.stored.pdu.room_id()).collect();
        let mut held = HashMap::new();
        let mut unread = Vec::new();
        for room_id in rooms {
            match self.0.rooms.find_in_memory(room_id) {
                Some(room) => drop(held.insert(room_id.to_owned(), room)),
                None => unread.push(room_id),
            }
        }
        for room_id in self.0.rooms.list_shared(&unread).await? {
            match self.0.rooms.find_held(&room_id).await {
                Ok(Some(room)) => drop(held.insert(room_id, room)),
                Ok(None) => {}
                // What a newer release has written can't be sent by this one, and must not keep the rest from being sent.
                Err(Error::Refused { message: reason, .. }) => {
                    tracing::warn!(%room_id, reason, "what was said in a room is not sent to other servers");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }
}

/// Whether an event is one of this server's that others have to get. One that follows what is not known here was made with
/// the help of a server that is in the room, which passes it on.
fn is_sent(stored: &Stored, here: &ServerName) -> bool {
    stored.standing == Standing::Accepted && stored.pdu.sender().server_name() == here && !stored.follows_gap
}

/// The server of whom an event takes out of its room, or takes an invitation or a knock back.
fn departing(pdu: &Arc<Pdu>) -> Option<&ServerName> {
    if *pdu.kind() != TimelineEventType::RoomMember {
        return None;
    }
    let user_id = <&UserId>::try_from(pdu.state_key()?).ok()?;
    matches!(membership_of(pdu), MembershipState::Leave | MembershipState::Ban).then(|| user_id.server_name())
}
