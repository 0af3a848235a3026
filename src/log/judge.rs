//! Which writes of a batch can be part of it: the database is the only arbiter.
//!
//! The touched rooms' rows are locked in sorted order and their heads compared with the heads that the
//! events were built on. A write that fails drops out; so do those that were built on it.
//!
//! The order of judgements decides what a client is answered: a repeated request first, since its retry succeeds
//! whatever has happened in the room meanwhile; then the head, because everything after it may look different once the
//! event is built again; then what the write is refused for.
//!
//! What is taken for granted of an account (`judge/account.rs`) comes after all that, and quotas last, so that a retry of a
//! join still succeeds. Messages to devices have a judge of their own (`judge/to_device.rs`), which refuses no write for
//! what is too much for one device: that device alone is left out.
//!
//! Locks: the rooms' rows are held from here to the end of the transaction, and after them the log's, which is taken once:
//! what has no row to lock is looked at under it. On SQLite the transaction is alone anyway.

mod account;
mod holdings;
mod to_device;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId};

pub(super) use self::holdings::{ChangedHoldings, OverQuota, find_over_quota};
use self::{
    account::{ExpectedAccounts, Unmet},
    holdings::Holdings,
    to_device::ToDeviceJudge,
};
use crate::{
    db::{DbResult, Tx},
    event::{
        Pdu, Transaction,
        fact::{Fact, ListingChange, NewAccountData, NewEvent, NewOutsideMembership, RoomHead, Write},
    },
    ground::position::{Lineage, Position},
    log::kind::to_device::Deliveries,
    store::{self, relation::Annotation, room::RoomStanding},
};

/// What becomes of a write.
#[derive(Debug)]
pub(super) enum Judgement {
    /// It becomes part of the batch, and those after it are judged as if it were there.
    Accepted,
    /// The room in which the head has moved.
    Stale(OwnedRoomId),
    /// The event that was made of an earlier request with the same transaction id.
    Duplicate(OwnedEventId),
    /// Its request was made before.
    Repeated,
    DuplicateAnnotation,
    AliasTaken,
    AliasGone,
    /// What the write replaces, or was copied from, has changed since it was built on it.
    Conflict,
    /// Who would come into a room and has no account any more.
    Deactivated(OwnedUserId),
    /// Its user would have more of something than they may.
    OverQuota(OverQuota),
}

/// What became of a batch's writes.
pub(super) struct Judged {
    /// One for each write, in order.
    pub(super) judgements: Vec<Judgement>,
    /// How those touched rooms stand that the database knows.
    pub(super) rooms: HashMap<OwnedRoomId, RoomStanding>,
    /// What users have with the writes that were accepted.
    pub(super) holdings: ChangedHoldings,
    /// What becomes of the messages to devices of those that were accepted.
    pub(super) deliveries: Deliveries,
}

/// What the batch has done so far, on top of what the database holds.
struct Judge<'a> {
    /// None where there is no such room.
    heads: BTreeMap<&'a RoomId, Option<&'a RoomHead>>,
    /// Requests whose transaction ids have been used, in the database or by this batch.
    sent: HashMap<TransactionKey<'a>, OwnedEventId>,
    /// The annotations that somebody wants to make and that there are, each with its event.
    annotated: HashMap<Annotation, OwnedEventId>,
    /// The room that each touched alias names, if it names one.
    aliases: HashMap<&'a RoomAliasId, OwnedRoomId>,
    /// Under which lines rooms are being entered.
    prepared: HashMap<OwnedRoomId, Lineage>,
    /// Where those rows stand that somebody has expectations of. None once the batch has changed them.
    expected: HashMap<Replaced<'a>, Option<Position>>,
    /// As they are when the batch is committed.
    accounts: ExpectedAccounts,
    /// What those have who are held to quotas.
    holdings: Holdings<'a>,
    to_device: ToDeviceJudge<'a>,
}

/// A row that is replaced by a fact.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Replaced<'a> {
    AccountData(&'a UserId, Option<&'a RoomId>, &'a str),
    Outside(&'a UserId, &'a RoomId),
}

/// What a fact replaces, and where that is expected to stand.
fn replaced(fact: &Fact) -> Option<(Replaced<'_>, Option<Position>)> {
    match fact {
        Fact::AccountData(NewAccountData { data, replaces }) => {
            Some((Replaced::AccountData(&data.user_id, data.room_id.as_deref(), &data.kind), *replaces))
        }
        Fact::OutsideMembership(NewOutsideMembership { membership, replaces }) => {
            Some((Replaced::Outside(&membership.user_id, &membership.room_id), *replaces))
        }
        _ => None,
    }
}

/// A transaction id holds for one origin, room and event type.
#[derive(PartialEq, Eq, Hash)]
struct TransactionKey<'a> {
    kind: String,
    sender: &'a str,
    origin: Cow<'a, str>,
    id: &'a str,
    room: &'a str,
}

impl<'a> TransactionKey<'a> {
    fn new(pdu: &'a Pdu, transaction: &'a Transaction) -> Self {
        Self {
            kind: pdu.kind().to_string(),
            sender: pdu.sender().as_str(),
            origin: transaction.origin.key(),
            id: transaction.transaction_id.as_str(),
            room: pdu.room_id().as_str(),
        }
    }
}

/// Everything is asked in a few statements for the whole batch; each write is then judged in memory, in the order of
/// the queue.
pub(super) async fn judge(tx: &mut Tx, writes: &[Write]) -> DbResult<Judged> {
    let rooms: Vec<&RoomId> =
        events(writes).map(|event| event.pdu.room_id()).collect::<HashSet<_>>().into_iter().collect();
    let locked = if rooms.is_empty() { HashMap::new() } else { store::room::lock_heads(tx, &rooms).await? };
    let prepared = find_prepared(tx, writes).await?;
    let transactions: Vec<_> = events(writes)
        .filter_map(|event| event.transaction.as_ref().map(|transaction| (&*event.pdu, transaction)))
        .collect();
    // After the rows are locked: another node that is just making an event of the same request holds the room's row, so
    // what it has made is visible now.
    let found = store::event::list_by_transactions(tx, &transactions).await?;
    let annotated = annotated(tx, writes).await?;
    // Everybody waits from here on, and nobody else can commit.
    store::log::lock(tx).await?;
    let touched: Vec<_> = writes.iter().flat_map(listings).filter_map(ListingChange::alias).collect();
    let named = if touched.is_empty() { HashMap::new() } else { store::alias::list_named(tx, &touched).await? };

    let mut judge = Judge {
        heads: rooms.iter().map(|room| (*room, locked.get(*room).map(|(head, _)| head))).collect(),
        sent: HashMap::new(),
        annotated,
        aliases: touched.into_iter().filter_map(|alias| Some((alias, named.get(alias)?.clone()))).collect(),
        prepared,
        expected: find_expected(tx, writes).await?,
        accounts: ExpectedAccounts::read(tx, writes).await?,
        holdings: Holdings::load(tx, writes).await?,
        to_device: ToDeviceJudge::load(tx, writes).await?,
    };
    for ((pdu, transaction), event_id) in transactions.iter().zip(found) {
        if let Some(event_id) = event_id {
            judge.sent.insert(TransactionKey::new(pdu, transaction), event_id);
        }
    }
    let judgements = writes.iter().map(|write| judge.write(write)).collect();
    let (holdings, deliveries) = (judge.holdings.into_changed(), judge.to_device.into_deliveries());
    Ok(Judged {
        judgements,
        rooms: locked.into_iter().map(|(room, (_, standing))| (room, standing)).collect(),
        holdings,
        deliveries,
    })
}

fn events(writes: &[Write]) -> impl Iterator<Item = &NewEvent> {
    writes.iter().flat_map(|write| &write.events)
}

/// Under which lines the rooms are being entered that some write has this server come into. What was prepared may have
/// been taken over by somebody else, who took whoever prepared it for dead; nobody does until the transaction ends.
async fn find_prepared(tx: &mut Tx, writes: &[Write]) -> DbResult<HashMap<OwnedRoomId, Lineage>> {
    let rooms: Vec<&RoomId> = writes.iter().filter_map(|write| Some(&*write.entry.as_ref()?.room_id)).collect();
    if rooms.is_empty() { Ok(HashMap::new()) } else { store::room_entry::lock_each(tx, &rooms).await }
}

/// Where the rows stand that some write expects at a place of its own.
///
/// There may be no row to lock, so this looks under the log's lock.
async fn find_expected<'a>(tx: &mut Tx, writes: &'a [Write]) -> DbResult<HashMap<Replaced<'a>, Option<Position>>> {
    let mut found = HashMap::new();
    for fact in writes.iter().flat_map(|write| &write.facts) {
        let Some((row, Some(_))) = replaced(fact) else { continue };
        let at = match row {
            Replaced::AccountData(user_id, room_id, kind) => {
                store::account_data::find(tx, user_id, room_id, kind).await?.map(|(at, _)| at)
            }
            Replaced::Outside(user_id, room_id) => {
                store::outside_membership::find_position(tx, user_id, room_id).await?
            }
        };
        found.insert(row, Some(at.unwrap_or_default()));
    }
    Ok(found)
}

/// Which of the annotations are there that may be made only once. Nobody else makes one meanwhile: the rooms' rows have
/// been locked before.
async fn annotated(tx: &mut Tx, writes: &[Write]) -> DbResult<HashMap<Annotation, OwnedEventId>> {
    let wanted: Vec<Annotation> = events(writes).filter_map(annotation).collect();
    if wanted.is_empty() { Ok(HashMap::new()) } else { store::relation::list_annotations(tx, &wanted).await }
}

/// What an event annotates, if that may be done only once.
fn annotation(event: &NewEvent) -> Option<Annotation> {
    if event.annotates_once { Annotation::of(&event.pdu) } else { None }
}

fn listings(write: &Write) -> impl Iterator<Item = &ListingChange> {
    write.facts.iter().filter_map(|fact| if let Fact::Listing(change) = fact { Some(change) } else { None })
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
        if self.to_device.was_made(write) {
            return Judgement::Repeated;
        }
        // A copy of what changes: a write that is refused in the middle must leave no trace for those after it.
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
        if let Some(entry) = &write.entry
            && self.prepared.get(&entry.room_id) != Some(&entry.trunk)
        {
            return Judgement::Stale(entry.room_id.clone());
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
        if write.events.iter().filter_map(annotation).any(|annotation| self.annotated.contains_key(&annotation)) {
            return Judgement::DuplicateAnnotation;
        }
        match self.accounts.check(write) {
            Ok(()) => {}
            Err(Unmet::Deactivated(user_id)) => return Judgement::Deactivated(user_id),
            Err(Unmet::Renamed) => return Judgement::Conflict,
        }
        match self.holdings.addition(write) {
            Ok(addition) => self.holdings.add(addition),
            Err(over) => return Judgement::OverQuota(over),
        }
        self.to_device.add(write);
        self.heads.extend(heads);
        for (alias, room) in aliases {
            match room {
                Some(room) => self.aliases.insert(alias, room),
                None => self.aliases.remove(alias),
            };
        }
        for fact in &write.facts {
            if let Some((row, _)) = replaced(fact)
                && let Some(position) = self.expected.get_mut(&row)
            {
                // Nobody knows the place yet that it will have, so no later write of this batch can expect it.
                *position = None;
            }
        }
        for event in &write.events {
            if let Some(annotation) = annotation(event) {
                self.annotated.insert(annotation, event.pdu.event_id().to_owned());
            }
            if let Some(redacted) = &event.redacted {
                // Who annotated once may do so again after the annotation has been redacted.
                self.annotated.retain(|_, event_id| event_id != redacted.event_id());
            }
            if let Some(transaction) = &event.transaction {
                self.sent.insert(TransactionKey::new(&event.pdu, transaction), event.pdu.event_id().to_owned());
            }
        }
        Judgement::Accepted
    }

    /// What each alias that the write touches names after it: one fact at a time, so that an alias can move.
    fn aliases_after(&self, write: &'a Write) -> Result<HashMap<&'a RoomAliasId, Option<OwnedRoomId>>, Judgement> {
        let mut after: HashMap<&RoomAliasId, Option<OwnedRoomId>> = HashMap::new();
        for change in listings(write) {
            let Some(alias) = change.alias() else { continue };
            let named = after.get(alias).map_or_else(|| self.aliases.get(alias), Option::as_ref);
            match change {
                ListingChange::AliasAdded { .. } if named.is_some() => return Err(Judgement::AliasTaken),
                ListingChange::AliasAdded { room_id, .. } => after.insert(alias, Some(room_id.clone())),
                ListingChange::AliasRemoved { room_id, .. } if named != Some(room_id) => {
                    return Err(Judgement::AliasGone);
                }
                _ => after.insert(alias, None),
            };
        }
        Ok(after)
    }

    /// Whether what a fact replaces is what its writer saw.
    fn is_expected(&self, fact: &Fact) -> bool {
        match replaced(fact) {
            Some((row, Some(expected))) => self.expected.get(&row) == Some(&Some(expected)),
            _ => true,
        }
    }
}
