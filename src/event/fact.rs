//! Facts: what is written into the log, and what its readers are handed. Values only, no I/O.
//!
//! A [`Write`] goes in, a [`Batch`] of [`News`] comes out, in this process and in every other one. Beside events there are
//! facts of several kinds. Each has a file here, with its value, what the log says of it and whom it wakes, and one in
//! `log/kind`, with its rows and how it is read back; a line of `each_kind!` makes it one. Whatever a kind lacks does not
//! compile, and nothing else has to know of it but who writes it and who reads it.

mod account_change;
mod account_data;
mod device_list;
mod expected_account;
mod forgotten;
mod key_count;
mod kind;
mod late_redaction;
mod listing;
mod node_id;
mod outside_membership;
mod presence;
mod quota;
mod receipt;
mod relay;
mod to_device;
mod typing;

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, ServerName};
use serde::{Deserialize, Serialize};

pub use self::{
    account_change::AccountChange,
    account_data::{AccountData, DELETED, FULLY_READ, INVITE_PERMISSION, NewAccountData, blocks_invites},
    device_list::{DeviceList, DeviceListChange, DeviceListEntry},
    expected_account::{CopiedFields, ExpectedAccount},
    forgotten::Forgotten,
    key_count::{KeyCount, KeyCountChange},
    kind::{Audience, Kind, SMALL},
    late_redaction::LateRedaction,
    listing::{Listing, ListingChange},
    node_id::NodeId,
    outside_membership::{NewOutsideMembership, OutsideEvent, OutsideMembership, OutsideState},
    presence::{ConnectedDevice, Presence},
    quota::{Bound, WriteQuota},
    receipt::Receipt,
    relay::Relay,
    to_device::{NewToDevice, RequestKey, ToDevice, ToDeviceRequest},
    typing::Typing,
};
use crate::{
    event::{Logged, Pdu, Standing, StateChange, Stored, Transaction},
    ground::position::{EventKey, Lineage, Mark, Order, Position},
};

/// Every kind of fact, handed to the macro that is named: what its list is called, the value that readers get, and the
/// letter by which the database knows it. Letters that were in use stay what they are; events have `e`.
macro_rules! each_kind {
    ($then:ident) => {
        $then! {
            receipts: Receipt = "r",
            account_data: AccountData = "a",
            typing: Typing = "t",
            presence: Presence = "p",
            outside_memberships: OutsideMembership = "o",
            forgotten: Forgotten = "f",
            account_changes: AccountChange = "d",
            listings: Listing = "l",
            late_redactions: LateRedaction = "x",
            device_lists: DeviceList = "v",
            key_counts: KeyCount = "k",
            to_device: ToDevice = "m",
            relays: Relay = "s",
        }
    };
}
pub(crate) use each_kind;

/// One act: all of it happens or nothing does.
#[derive(Debug, Default)]
pub struct Write {
    /// In the order in which they follow each other.
    pub events: Vec<NewEvent>,
    pub facts: Vec<Fact>,
    /// To which it is held.
    pub quotas: Vec<WriteQuota>,
    /// The request that its messages to devices come from: one that was made before is not written again.
    pub request: Option<ToDeviceRequest>,
    /// The room that this server comes to take part in with its first event, if it does with that.
    pub entry: Option<RoomEntry>,
}

/// A room that began elsewhere and that nobody of this server has been in: what was written for it beforehand and counts
/// from now on.
#[derive(Clone, Debug)]
pub struct RoomEntry {
    pub room_id: OwnedRoomId,
    /// The line that has the room's state before the first event. It becomes the room's trunk.
    pub trunk: Lineage,
    /// How many of each other server are in the room. Their memberships have been written.
    pub servers: BTreeMap<OwnedServerName, i64>,
}

/// A room's head after an event: what the next one is built on.
///
/// Two heads are the same only if all of it is: as many events may have been appended on another node, and be others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomHead {
    pub version: RoomVersionId,
    /// How many events have been appended, this one included.
    pub head: i64,
    pub depth: i64,
    pub extremities: Vec<OwnedEventId>,
}

/// An event on its way into the log, built on the head before it.
#[derive(Debug)]
pub struct NewEvent {
    pub pdu: Arc<Pdu>,
    pub standing: Standing,
    /// The head that it was built on.
    pub before: RoomHead,
    /// The room's head with this event.
    pub head: RoomHead,
    /// The state before it, where that is not the trunk's.
    pub fork: Option<Fork>,
    /// What it changes in the resolved state.
    pub changes: Vec<StateChange>,
    /// Those of the events that it follows which are not here: there is a gap before it.
    pub missing: Vec<OwnedEventId>,
    /// What it was called as an outlier, if it was one until now.
    pub outlier: Option<EventKey>,
    pub transaction: Option<Transaction>,
    pub notifies: bool,
    /// The root of the thread that it belongs to.
    pub thread_root: Option<OwnedEventId>,
    /// Whether it is refused if its sender has annotated the same event with the same before.
    pub annotates_once: bool,
    /// The users whom it highlights, where that is not everybody.
    pub highlights: Vec<OwnedUserId>,
    /// Whether it highlights everybody of this server who is in the room, but for its sender.
    pub highlights_everybody: bool,
    /// The state event whose place it takes.
    pub replaces: Option<Arc<Pdu>>,
    /// The event that it redacts, as that stands from now on.
    pub redacted: Option<Arc<Pdu>>,
    /// The event that it asks to redact, where that has no place yet.
    pub awaits: Option<OwnedEventId>,
    /// What it takes for granted of the account whose membership it is. None of what other servers send, and of what
    /// ends a membership.
    pub expects: Option<ExpectedAccount>,
    pub sender_to_others: SenderToOthers,
}

/// Whose task it is to send an event to the other servers of its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderToOthers {
    /// It is this server's own, or one that it passes on.
    ThisServer,
    AnotherServer,
}

impl SenderToOthers {
    /// Of an event that came the ordinary way: each server sends what its own users do.
    pub fn of(pdu: &Pdu, here: &ServerName) -> Self {
        if pdu.sender().server_name() == here { Self::ThisServer } else { Self::AnotherServer }
    }
}

/// A state that is not the trunk's.
#[derive(Clone, Debug)]
pub struct Fork {
    pub base: ForkBase,
    /// What leads from the base to the state.
    pub changes: Vec<StateChange>,
}

/// What a fork is stored as the difference from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkBase {
    /// The trunk just before the event.
    Trunk,
    /// The trunk just after the event, which has changed more of it than an event does by itself.
    After,
    /// Another stored line, just after a place.
    Line(Lineage, Order),
    /// Nothing at all: the changes are the whole state and become a line of their own.
    Nothing,
}

/// What there is of each kind, in one type each.
macro_rules! of_each_kind {
    ($($list:ident: $kind:ident = $letter:literal,)*) => {
        /// Everything in the log that is not an event.
        #[derive(Clone, Debug)]
        pub enum Fact {
            $($kind(<$kind as Kind>::Fact),)*
        }

        /// One entry of the log as readers get it: complete, whether this node wrote it or another.
        #[derive(Clone, Debug)]
        pub enum News {
            Event(Arc<Logged>),
            $($kind(Arc<$kind>),)*
            /// Something that another entry has made void: nothing is left at this place.
            Superseded,
        }

        /// One entry of the log, in the order of positions, as the database holds it.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Entry {
            #[serde(rename = "e")]
            Event(OwnedRoomId),
            $(#[serde(rename = $letter)] $kind(<$kind as Kind>::Entry),)*
        }

        impl Fact {
            /// What readers are handed of it.
            pub fn news(&self) -> News {
                match self {
                    $(Self::$kind(fact) => News::$kind(Arc::new($kind::of(fact))),)*
                }
            }
        }

        impl News {
            /// The room in which clients find it, if it is in one.
            pub fn room_id(&self) -> Option<&RoomId> {
                match self {
                    Self::Event(logged) => Some(logged.stored.pdu.room_id()),
                    $(Self::$kind(value) => value.room_id(),)*
                    Self::Superseded => None,
                }
            }

            /// Who waits for it. An event is also for those whom it makes a member, or no member any more.
            pub fn audience(&self) -> Audience<'_> {
                match self {
                    Self::Event(logged) => Audience::Room(logged.stored.pdu.room_id()),
                    $(Self::$kind(value) => value.audience(),)*
                    Self::Superseded => Audience::Nobody,
                }
            }

            /// How many bytes it takes in memory, about.
            pub fn bytes(&self) -> usize {
                match self {
                    Self::Event(logged) => logged.bytes(),
                    $(Self::$kind(value) => value.bytes(),)*
                    Self::Superseded => 0,
                }
            }

            /// What the batch row says of it.
            pub fn entry(&self) -> Option<Entry> {
                Some(match self {
                    Self::Event(logged) => Entry::Event(logged.stored.pdu.room_id().to_owned()),
                    $(Self::$kind(value) => Entry::$kind(value.entry()),)*
                    Self::Superseded => return None,
                })
            }
        }
    };
}
each_kind!(of_each_kind);

/// A committed stretch of the log: `news[i]` stands at `first + i`.
#[derive(Debug)]
pub struct Batch {
    pub first: Position,
    pub last: Position,
    pub mark: Mark,
    pub news: Vec<News>,
}

impl Batch {
    /// How many bytes it takes in memory, about.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.news.iter().map(|news| size_of::<News>() + news.bytes()).sum::<usize>()
    }

    /// Each entry with its place.
    pub fn entries(&self) -> impl Iterator<Item = (Position, &News)> {
        (self.first.0..).map(Position).zip(&self.news)
    }
}

impl RoomHead {
    /// Before a room's first event.
    pub fn new(version: RoomVersionId) -> Self {
        Self { version, head: 0, depth: 0, extremities: Vec::new() }
    }

    /// The head once this server takes part in the room by `pdu`, for the first time or again. Whatever it has of the room
    /// from before has been followed by events of others.
    pub fn enter(&mut self, pdu: &Pdu) {
        self.head += 1;
        self.extremities = vec![pdu.event_id().to_owned()];
        self.depth = self.depth.max(pdu.depth());
    }

    /// The head once `pdu` has been appended. Only an accepted event is built upon.
    pub fn follow(&mut self, pdu: &Pdu, standing: Standing) {
        self.head += 1;
        if standing == Standing::Accepted {
            self.extremities.retain(|id| !pdu.prev_events().contains(id));
            self.extremities.push(pdu.event_id().to_owned());
            self.depth = self.depth.max(pdu.depth());
        }
    }
}

impl Write {
    /// A write of one event.
    pub fn event(event: NewEvent) -> Self {
        Self { events: vec![event], ..Self::default() }
    }

    /// A write of one fact.
    pub fn fact(fact: Fact) -> Self {
        Self::facts(vec![fact])
    }

    /// A write of facts alone.
    pub fn facts(facts: Vec<Fact>) -> Self {
        Self { facts, ..Self::default() }
    }

    /// This write, held to a quota if there is one.
    pub fn within(self, quota: Option<WriteQuota>) -> Self {
        Self { quotas: self.quotas.into_iter().chain(quota).collect(), ..self }
    }

    /// How many entries this makes in the log.
    pub fn len(&self) -> usize {
        self.events.len() + self.facts.len()
    }

    /// How long it takes to write, as a number of entries that take as long.
    pub fn load(&self) -> usize {
        let facts = self.facts.iter().map(|fact| match fact {
            Fact::ToDevice(messages) => messages.load(),
            _ => 1,
        });
        // Of a room that is entered again, one event may change much of the state.
        let events = self.events.iter().map(|event| event.changes.len().max(1));
        events.chain(facts).sum()
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl NewEvent {
    /// The event at its place, with everything that it did.
    pub fn at(&self, position: Position) -> Logged {
        Logged {
            stored: Stored {
                key: position.into(),
                order: Order::at(position),
                pdu: Arc::clone(&self.pdu),
                standing: self.standing,
                fork: self.fork.is_some().then_some(position.into()),
                transaction: self.transaction.clone(),
                notifies: self.notifies,
                thread_root: self.thread_root.clone(),
                replaces: self.replaces.clone(),
                follows_gap: !self.missing.is_empty(),
            },
            at: position,
            changes: self.changes.clone(),
            highlights: self.highlights.clone(),
            highlights_everybody: self.highlights_everybody,
            redacted: self.redacted.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id, server_name, user_id};

    use super::*;

    /// Databases hold these, and nodes of other versions read them.
    #[test]
    fn entries_are_stored_as_ever() {
        let (room, user) = (|| room_id!("!a:b").to_owned(), || user_id!("@a:b").to_owned());
        for (entry, stored) in [
            (Entry::Event(room()), r#"{"e":"!a:b"}"#),
            (Entry::Receipt((room(), user())), r#"{"r":["!a:b","@a:b"]}"#),
            (Entry::AccountData((user(), Some(room()))), r#"{"a":["@a:b","!a:b"]}"#),
            (Entry::AccountData((user(), None)), r#"{"a":["@a:b",null]}"#),
            (Entry::Typing((room(), user())), r#"{"t":["!a:b","@a:b"]}"#),
            (Entry::Presence(user()), r#"{"p":"@a:b"}"#),
            (Entry::Forgotten((user(), room())), r#"{"f":["@a:b","!a:b"]}"#),
            (Entry::AccountChange(user()), r#"{"d":"@a:b"}"#),
            (Entry::Listing(room()), r#"{"l":"!a:b"}"#),
            (Entry::OutsideMembership((user(), room())), r#"{"o":["@a:b","!a:b"]}"#),
            (Entry::LateRedaction(event_id!("$a").to_owned()), r#"{"x":"$a"}"#),
            (Entry::DeviceList(DeviceListEntry(user(), Some("D".into()), None)), r#"{"v":["@a:b","D"]}"#),
            (Entry::DeviceList(DeviceListEntry(user(), None, None)), r#"{"v":["@a:b",null]}"#),
            (Entry::DeviceList(DeviceListEntry(user(), None, Some(user()))), r#"{"v":["@a:b",null,"@a:b"]}"#),
            (Entry::KeyCount((user(), "D".into())), r#"{"k":["@a:b","D"]}"#),
            (Entry::ToDevice((user(), vec!["D".into(), "E".into()])), r#"{"m":["@a:b",["D","E"]]}"#),
            (
                Entry::Relay((room(), event_id!("$a").to_owned(), server_name!("c").to_owned())),
                r#"{"s":["!a:b","$a","c"]}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&entry).unwrap(), stored);
            assert_eq!(serde_json::from_str::<Entry>(stored).unwrap(), entry);
        }
    }
}
