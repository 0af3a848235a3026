//! Spaces: rooms that hold rooms, walked depth first.
//!
//! A space may hold itself, by whatever way: a room is walked once. Which of a space's rooms the reader may know of is
//! found out for all of them at once.
//!
//! Rooms that nobody of this server is in are looked at through servers that are in them: those that the space names, and
//! the one that has told of the space. What is known here counts before what another server says. Such rooms are asked for
//! some at once, as many as a page may need, and no longer than a client waits; what does not come is left out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, UserId, events::space::child::HierarchySpaceChildEvent, room::RoomType,
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, timeout_at};

use super::{Directory, RoomCard};
use crate::{
    error::Result,
    event::Pdu,
    federation::reach::{ChildElsewhere, RoomElsewhere},
    room::read::summary::RoomSummary,
};

/// More rooms are not looked at in one walk, however many a space claims to hold.
const MAX_ROOMS: usize = 10_000;
/// How many rooms others are asked about at once, and in one walk.
const ASKED_AT_ONCE: usize = 8;
const MOST_ASKED: usize = 200;
/// How long a walk waits for others in all.
const PATIENCE: Duration = Duration::from_secs(12);

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
    pub(crate) summary: Arc<RoomSummary>,
    pub(super) children: Vec<SpaceChild>,
}

/// A room that a space holds, as the space says it.
#[derive(Clone)]
pub(super) enum SpaceChild {
    Here(Arc<Pdu>),
    Elsewhere(Arc<ChildElsewhere>),
}

/// A room still to be walked.
struct Step {
    room_id: OwnedRoomId,
    /// How deep it lies.
    depth: usize,
    /// Who is in it, as the space says that holds it.
    via: Vec<OwnedServerName>,
    /// That space, if it was looked at elsewhere.
    space: Option<Arc<RoomElsewhere>>,
}

/// What is known here of a room of a space.
enum Known {
    Here(Arc<RoomCard>),
    /// The reader may not know of it.
    Hidden,
    /// Nobody of this server is in it. As it was when somebody was, if ever.
    Elsewhere(Option<Arc<RoomCard>>),
}

/// A room, and those that it holds.
struct Found {
    summary: Arc<RoomSummary>,
    children: Vec<SpaceChild>,
    elsewhere: Option<Arc<RoomElsewhere>>,
}

/// A room, and whom to ask about it.
type Asked = (OwnedRoomId, Vec<OwnedServerName>);

/// A walk through a space.
struct SpaceWalk<'a> {
    directory: &'a Directory,
    user_id: &'a UserId,
    query: HierarchyQuery,
    known: HashMap<OwnedRoomId, Known>,
    /// What came of asking. By whom was asked, too: what one space's servers say is not taken for what another's do.
    asked: HashMap<Asked, Option<Arc<RoomElsewhere>>>,
    deadline: Instant,
}

impl Branch {
    /// The children as stripped state with their time.
    pub(crate) fn children_state(&self) -> Vec<Raw<HierarchySpaceChildEvent>> {
        self.children.iter().map(SpaceChild::event).collect()
    }
}

impl SpaceChild {
    pub(super) fn room_id(&self) -> Option<OwnedRoomId> {
        match self {
            Self::Here(event) => event.state_key()?.try_into().ok(),
            Self::Elsewhere(child) => Some(child.room_id.clone()),
        }
    }

    fn via(&self) -> Vec<OwnedServerName> {
        match self {
            Self::Here(event) => RoomCard::ways_to(event),
            Self::Elsewhere(child) => child.via.clone(),
        }
    }

    fn event(&self) -> Raw<HierarchySpaceChildEvent> {
        #[derive(Serialize)]
        struct StrippedChild<'a> {
            content: &'a RawValue,
            origin_server_ts: ruma::MilliSecondsSinceUnixEpoch,
            sender: &'a UserId,
            state_key: &'a str,
            #[serde(rename = "type")]
            kind: &'a ruma::events::TimelineEventType,
        }
        let event = match self {
            Self::Here(event) => event,
            Self::Elsewhere(child) => return child.event.clone(),
        };
        let stripped = StrippedChild {
            content: event.content(),
            origin_server_ts: event.origin_server_ts(),
            sender: event.sender(),
            state_key: event.state_key().unwrap_or_default(),
            kind: event.kind(),
        };
        Raw::from_json(to_raw_value(&stripped).expect("an event's fields are strings and JSON that was read before"))
    }
}

impl Found {
    fn here(card: &RoomCard, suggested_only: bool) -> Self {
        let children = children_of(card, suggested_only);
        Self { summary: Arc::clone(&card.summary), children, elsewhere: None }
    }

    fn elsewhere(room: Arc<RoomElsewhere>, suggested_only: bool) -> Self {
        let is_space = room.summary.room_type == Some(RoomType::Space);
        let children = room.children.iter().filter(|child| is_space && (!suggested_only || child.suggested));
        let children = children.cloned().map(SpaceChild::Elsewhere).collect();
        Self { summary: Arc::clone(&room.summary), children, elsewhere: Some(room) }
    }
}

impl Step {
    /// What the server says of the room that has told of the space.
    fn said(&self) -> Option<&Arc<RoomSummary>> {
        self.space.as_ref()?.find_summary(&self.room_id)
    }

    /// Whether that server says that nobody of this one can get to know it.
    fn is_closed(&self) -> bool {
        self.space.as_ref().is_some_and(|space| space.is_closed(&self.room_id))
    }

    fn asked(&self) -> Asked {
        let told_by = self.space.as_ref().map(|space| space.server.clone());
        (self.room_id.clone(), self.via.iter().cloned().chain(told_by).collect())
    }
}

impl Directory {
    /// Walks a space. None if the room itself is none of the user's business.
    pub(crate) async fn hierarchy(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        query: HierarchyQuery,
    ) -> Result<Option<Hierarchy>> {
        let deadline = Instant::now() + PATIENCE;
        let (known, asked) = (HashMap::new(), HashMap::new());
        let mut walk = SpaceWalk { directory: self, user_id, query, known, asked, deadline };
        walk.look_up(&[room_id]).await?;
        // Older rooms are known to the server that their identifier names.
        let via = room_id.server_name().map(ToOwned::to_owned).into_iter().collect();
        walk.run(Step { room_id: room_id.to_owned(), depth: 0, via, space: None }).await
    }
}

impl SpaceWalk<'_> {
    async fn run(&mut self, root: Step) -> Result<Option<Hierarchy>> {
        let mut steps = vec![root];
        let mut seen: HashSet<OwnedRoomId> = HashSet::new();
        let mut hierarchy = Hierarchy { rooms: Vec::new(), more: false };
        let mut passed = 0;
        // Depth first: a stack, on which the next child lies on top.
        while let Some(step) = steps.pop() {
            if seen.len() >= MAX_ROOMS || !seen.insert(step.room_id.clone()) {
                continue;
            }
            self.ask_ahead(&step, &steps, &seen).await;
            // Unknown here and elsewhere, or not for the user.
            // A room that is left out counts for nothing, so that a page does not show how many there are.
            let Some(found) = self.find(&step).await? else {
                if step.depth == 0 {
                    return Ok(None);
                }
                continue;
            };
            if hierarchy.rooms.len() == self.query.limit {
                hierarchy.more = true;
                break;
            }
            if step.depth < self.query.max_depth {
                // The first child comes first, with all that it holds.
                let mut inside = self.step_into(&found, step.depth + 1).await?;
                inside.reverse();
                steps.append(&mut inside);
            }
            passed += 1;
            if passed > self.query.skip {
                hierarchy.rooms.push(Branch { summary: found.summary, children: found.children });
            }
        }
        Ok(Some(hierarchy))
    }

    /// The children of a room, in their order.
    async fn step_into(&mut self, found: &Found, depth: usize) -> Result<Vec<Step>> {
        let step = |child: &SpaceChild| {
            Some(Step { room_id: child.room_id()?, depth, via: child.via(), space: found.elsewhere.clone() })
        };
        // However many children there are, no more than the walk can visit are asked for.
        let steps: Vec<Step> = found.children.iter().filter_map(step).take(MAX_ROOMS).collect();
        let new: Vec<&RoomId> =
            steps.iter().map(|step| &*step.room_id).filter(|room_id| !self.known.contains_key(*room_id)).collect();
        self.look_up(&new).await?;
        Ok(steps)
    }

    /// Finds out what is known here of rooms, and which of them the user may know of.
    async fn look_up(&mut self, rooms: &[&RoomId]) -> Result<()> {
        if rooms.is_empty() {
            return Ok(());
        }
        let mut cards = self.directory.cards(rooms).await?;
        let summaries: Vec<&Arc<RoomSummary>> = cards.values().map(|card| &card.summary).collect();
        let asker = self.directory.asker(Some(self.user_id), &summaries).await?;
        for room_id in rooms {
            let known = match cards.remove(*room_id) {
                Some(card) if !asker.may_know(&card.summary) && card.is_resident => Known::Hidden,
                Some(card) if card.is_resident => Known::Here(card),
                card => Known::Elsewhere(card.filter(|card| asker.may_know(&card.summary))),
            };
            self.known.insert((*room_id).to_owned(), known);
        }
        Ok(())
    }

    /// Whether others have to be asked about a room.
    fn needs_asking(&self, step: &Step) -> bool {
        let is_elsewhere = matches!(self.known.get(&step.room_id), Some(Known::Elsewhere(_)));
        let wants_children =
            |said: &Arc<RoomSummary>| said.room_type == Some(RoomType::Space) && step.depth < self.query.max_depth;
        is_elsewhere && !step.is_closed() && step.said().is_none_or(wants_children)
    }

    /// Asks about a room, and about some that are walked after it.
    async fn ask_ahead(&mut self, step: &Step, rest: &[Step], seen: &HashSet<OwnedRoomId>) {
        if !self.needs_asking(step) || self.asked.contains_key(&step.asked()) {
            return;
        }
        let ahead = rest.iter().rev().filter(|next| !seen.contains(&next.room_id) && self.needs_asking(next));
        let mut wanted: Vec<Asked> = vec![step.asked()];
        for next in ahead.take(ASKED_AT_ONCE - 1).map(Step::asked) {
            if !self.asked.contains_key(&next) && !wanted.contains(&next) {
                wanted.push(next);
            }
        }
        wanted.truncate(MOST_ASKED.saturating_sub(self.asked.len()));
        let reach = &self.directory.0.reach;
        let asking = wanted.iter().map(|(room_id, servers)| reach.find_room(room_id, servers));
        let answers = timeout_at(self.deadline, join_all(asking)).await.unwrap_or_default();
        let mut answers = answers.into_iter();
        for one in wanted {
            self.asked.insert(one, answers.next().flatten());
        }
    }

    /// A room as far as the user may know of it.
    async fn find(&self, step: &Step) -> Result<Option<Found>> {
        let suggested_only = self.query.suggested_only;
        let last_known = match self.known.get(&step.room_id) {
            Some(Known::Here(card)) => return Ok(Some(Found::here(card, suggested_only))),
            Some(Known::Hidden) | None => return Ok(None),
            Some(Known::Elsewhere(card)) => card.as_ref().map(|card| Found::here(card, suggested_only)),
        };
        if step.is_closed() {
            return Ok(None);
        }
        let whole = if self.needs_asking(step) { self.asked.get(&step.asked()).cloned().flatten() } else { None };
        let found = match (whole, step.said()) {
            (Some(room), _) => Found::elsewhere(room, suggested_only),
            (None, Some(said)) => Found { summary: Arc::clone(said), children: Vec::new(), elsewhere: None },
            // What it was when somebody of this server was there, and was looked at then.
            (None, None) => return Ok(last_known),
        };
        let mut asker = self.directory.asker(Some(self.user_id), &[&found.summary]).await?;
        self.directory.learn_from_outside(&mut asker, self.user_id, &step.room_id).await?;
        Ok(asker.may_know(&found.summary).then_some(found))
    }
}

/// The rooms that one holds, if it is a space.
pub(super) fn children_of(card: &RoomCard, suggested_only: bool) -> Vec<SpaceChild> {
    if !card.is_space() {
        return Vec::new();
    }
    let children = card.children.iter().filter(|child| !suggested_only || is_suggested(child));
    children.cloned().map(SpaceChild::Here).collect()
}

/// What is not a boolean suggests nothing.
fn is_suggested(child: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Suggestion {
        suggested: bool,
    }
    child.content_as().is_ok_and(|content: Suggestion| content.suggested)
}
