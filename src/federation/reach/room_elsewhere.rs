//! Rooms that nobody of this server is in, as those see them who are: a summary, and the rooms that a space holds.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>
//!
//! What a server answers about a space also summarises the rooms in it, of which that server may know nothing. It counts
//! where this space is looked at and nowhere else, and is remembered as what this server says of this space.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UInt,
    events::space::child::HierarchySpaceChildEvent, serde::Raw,
};
use serde_json::{Value, json};

use crate::room::read::summary::RoomSummary;

/// How many children of a space are read.
const MOST_CHILDREN: usize = 2_000;
/// How many ways to a child are kept.
const MOST_WAYS: usize = 10;
/// The longest content of a child's event, in bytes: no event is longer.
const MAX_CONTENT: usize = 64 * 1024;
/// What a child takes beside its event, in bytes.
const CHILD_BYTES: usize = 256;

/// A room as one server says it looks from outside.
#[derive(Debug)]
pub(crate) struct RoomElsewhere {
    pub(crate) summary: Arc<RoomSummary>,
    /// The rooms of a space, in the order in which clients show them.
    pub(crate) children: Vec<Arc<ChildElsewhere>>,
    /// Who says so.
    pub(crate) server: OwnedServerName,
    /// What that server says of the children.
    summaries: HashMap<OwnedRoomId, Arc<RoomSummary>>,
    /// Children that this server can't get to know anything of, as that one says.
    closed: HashSet<OwnedRoomId>,
}

/// A room that a space holds.
#[derive(Debug)]
pub(crate) struct ChildElsewhere {
    pub(crate) room_id: OwnedRoomId,
    /// Who is in it.
    pub(crate) via: Vec<OwnedServerName>,
    pub(crate) suggested: bool,
    /// As stripped state with its time, written anew of what makes sense.
    pub(crate) event: Raw<HierarchySpaceChildEvent>,
    /// By what it is sorted.
    order: Option<String>,
    sent: UInt,
}

impl RoomElsewhere {
    /// Reads an answer about a room. None if it is not about that one.
    pub(super) fn read(said: &Value, room_id: &RoomId, server: &ServerName) -> Option<Self> {
        let room = said.get("room")?;
        let summary = RoomSummary::read(room).filter(|summary| summary.room_id == room_id)?;
        let mut seen: HashSet<OwnedRoomId> = HashSet::new();
        let mut children: Vec<ChildElsewhere> = list(room, "children_state")
            .filter_map(ChildElsewhere::read)
            .filter(|child| seen.insert(child.room_id.clone()))
            .collect();
        children.sort_by(|one, other| one.rank().cmp(&other.rank()));
        let children = children.into_iter().map(Arc::new).collect();
        // A server may say what it likes of rooms that the space does not hold: it was not asked.
        let summaries = list(said, "children").filter_map(RoomSummary::read);
        let summaries = summaries.filter(|child| seen.contains(&child.room_id));
        let closed = list(said, "inaccessible_children");
        let closed = closed.filter_map(|room_id| OwnedRoomId::try_from(room_id.as_str()?).ok());
        Some(Self {
            summary: Arc::new(summary),
            server: server.to_owned(),
            summaries: summaries.map(|child| (child.room_id.clone(), Arc::new(child))).collect(),
            closed: closed.filter(|child| seen.contains(child)).collect(),
            children,
        })
    }

    /// What the server says of a room that this one holds.
    pub(crate) fn find_summary(&self, child: &RoomId) -> Option<&Arc<RoomSummary>> {
        self.summaries.get(child)
    }

    /// Whether the server says that nothing is to be had of a room that this one holds.
    pub(crate) fn is_closed(&self, child: &RoomId) -> bool {
        self.closed.contains(child)
    }

    /// How many bytes it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let children = self.children.iter().map(|child| CHILD_BYTES + child.event.json().get().len());
        let summaries = self.summaries.values().chain([&self.summary]);
        let summaries = summaries.map(|summary| size_of::<RoomSummary>() + 2 * summary.bytes());
        let closed = self.closed.iter().map(|room_id| CHILD_BYTES + room_id.as_str().len());
        children.chain(summaries).chain(closed).sum()
    }
}

impl ChildElsewhere {
    /// Reads the stripped event of a child. None of what is none, or leads nowhere.
    fn read(said: &Value) -> Option<Self> {
        let text = |field: &str| said.get(field).and_then(Value::as_str);
        if text("type") != Some("m.space.child") {
            return None;
        }
        let room_id = OwnedRoomId::try_from(text("state_key")?).ok()?;
        let sender = OwnedUserId::try_from(text("sender")?).ok()?;
        let sent = said.get("origin_server_ts").and_then(Value::as_u64);
        let sent = sent.and_then(|sent| UInt::try_from(sent).ok()).unwrap_or_default();
        let content = said.get("content").filter(|content| content.is_object())?;
        if content.to_string().len() > MAX_CONTENT {
            return None;
        }
        let via = content.get("via")?.as_array()?.iter().take(MOST_WAYS);
        let via: Vec<OwnedServerName> = via.filter_map(|server| server.as_str()?.try_into().ok()).collect();
        if via.is_empty() {
            return None;
        }
        let order = content.get("order").and_then(Value::as_str);
        let is_valid = |order: &&str| order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        let order = order.filter(is_valid).map(ToOwned::to_owned);
        let suggested = content.get("suggested") == Some(&Value::Bool(true));
        let event = json!({
            "content": content,
            "origin_server_ts": MilliSecondsSinceUnixEpoch(sent),
            "sender": sender,
            "state_key": room_id,
            "type": "m.space.child",
        });
        let event = Raw::from_json_string(event.to_string()).ok()?;
        Some(Self { room_id, via, suggested, event, order, sent })
    }

    /// Those without an order come last.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space>
    fn rank(&self) -> (bool, Option<&str>, UInt, &RoomId) {
        (self.order.is_none(), self.order.as_deref(), self.sent, &self.room_id)
    }
}

/// What a list in an answer holds, as much of it as is read.
fn list<'a>(said: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    said.get(field).and_then(Value::as_array).into_iter().flatten().take(MOST_CHILDREN)
}
