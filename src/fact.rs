//! Facts: what is written into the log, and what its readers are told. Values only, no I/O.
//!
//! A [`Write`] goes in, a [`Batch`] of [`News`] comes out, in this process and in every other one.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId,
    RoomVersionId, presence::PresenceState,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    event::{Logged, Pdu, Standing, StateChange, Stored, Transaction},
    position::{Lineage, Mark, Position},
};

/// One act: all of it happens or nothing does.
#[derive(Debug, Default)]
pub struct Write {
    /// In the order in which they follow each other.
    pub events: Vec<NewEvent>,
    pub facts: Vec<Fact>,
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
    pub transaction: Option<Transaction>,
    pub notifies: bool,
    /// The root of the thread that it belongs to.
    pub thread_root: Option<OwnedEventId>,
    /// Whether it is refused if its sender has annotated the same event with the same before.
    pub annotates_once: bool,
    pub highlights: Vec<OwnedUserId>,
    /// The state event whose place it takes.
    pub replaces: Option<Arc<Pdu>>,
    /// The event that it redacts, as that stands from now on.
    pub redacted: Option<Arc<Pdu>>,
}

/// A state that is not the trunk's.
#[derive(Clone, Debug)]
pub struct Fork {
    pub base: ForkBase,
    /// What leads from the base to the state.
    pub changes: Vec<StateChange>,
}

/// What a fork is told by its difference from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkBase {
    /// The trunk just before the event.
    Trunk,
    /// Another stored line, just after a place.
    Line(Lineage, Position),
    /// Nothing at all: the changes are the whole state and become a line of their own.
    Nothing,
}

/// A node in the cluster: a name that it gave itself when it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

/// Everything in the log that is not an event.
#[derive(Clone, Debug)]
pub enum Fact {
    Receipt(Receipt),
    AccountData(AccountData),
    /// The same, refused unless what it replaces still stands at `expected`: [`Position::START`] for nothing.
    AccountDataAfter {
        data: AccountData,
        expected: Position,
    },
    Typing(Typing),
    Presence(Presence),
    Forgotten {
        user_id: OwnedUserId,
        room_id: OwnedRoomId,
    },
    Devices {
        user_id: OwnedUserId,
    },
    /// From here on whoever joins a room gets redacted copies of what this user sent.
    Erased {
        user_id: OwnedUserId,
    },
    AliasAdded {
        alias: OwnedRoomAliasId,
        room_id: OwnedRoomId,
        creator: OwnedUserId,
    },
    AliasRemoved {
        alias: OwnedRoomAliasId,
        room_id: OwnedRoomId,
    },
    Published {
        room_id: OwnedRoomId,
        listed: bool,
    },
}

/// <https://spec.matrix.org/v1.19/client-server-api/#receipts>
#[derive(Clone, Debug)]
pub struct Receipt {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// `m.read` or `m.read.private`.
    pub receipt_type: String,
    /// `main`, a thread root, or empty for an unthreaded receipt.
    pub thread_id: String,
    pub event_id: OwnedEventId,
    pub event_position: Position,
    pub ts: MilliSecondsSinceUnixEpoch,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#client-config>
#[derive(Clone, Debug)]
pub struct AccountData {
    pub user_id: OwnedUserId,
    /// None for global account data.
    pub room_id: Option<OwnedRoomId>,
    pub kind: String,
    pub content: Arc<RawValue>,
}

impl AccountData {
    /// Whether it was deleted: a content with nothing in it is left of that.
    ///
    /// <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>
    pub fn is_deleted(&self) -> bool {
        self.content.get().bytes().filter(|byte| !byte.is_ascii_whitespace()).eq(*b"{}")
    }
}

/// The account data by which somebody takes no invitations.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>
pub const INVITE_PERMISSION: &str = "m.invite_permission_config";

/// Whether somebody takes no invitations who has set this content of [`INVITE_PERMISSION`]. Whatever is not as
/// specified blocks nothing.
pub fn blocks_invites(content: &str) -> bool {
    #[derive(Deserialize)]
    struct Content {
        default_action: String,
    }
    serde_json::from_str::<Content>(content).is_ok_and(|content| content.default_action == "block")
}

/// <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>
#[derive(Clone, Debug)]
pub struct Typing {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// Until when; None once the user has stopped.
    pub until: Option<MilliSecondsSinceUnixEpoch>,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#presence>
#[derive(Clone, Debug)]
pub struct Presence {
    pub user_id: OwnedUserId,
    pub state: PresenceState,
    pub status_msg: Option<String>,
    pub last_active: MilliSecondsSinceUnixEpoch,
    /// When they have said of themselves that they are unavailable or offline, where that holds.
    pub claimed: Option<MilliSecondsSinceUnixEpoch>,
    /// Their devices that are connected.
    pub devices: BTreeMap<OwnedDeviceId, ConnectedDevice>,
}

/// A device that is connected to a node. The short names are what the database holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedDevice {
    /// What it says of its user: online or unavailable.
    #[serde(rename = "s")]
    pub state: PresenceState,
    #[serde(rename = "n")]
    pub node: NodeId,
}

/// One entry of the log as readers get it: complete, whether this node wrote it or another.
#[derive(Clone, Debug)]
pub enum News {
    Event(Arc<Logged>),
    Receipt(Arc<Receipt>),
    AccountData(Arc<AccountData>),
    Typing(Arc<Typing>),
    Presence(Arc<Presence>),
    Forgotten {
        user_id: OwnedUserId,
        room_id: OwnedRoomId,
    },
    Devices {
        user_id: OwnedUserId,
    },
    Erased {
        user_id: OwnedUserId,
    },
    Listing {
        room_id: OwnedRoomId,
    },
    /// Something that another entry has made void: there is nothing left to tell at this place.
    Superseded,
}

/// A committed stretch of the log: `news[i]` stands at `first + i`.
#[derive(Debug)]
pub struct Batch {
    pub first: Position,
    pub last: Position,
    pub mark: Mark,
    pub news: Vec<News>,
}

impl Batch {
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
        Self { events: vec![event], facts: Vec::new() }
    }

    /// A write of one fact.
    pub fn fact(fact: Fact) -> Self {
        Self { events: Vec::new(), facts: vec![fact] }
    }

    /// How many entries this makes in the log.
    pub fn len(&self) -> usize {
        self.events.len() + self.facts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl NewEvent {
    /// The event at its place, with everything that it did.
    pub fn at(&self, position: Position) -> Logged {
        Logged {
            stored: Stored {
                position,
                pdu: Arc::clone(&self.pdu),
                standing: self.standing,
                fork: self.fork.is_some().then_some(position),
                transaction: self.transaction.clone(),
                notifies: self.notifies,
                thread_root: self.thread_root.clone(),
                replaces: self.replaces.clone(),
            },
            changes: self.changes.clone(),
            highlights: self.highlights.clone(),
            redacted: self.redacted.clone(),
        }
    }
}

impl Fact {
    /// Who types, if it says that.
    pub fn typing(&self) -> Option<&Typing> {
        if let Self::Typing(typing) = self { Some(typing) } else { None }
    }

    /// What readers are told of it.
    pub fn news(&self) -> News {
        match self {
            Self::Receipt(receipt) => News::Receipt(Arc::new(receipt.clone())),
            Self::AccountData(data) | Self::AccountDataAfter { data, .. } => News::AccountData(Arc::new(data.clone())),
            Self::Typing(typing) => News::Typing(Arc::new(typing.clone())),
            Self::Presence(presence) => News::Presence(Arc::new(presence.clone())),
            Self::Forgotten { user_id, room_id } => {
                News::Forgotten { user_id: user_id.clone(), room_id: room_id.clone() }
            }
            Self::Devices { user_id } => News::Devices { user_id: user_id.clone() },
            Self::Erased { user_id } => News::Erased { user_id: user_id.clone() },
            Self::AliasAdded { room_id, .. } | Self::AliasRemoved { room_id, .. } | Self::Published { room_id, .. } => {
                News::Listing { room_id: room_id.clone() }
            }
        }
    }
}

impl News {
    /// The room that it concerns, if it concerns one.
    pub fn room_id(&self) -> Option<&RoomId> {
        match self {
            Self::Event(logged) => Some(logged.stored.pdu.room_id()),
            Self::Receipt(receipt) => Some(&receipt.room_id),
            Self::AccountData(data) => data.room_id.as_deref(),
            Self::Typing(typing) => Some(&typing.room_id),
            Self::Forgotten { room_id, .. } | Self::Listing { room_id } => Some(room_id),
            Self::Presence(_) | Self::Devices { .. } | Self::Erased { .. } | Self::Superseded => None,
        }
    }

    /// What the batch row says of it.
    pub fn entry(&self) -> Option<Entry> {
        Some(match self {
            Self::Event(logged) => Entry::Event(logged.stored.pdu.room_id().to_owned()),
            Self::Receipt(receipt) => Entry::Receipt(receipt.room_id.clone(), receipt.user_id.clone()),
            Self::AccountData(data) => Entry::AccountData(data.user_id.clone(), data.room_id.clone()),
            Self::Typing(typing) => Entry::Typing(typing.room_id.clone(), typing.user_id.clone()),
            Self::Presence(presence) => Entry::Presence(presence.user_id.clone()),
            Self::Forgotten { user_id, room_id } => Entry::Forgotten(user_id.clone(), room_id.clone()),
            // Nodes of older versions read that as well. What else it is, is in a table.
            Self::Devices { user_id } | Self::Erased { user_id } => Entry::Devices(user_id.clone()),
            Self::Listing { room_id } => Entry::Listing(room_id.clone()),
            Self::Superseded => return None,
        })
    }
}

/// One entry of the log, in the order of positions. The short names are what the database holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    #[serde(rename = "e")]
    Event(OwnedRoomId),
    #[serde(rename = "r")]
    Receipt(OwnedRoomId, OwnedUserId),
    /// Global where there is no room.
    #[serde(rename = "a")]
    AccountData(OwnedUserId, Option<OwnedRoomId>),
    #[serde(rename = "t")]
    Typing(OwnedRoomId, OwnedUserId),
    #[serde(rename = "p")]
    Presence(OwnedUserId),
    #[serde(rename = "f")]
    Forgotten(OwnedUserId, OwnedRoomId),
    /// Devices or tokens of a user: who is logged in has changed. Or, where the table of erasures names this place, what
    /// the user sent is erased from here on.
    #[serde(rename = "d")]
    Devices(OwnedUserId),
    /// The aliases of a room or whether the directory shows it.
    #[serde(rename = "l")]
    Listing(OwnedRoomId),
}
