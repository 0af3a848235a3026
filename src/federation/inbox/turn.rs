//! A room's turn: the events that wait for it are taken in, one after the other, until none is due.
//!
//! An event's row goes once the event stands in its room, or never will. One that can't be taken in now is put off, longer
//! each time, and given up in the end, which the log says once.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ruma::{OwnedEventId, OwnedServerName, RoomId, room_version_rules::RoomVersionRules};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{Inbox, claim::InHand, take_in::Outcome};
use crate::{
    error::Result,
    event::{Pdu, ReceivedPdu},
    federation::{fetcher::walk, server_keys::VerifyError},
    ground::clock::millis,
    room::Resident,
    store::inbound::{self, InboundPdu},
};

/// How many events are read at once. Their signatures are verified together.
const AT_ONCE: i64 = 20;
/// For how long one event may take, with all that has to be fetched for it.
const LONGEST: Duration = Duration::from_mins(2);
/// How long an event is put off after each time that it could not be taken in. After the last it is given up.
const BACK_OFF: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(4),
];
/// How long it is put off where this server is to blame, for as often as it takes.
const SOON: Duration = Duration::from_secs(2);
/// Of more ends than so many, a room that is written to has some closed by an event of this server's.
const MOST_ENDS: usize = 10;

/// Events with what became of each.
type Outcomes = Vec<(InboundPdu, Outcome)>;

/// An event that waits, read again.
struct Sent {
    row: InboundPdu,
    received: ReceivedPdu,
}

impl Inbox {
    /// Takes in what waits for a room until nothing is due there.
    pub(super) async fn take_turn(&self, room: &InHand) {
        loop {
            match Box::pin(self.take_some(&room.room_id)).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let room_id = &room.room_id;
                    tracing::warn!(%room_id, %error, "what other servers have sent waits; it is tried again");
                    // Nobody is told that the room is free, so that it is not tried again at once.
                    return tokio::time::sleep(SOON).await;
                }
            }
        }
    }

    /// Takes in the next events of a room. False if none is due any more, or another node has the room.
    async fn take_some(&self, room_id: &RoomId) -> Result<bool> {
        let due = inbound::list(&mut self.0.db.read().await?, room_id, self.now(), AT_ONCE).await?;
        let outcomes =
            if due.is_empty() { Vec::new() } else { self.0.lanes.run(Box::pin(self.take_in_all(room_id, due))).await };
        self.settle(room_id, outcomes).await
    }

    /// Takes in some events of a room, each after those of them that it follows.
    async fn take_in_all(&self, room_id: &RoomId, due: Vec<InboundPdu>) -> Outcomes {
        let room = match self.0.rooms.find(room_id).await {
            Ok(Some(room)) => room,
            Ok(None) => {
                let left = || Outcome::Dropped("nobody of this server is in the room any more".to_owned());
                return due.into_iter().map(|row| (row, left())).collect();
            }
            Err(error) => {
                let reason = error.to_string();
                return due.into_iter().map(|row| (row, Outcome::Again(reason.clone()))).collect();
            }
        };
        let (sent, mut outcomes) = read_again(due, room.view(|view| view.rules));
        let (rows, received): (Vec<_>, Vec<_>) =
            in_order(sent).into_iter().map(|sent| (sent.row, sent.received)).unzip();
        // Signatures and hashes: checks 2 and 3.
        let verified = self.0.fetcher.source().verify_all(received).await;
        for (row, verified) in rows.into_iter().zip(verified) {
            let outcome = self.take_in_verified(&room, &row.origin, verified).await;
            outcomes.push((row, outcome));
        }
        self.close_ends(&room).await;
        outcomes
    }

    async fn take_in_verified(
        &self,
        room: &Resident,
        origin: &OwnedServerName,
        verified: Result<Pdu, VerifyError>,
    ) -> Outcome {
        match verified {
            Ok(pdu) => match timeout(LONGEST, Box::pin(self.take_in(room, pdu, origin))).await {
                Ok(outcome) => outcome,
                Err(elapsed) => Outcome::Later(format!("what has to be fetched for it takes too long: {elapsed}")),
            },
            Err(VerifyError::Invalid(reason)) => Outcome::Dropped(reason),
            Err(VerifyError::KeysUnavailable(reason)) => Outcome::Later(reason),
        }
    }

    /// Has an event of this server's follow the room's ends where they have become many.
    async fn close_ends(&self, room: &Resident) {
        if room.view(|view| view.head.extremities.len()) <= MOST_ENDS {
            return;
        }
        if let Err(error) = self.0.rooms.merge_extremities(room).await {
            let room_id = room.view(|view| view.room_id.clone());
            tracing::debug!(%room_id, %error, "the room's ends could not be closed");
        }
    }

    /// Writes down what became of events, and gives the room up where nothing is due any more. Returns whether something
    /// is, and the room is still this node's.
    async fn settle(&self, room_id: &RoomId, outcomes: Outcomes) -> Result<bool> {
        let now = self.now();
        let mut tx = self.0.db.begin().await?;
        let mut done: BTreeMap<OwnedServerName, Vec<OwnedEventId>> = BTreeMap::new();
        for (row, outcome) in &outcomes {
            match self.put_off(room_id, row, outcome) {
                Some((after, tries)) => {
                    inbound::postpone(&mut tx, row, now.saturating_add(millis(after)), tries).await?;
                }
                None => done.entry(row.origin.clone()).or_default().push(row.event_id.clone()),
            }
        }
        for (origin, event_ids) in &done {
            let event_ids: Vec<&str> = event_ids.iter().map(|id| id.as_str()).collect();
            inbound::delete(&mut tx, origin, &event_ids).await?;
        }
        let holder = inbound::lock_room(&mut tx, room_id).await?;
        let is_ours = !self.is_shared() || holder.is_some_and(|holder| holder == *self.0.nodes.id());
        let mut goes_on = false;
        if is_ours {
            // Asked for only now that the room's row is locked: whoever adds events comes before or after that.
            match inbound::find_next_due(&mut tx, room_id).await? {
                None => inbound::delete_room(&mut tx, room_id).await?,
                Some(due) if due > now => inbound::release(&mut tx, room_id, due).await?,
                Some(_) if self.is_shared() => {
                    goes_on = inbound::keep(&mut tx, room_id, self.0.nodes.id(), self.lease_end()).await?;
                }
                Some(_) => goes_on = true,
            }
        }
        tx.commit().await?;
        Ok(goes_on)
    }

    /// For how long an event is put off, and how often it has been by then. None if it waits no longer: it is done, or
    /// given up. Counts it and logs what an operator should know.
    fn put_off(&self, room_id: &RoomId, row: &InboundPdu, outcome: &Outcome) -> Option<(Duration, i64)> {
        let InboundPdu { origin, event_id, tries, .. } = row;
        match outcome {
            Outcome::Done(standing) => {
                self.0.metrics.pdu_received(standing);
                None
            }
            Outcome::Dropped(reason) => {
                tracing::info!(%room_id, %event_id, %origin, reason, "an event of another server is dropped");
                self.0.metrics.pdu_received("dropped");
                None
            }
            Outcome::Again(reason) => {
                tracing::warn!(%room_id, %event_id, reason, "an event of another server has to wait");
                Some((SOON, *tries))
            }
            Outcome::Later(reason) => {
                let back_off = usize::try_from(*tries).ok().and_then(|tries| BACK_OFF.get(tries)).copied();
                if back_off.is_none() {
                    let reason = reason.as_str();
                    tracing::warn!(%room_id, %event_id, %origin, reason, "an event of another server is given up");
                    self.0.metrics.pdu_received("given_up");
                } else {
                    tracing::debug!(%room_id, %event_id, %origin, reason, "an event of another server is put off");
                    self.0.metrics.pdu_received("postponed");
                }
                back_off.map(|after| (after, tries.saturating_add(1)))
            }
        }
    }
}

/// Reads events as they were written down. They could be read then, so what can't be is dropped.
fn read_again(due: Vec<InboundPdu>, rules: &'static RoomVersionRules) -> (Vec<Sent>, Outcomes) {
    let (mut sent, mut outcomes) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
    for row in due {
        let read = serde_json::from_str::<&RawValue>(&row.json).map_err(|error| error.to_string());
        let read = read.and_then(|json| ReceivedPdu::read(json, rules).map_err(|error| error.to_string()));
        match read {
            Ok(received) => sent.push(Sent { row, received }),
            Err(reason) => outcomes.push((row, Outcome::Dropped(reason))),
        }
    }
    (sent, outcomes)
}

/// Events in the order in which they came, but each after those of them that it follows. One that several servers have
/// sent stands there several times.
fn in_order(sent: Vec<Sent>) -> Vec<Sent> {
    let ids: Vec<OwnedEventId> = sent.iter().map(|sent| sent.row.event_id.clone()).collect();
    let mut by_id: HashMap<OwnedEventId, (Vec<OwnedEventId>, Vec<Sent>)> = HashMap::with_capacity(sent.len());
    for sent in sent {
        let follows = || sent.received.prev_events().to_vec();
        let (_, copies) = by_id.entry(sent.row.event_id.clone()).or_insert_with(|| (follows(), Vec::new()));
        copies.push(sent);
    }
    walk(&ids, by_id, |(follows, _)| follows).into_iter().flat_map(|(_, copies)| copies).collect()
}
