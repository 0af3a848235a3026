//! Which writes of a batch can be part of it: the database is the only arbiter.
//!
//! The touched rooms' rows are locked in sorted order and their heads compared with the heads that the
//! events were built on. A write that fails drops out; so do those that were built on it.

use std::collections::{BTreeMap, HashMap, HashSet};

use ruma::{OwnedEventId, OwnedRoomId, RoomAliasId, RoomId, UserId};

use crate::{
    db::{DbResult, Tx},
    event::{Pdu, Transaction},
    fact::{AccountData, Fact, NewEvent, RoomHead, Write},
    position::Position,
    store::{self, room::RoomStanding},
};

/// What becomes of a write.
#[derive(Debug)]
pub(super) enum Judgement {
    Accepted,
    Stale(OwnedRoomId),
    Duplicate(OwnedEventId),
    AliasTaken,
    AliasGone,
    /// Account data has changed since the write was built on it.
    Conflict,
}

/// What became of a batch's writes.
pub(super) struct Judged {
    /// One for each write, in order.
    pub(super) judgements: Vec<Judgement>,
    /// How those touched rooms stand that the database knows.
    pub(super) rooms: HashMap<OwnedRoomId, RoomStanding>,
}

/// What the batch has done so far, on top of what the database holds.
struct Judge<'a> {
    /// None where there is no such room.
    heads: BTreeMap<&'a RoomId, Option<&'a RoomHead>>,
    sent: HashMap<TransactionKey<'a>, OwnedEventId>,
    /// The room that each touched alias names, if it names one.
    aliases: HashMap<&'a RoomAliasId, OwnedRoomId>,
    /// Where the account data stands that somebody has expectations of. None once the batch has changed it.
    account_data: HashMap<DataKey<'a>, Option<Position>>,
}

/// One piece of account data.
type DataKey<'a> = (&'a UserId, Option<&'a RoomId>, &'a str);

fn data_key(data: &AccountData) -> DataKey<'_> {
    (&data.user_id, data.room_id.as_deref(), &data.kind)
}

/// A transaction id holds for one device, room and event type.
#[derive(PartialEq, Eq, Hash)]
struct TransactionKey<'a> {
    kind: String,
    sender: &'a str,
    device: &'a str,
    id: &'a str,
    room: &'a str,
}

impl<'a> TransactionKey<'a> {
    fn new(pdu: &'a Pdu, transaction: &'a Transaction) -> Self {
        Self {
            kind: pdu.kind().to_string(),
            sender: pdu.sender().as_str(),
            device: transaction.device_id.as_str(),
            id: transaction.transaction_id.as_str(),
            room: pdu.room_id().as_str(),
        }
    }
}

pub(super) async fn judge(tx: &mut Tx, writes: &[Write]) -> DbResult<Judged> {
    let rooms: Vec<&RoomId> =
        events(writes).map(|event| event.pdu.room_id()).collect::<HashSet<_>>().into_iter().collect();
    let locked = if rooms.is_empty() { HashMap::new() } else { store::room::lock_heads(tx, &rooms).await? };
    let transactions: Vec<_> = events(writes)
        .filter_map(|event| event.transaction.as_ref().map(|transaction| (&*event.pdu, transaction)))
        .collect();
    let found = store::event::list_by_transactions(tx, &transactions).await?;
    let touched: Vec<_> = writes.iter().flat_map(|write| &write.facts).filter_map(touched_alias).collect();
    let named = if touched.is_empty() { HashMap::new() } else { store::alias::list_named(tx, &touched).await? };

    let mut judge = Judge {
        heads: rooms.iter().map(|room| (*room, locked.get(*room).map(|(head, _)| head))).collect(),
        sent: HashMap::new(),
        aliases: touched.into_iter().filter_map(|alias| Some((alias, named.get(alias)?.clone()))).collect(),
        account_data: expected_data(tx, writes).await?,
    };
    for ((pdu, transaction), event_id) in transactions.iter().zip(found) {
        if let Some(event_id) = event_id {
            judge.sent.insert(TransactionKey::new(pdu, transaction), event_id);
        }
    }
    let judgements = writes.iter().map(|write| judge.write(write)).collect();
    Ok(Judged { judgements, rooms: locked.into_iter().map(|(room, (_, standing))| (room, standing)).collect() })
}

fn events(writes: &[Write]) -> impl Iterator<Item = &NewEvent> {
    writes.iter().flat_map(|write| &write.events)
}

/// Where the account data stands that some write expects at a place of its own.
///
/// There may be no row to lock, so this looks under the log's lock: nobody else can commit from here on. The rooms'
/// rows have been locked before, as in every batch.
async fn expected_data<'a>(tx: &mut Tx, writes: &'a [Write]) -> DbResult<HashMap<DataKey<'a>, Option<Position>>> {
    let mut found = HashMap::new();
    for write in writes {
        for fact in &write.facts {
            let Fact::AccountDataAfter { data, .. } = fact else { continue };
            if found.is_empty() {
                store::log::lock(tx).await?;
            }
            let row = store::account_data::find(tx, &data.user_id, data.room_id.as_deref(), &data.kind).await?;
            found.insert(data_key(data), Some(row.map_or(Position::START, |(at, _)| at)));
        }
    }
    Ok(found)
}

fn touched_alias(fact: &Fact) -> Option<&RoomAliasId> {
    match fact {
        Fact::AliasAdded { alias, .. } | Fact::AliasRemoved { alias, .. } => Some(alias),
        _ => None,
    }
}

impl<'a> Judge<'a> {
    fn write(&mut self, write: &'a Write) -> Judgement {
        for event in &write.events {
            if let Some(transaction) = &event.transaction
                && let Some(event_id) = self.sent.get(&TransactionKey::new(&event.pdu, transaction))
            {
                return Judgement::Duplicate(event_id.clone());
            }
        }
        let mut heads: BTreeMap<&RoomId, Option<&RoomHead>> = BTreeMap::new();
        for event in &write.events {
            let room = event.pdu.room_id();
            let head = heads.get(room).or_else(|| self.heads.get(room)).copied().flatten();
            // A number would not do: another node may have appended as many events, and others.
            if head.map_or(event.before.head != 0, |head| *head != event.before) {
                return Judgement::Stale(room.to_owned());
            }
            heads.insert(room, Some(&event.head));
        }
        // After the heads: what stands against a write that is built again may be gone then, as where two nodes upgrade
        // one room and both would move its aliases.
        let aliases = match self.aliases_after(write) {
            Ok(aliases) => aliases,
            Err(judgement) => return judgement,
        };
        if write.facts.iter().any(|fact| !self.is_expected(fact)) {
            return Judgement::Conflict;
        }
        self.heads.extend(heads);
        for (alias, room) in aliases {
            match room {
                Some(room) => self.aliases.insert(alias, room),
                None => self.aliases.remove(alias),
            };
        }
        for fact in &write.facts {
            if let Fact::AccountData(data) | Fact::AccountDataAfter { data, .. } = fact
                && let Some(position) = self.account_data.get_mut(&data_key(data))
            {
                *position = None;
            }
        }
        for event in &write.events {
            if let Some(transaction) = &event.transaction {
                self.sent.insert(TransactionKey::new(&event.pdu, transaction), event.pdu.event_id().to_owned());
            }
        }
        Judgement::Accepted
    }

    /// What each alias that the write touches names after it: one fact at a time, so that an alias can move.
    fn aliases_after(&self, write: &'a Write) -> Result<HashMap<&'a RoomAliasId, Option<OwnedRoomId>>, Judgement> {
        let mut after: HashMap<&RoomAliasId, Option<OwnedRoomId>> = HashMap::new();
        for fact in &write.facts {
            let Some(alias) = touched_alias(fact) else { continue };
            let named = after.get(alias).map_or_else(|| self.aliases.get(alias), Option::as_ref);
            match fact {
                Fact::AliasAdded { .. } if named.is_some() => return Err(Judgement::AliasTaken),
                Fact::AliasAdded { room_id, .. } => after.insert(alias, Some(room_id.clone())),
                Fact::AliasRemoved { room_id, .. } if named != Some(room_id) => return Err(Judgement::AliasGone),
                _ => after.insert(alias, None),
            };
        }
        Ok(after)
    }

    /// Whether what a fact replaces is what its writer saw.
    fn is_expected(&self, fact: &Fact) -> bool {
        match fact {
            Fact::AccountDataAfter { data, expected } => {
                self.account_data.get(&data_key(data)) == Some(&Some(*expected))
            }
            _ => true,
        }
    }
}
