//! What users have when a batch begins, and what each of its writes makes of that. A write is refused that goes beyond a
//! quota to which it is held; one that adds nothing is not, however much its user has.
//!
//! Account data is not counted but kept count of, in a row for each user: it is written often, and counted under the log's
//! lock it would hold everybody up.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedUserId, RoomId, UserId, events::TimelineEventType};

use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{AccountData, Bound, Fact, ListingChange, NewAccountData, Write, WriteQuota},
    store::{
        self,
        usage::{AccountDataUsage, DAY, MadeRoom, PieceKey},
    },
};

/// What those users have whom a batch concerns.
#[derive(Default)]
pub(super) struct Holdings<'a> {
    account_data: HashMap<&'a UserId, AccountDataUsage>,
    /// The bytes of the pieces that the batch replaces; 0 of those that are deleted.
    pieces: HashMap<PieceKey<'a>, i64>,
    aliases: HashMap<&'a UserId, i64>,
    /// How many rooms somebody has made within a day.
    rooms: HashMap<&'a UserId, i64>,
    changed: ChangedHoldings,
}

/// What a batch makes of what users have, to be written with it.
#[derive(Default)]
pub(in crate::log) struct ChangedHoldings {
    account_data: HashMap<OwnedUserId, AccountDataUsage>,
    rooms: Vec<MadeRoom>,
}

/// What one write makes of it.
#[derive(Default)]
pub(super) struct Addition<'a> {
    account_data: HashMap<&'a UserId, AccountDataUsage>,
    pieces: HashMap<PieceKey<'a>, i64>,
    aliases: HashMap<&'a UserId, i64>,
    rooms: Vec<MadeRoom>,
}

/// Why a write is refused.
#[derive(Debug)]
pub(in crate::log) struct OverQuota {
    pub(in crate::log) message: String,
    pub(in crate::log) info_uri: Arc<str>,
}

/// Why a write would be refused by what its users have now. Without the log's lock they may have more, or less, by the time
/// it is judged.
pub(in crate::log) async fn find_over_quota(conn: &mut Conn, write: &Write) -> DbResult<Option<OverQuota>> {
    let holdings = Holdings::load(conn, std::slice::from_ref(write)).await?;
    Ok(holdings.addition(write).err())
}

/// The account data of a write that counts.
fn pieces(write: &Write) -> impl Iterator<Item = &AccountData> {
    let pieces = write.facts.iter().filter_map(|fact| match fact {
        Fact::AccountData(NewAccountData { data, .. }) => Some(data),
        _ => None,
    });
    pieces.filter(|data| data.is_counted())
}

fn quotas(writes: &[Write]) -> impl Iterator<Item = &WriteQuota> {
    writes.iter().flat_map(|write| &write.quotas)
}

fn key(data: &AccountData) -> PieceKey<'_> {
    (&data.user_id, data.room_id.as_deref().map_or("", RoomId::as_str), &data.kind)
}

impl<'a> Holdings<'a> {
    /// Looks, for the judge under the log's lock: nobody else can add anything from here on.
    pub(super) async fn load(conn: &mut Conn, writes: &'a [Write]) -> DbResult<Self> {
        let mut holdings = Self::default();
        let keys: Vec<PieceKey<'a>> = writes.iter().flat_map(pieces).map(key).collect();
        if keys.is_empty() && quotas(writes).next().is_none() {
            return Ok(holdings);
        }
        if !keys.is_empty() {
            holdings.pieces = store::usage::list_pieces(conn, &keys).await?;
            let users: Vec<&UserId> = keys.iter().map(|(user_id, ..)| *user_id).collect();
            holdings.account_data = store::usage::list_account_data(conn, &users).await?;
        }
        let (mut makers, mut first) = (Vec::new(), i64::MAX);
        for WriteQuota { user_id, bound, .. } in quotas(writes) {
            match bound {
                // Of inboxes it is known in any case how they stand: see `judge/to_device.rs`.
                Bound::AccountData { .. } | Bound::Inbox(_) => {}
                Bound::Aliases(_) if holdings.aliases.contains_key(&**user_id) => {}
                Bound::Aliases(_) => {
                    holdings.aliases.insert(user_id, store::alias::count_made(conn, user_id).await?);
                }
                Bound::Rooms { now, .. } => {
                    makers.push(&**user_id);
                    first = first.min(*now);
                }
            }
        }
        if !makers.is_empty() {
            holdings.rooms = store::usage::count_rooms(conn, &makers, first.saturating_sub(DAY)).await?;
        }
        Ok(holdings)
    }

    /// What a write adds, unless that is too much.
    pub(super) fn addition(&self, write: &'a Write) -> Result<Addition<'a>, OverQuota> {
        let mut addition = Addition::default();
        for data in pieces(write) {
            let key = key(data);
            let before = addition.pieces.get(&key).or_else(|| self.pieces.get(&key)).copied();
            let mut usage = self.account_data_with(&addition, key.0);
            usage.replace(before, data.counted_bytes());
            addition.account_data.insert(key.0, usage);
            addition.pieces.insert(key, data.counted_bytes());
        }
        for WriteQuota { user_id, bound, info_uri } in &write.quotas {
            let message = match *bound {
                Bound::AccountData { bytes, pieces } => {
                    let before = self.account_data.get(&**user_id).copied().unwrap_or_default();
                    account_data_refusal(before, self.account_data_with(&addition, user_id), bytes, pieces)
                }
                Bound::Inbox(_) => None,
                Bound::Aliases(most) => {
                    let before = self.aliases.get(&**user_id).copied().unwrap_or_default();
                    let after = before + count_aliases(write, user_id);
                    addition.aliases.insert(user_id, after);
                    (after > most)
                        .then(|| format!("You have made {before} room aliases and may have {most}: remove one first"))
                }
                Bound::Rooms { a_day, now } => {
                    let before = self.rooms.get(&**user_id).copied().unwrap_or_default();
                    addition.rooms.extend(made_rooms(write, user_id, now));
                    let refusal = || {
                        format!("You have made {before} rooms within a day and may make {a_day}: wait until tomorrow")
                    };
                    (before >= a_day).then(refusal)
                }
            };
            if let Some(message) = message {
                return Err(OverQuota { message, info_uri: Arc::clone(info_uri) });
            }
        }
        Ok(addition)
    }

    /// A write is part of the batch: those after it find what it has added.
    pub(super) fn add(&mut self, addition: Addition<'a>) {
        let changed = addition.account_data.iter().map(|(user_id, usage)| ((*user_id).to_owned(), *usage));
        self.changed.account_data.extend(changed);
        self.account_data.extend(addition.account_data);
        self.pieces.extend(addition.pieces);
        self.aliases.extend(addition.aliases);
        for made in &addition.rooms {
            if let Some(rooms) = self.rooms.get_mut(&*made.user_id) {
                *rooms += 1;
            }
        }
        self.changed.rooms.extend(addition.rooms);
    }

    pub(super) fn into_changed(self) -> ChangedHoldings {
        self.changed
    }

    fn account_data_with(&self, addition: &Addition<'a>, user_id: &UserId) -> AccountDataUsage {
        let usage = addition.account_data.get(user_id).or_else(|| self.account_data.get(user_id));
        usage.copied().unwrap_or_default()
    }
}

impl ChangedHoldings {
    /// Writes it, after the facts that it comes from.
    pub(in crate::log) async fn write(self, tx: &mut Tx) -> DbResult<()> {
        if !self.account_data.is_empty() {
            store::usage::set_account_data(tx, self.account_data).await?;
        }
        if !self.rooms.is_empty() {
            store::usage::add_rooms(tx, &self.rooms).await?;
        }
        Ok(())
    }
}

/// Why somebody's account data may not become so much. What does not grow may be as much as it is.
fn account_data_refusal(before: AccountDataUsage, after: AccountDataUsage, bytes: i64, pieces: i64) -> Option<String> {
    if after.bytes > bytes && after.bytes > before.bytes {
        let message =
            format!("Your account data would take {} bytes and may take {bytes}: delete some of it", after.bytes);
        return Some(message);
    }
    (after.pieces > pieces && after.pieces > before.pieces).then(|| {
        format!("You have {} pieces of account data and may have {pieces}: delete some of them", before.pieces)
    })
}

fn count_aliases(write: &Write, user_id: &UserId) -> i64 {
    let is_made =
        |fact: &&Fact| matches!(fact, Fact::Listing(ListingChange::AliasAdded { creator, .. }) if creator == user_id);
    i64::try_from(write.facts.iter().filter(is_made).count()).unwrap_or(i64::MAX)
}

/// The rooms that begin with a write.
fn made_rooms(write: &Write, user_id: &UserId, now: i64) -> Vec<MadeRoom> {
    let creates = write.events.iter().filter(|event| *event.pdu.kind() == TimelineEventType::RoomCreate);
    let made = creates.map(|event| MadeRoom {
        user_id: user_id.to_owned(),
        room_id: event.pdu.room_id().to_owned(),
        made_ts: now,
    });
    made.collect()
}
