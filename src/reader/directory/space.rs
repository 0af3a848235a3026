//! Spaces: rooms that hold rooms, walked depth first.
//!
//! A space may hold itself, by whatever way: a room is walked once. Which of a space's rooms the reader may know of is
//! found out for all of them at once.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, RoomId, UserId, events::space::child::HierarchySpaceChildEvent, serde::Raw};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{Asker, Directory, RoomCard};
use crate::{error::Result, event::Pdu};

/// More rooms are not looked at in one walk, however many a space claims to hold.
const MAX_ROOMS: usize = 10_000;

/// What of a space is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HierarchyQuery {
    pub(crate) suggested_only: bool,
    pub(crate) max_depth: usize,
    /// How many rooms came before.
    pub(crate) skip: usize,
    pub(crate) limit: usize,
}

/// A part of a space.
pub(crate) struct Hierarchy {
    pub(crate) rooms: Vec<Branch>,
    /// Whether there are more.
    pub(crate) more: bool,
}

/// A room of a space with the rooms that it holds itself.
pub(crate) struct Branch {
    pub(crate) card: Arc<RoomCard>,
    pub(crate) children: Vec<Arc<Pdu>>,
}

/// A room still to be walked, and how deep it lies.
struct Step {
    room_id: OwnedRoomId,
    depth: usize,
}

impl Branch {
    /// The children as stripped state with their time.
    pub(crate) fn children_state(&self) -> Vec<Raw<HierarchySpaceChildEvent>> {
        #[derive(Serialize)]
        struct StrippedChild<'a> {
            content: &'a RawValue,
            origin_server_ts: ruma::MilliSecondsSinceUnixEpoch,
            sender: &'a UserId,
            state_key: &'a str,
            #[serde(rename = "type")]
            kind: &'a ruma::events::TimelineEventType,
        }
        let write = |pdu: &Arc<Pdu>| {
            let stripped = StrippedChild {
                content: pdu.content(),
                origin_server_ts: pdu.origin_server_ts(),
                sender: pdu.sender(),
                state_key: pdu.state_key().unwrap_or_default(),
                kind: pdu.kind(),
            };
            Raw::from_json(
                to_raw_value(&stripped).expect("an event's fields are strings and JSON that was read before"),
            )
        };
        self.children.iter().map(write).collect()
    }
}

impl Directory {
    /// Walks a space. None if the room itself is none of the user's business.
    pub(crate) async fn hierarchy(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        walk: HierarchyQuery,
    ) -> Result<Option<Hierarchy>> {
        let mut known: HashMap<OwnedRoomId, Option<Arc<RoomCard>>> = HashMap::new();
        self.look_up(user_id, &[room_id], &mut known).await?;
        if known.get(room_id).is_none_or(Option::is_none) {
            return Ok(None);
        }
        let mut steps = vec![Step { room_id: room_id.to_owned(), depth: 0 }];
        let mut seen: HashSet<OwnedRoomId> = HashSet::new();
        let mut hierarchy = Hierarchy { rooms: Vec::new(), more: false };
        let mut passed = 0;
        // Depth first: a stack, on which the next child lies on top.
        while let Some(Step { room_id, depth }) = steps.pop() {
            if seen.len() >= MAX_ROOMS || !seen.insert(room_id.clone()) {
                continue;
            }
            // Unknown here, or not for the user.
            // A room that is left out counts for nothing, so that a page does not show how many there are.
            let Some(card) = known.get(&room_id).cloned().flatten() else { continue };
            if hierarchy.rooms.len() == walk.limit {
                hierarchy.more = true;
                break;
            }
            let children: Vec<Arc<Pdu>> = if card.is_space() {
                card.children.iter().filter(|child| !walk.suggested_only || is_suggested(child)).cloned().collect()
            } else {
                Vec::new()
            };
            if depth < walk.max_depth {
                let ids: Vec<&RoomId> =
                    // However many children there are, no more than the walk can visit are asked for.
                    children.iter().filter_map(|child| child.state_key()?.try_into().ok()).take(MAX_ROOMS).collect();
                let new: Vec<&RoomId> = ids.iter().copied().filter(|id| !known.contains_key(*id)).collect();
                self.look_up(user_id, &new, &mut known).await?;
                // The first child comes first, with all that it holds.
                steps.extend(ids.into_iter().rev().map(|id| Step { room_id: id.to_owned(), depth: depth + 1 }));
            }
            passed += 1;
            if passed > walk.skip {
                hierarchy.rooms.push(Branch { card, children });
            }
        }
        Ok(Some(hierarchy))
    }

    /// Finds out which of the rooms the user may know of.
    async fn look_up(
        &self,
        user_id: &UserId,
        rooms: &[&RoomId],
        known: &mut HashMap<OwnedRoomId, Option<Arc<RoomCard>>>,
    ) -> Result<()> {
        if rooms.is_empty() {
            return Ok(());
        }
        let mut cards = self.cards(rooms).await?;
        let all: Vec<Arc<RoomCard>> = cards.values().cloned().collect();
        let asker: Asker = self.asker(Some(user_id), &all).await?;
        for room_id in rooms {
            let card = cards.remove(*room_id).filter(|card| asker.may_know(card));
            known.insert((*room_id).to_owned(), card);
        }
        Ok(())
    }
}

/// What is not a boolean suggests nothing.
fn is_suggested(child: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Suggestion {
        suggested: bool,
    }
    child.content_as().is_ok_and(|content: Suggestion| content.suggested)
}
