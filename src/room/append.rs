//! The one door: everything that becomes part of a room's history comes through here.
//!
//! Events are built on the room's pending head, one after the other under the room's lock, and queued for
//! the committer in that order; the lock is not held while they are committed. Where the database has another
//! head, because another node wrote or an earlier write failed, everything that was built on the wrong one
//! comes back as stale and is built again.

use std::sync::Arc;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, RoomVersionId, ServerName, events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};

use super::{Room, Rooms, State, auth, highlight};
use crate::{
    error::{Error, Result},
    event::{self, Draft, DraftError, Pdu, Place, Standing, StateChange, Transaction},
    fact::{Fact, NewEvent, RoomHead, Write},
    log::CommitError,
    store,
};

/// How often a write is built again before the caller is told to try later.
const ATTEMPTS: usize = 16;

/// What the next event of a room is built on.
#[derive(Clone, Debug)]
pub struct Head {
    pub room: RoomHead,
    pub rules: &'static RoomVersionRules,
    pub state: State,
}

/// The head with everything that is on its way to the database.
#[derive(Default)]
pub struct Pending {
    head: Option<Head>,
    /// Counts how often the head was dropped, so that a failed write drops only what was built on it.
    generation: u64,
}

/// What somebody wants to do to a room.
#[derive(Debug, Default)]
pub struct Plan {
    pub proposals: Vec<Proposal>,
    /// Facts that hold if and only if the events do.
    pub facts: Vec<Fact>,
}

/// An event of a plan.
#[derive(Debug)]
pub struct Proposal {
    pub draft: Draft,
    pub transaction: Option<Transaction>,
    /// The event that the draft redacts, as it stands.
    pub redacts: Option<Arc<Pdu>>,
}

impl From<Draft> for Proposal {
    fn from(draft: Draft) -> Self {
        Self { draft, transaction: None, redacts: None }
    }
}

impl Plan {
    /// Nothing is to be done.
    pub fn nothing() -> Self {
        Self::default()
    }

    pub fn of(proposal: impl Into<Proposal>) -> Self {
        Self { proposals: vec![proposal.into()], facts: Vec::new() }
    }
}

/// What became of a plan.
#[derive(Clone, Debug)]
pub enum Appended {
    /// The events, in order. None if the plan was to do nothing.
    Done(Vec<Arc<Pdu>>),
    /// The plan's transaction had been done before, with this event.
    Before(OwnedEventId),
}

impl Appended {
    /// The identifier of the last event, which is the one that was asked for.
    pub fn event_id(&self) -> Option<&EventId> {
        match self {
            Self::Done(events) => events.last().map(|pdu| pdu.event_id()),
            Self::Before(event_id) => Some(event_id),
        }
    }
}

impl Rooms {
    /// Appends what `plan` makes of the room's head. It is called again if the head turns out to be another.
    /// An error of the plan is the answer, and nothing happens.
    pub async fn append(&self, room_id: &RoomId, plan: impl Fn(&Head) -> Result<Plan>) -> Result<Appended> {
        for _ in 0..ATTEMPTS {
            let room = self.get(room_id).await?;
            let mut pending = room.pending.lock().await;
            let mut head = pending.head.take().unwrap_or_else(|| committed_head(&room));
            let built = match plan(&head) {
                Ok(plan) => self.build(&mut head, Some(room_id), plan),
                Err(error) => Err((true, error)),
            };
            let (write, pdus) = match built {
                Ok(built) => built,
                Err((kept, error)) => {
                    pending.head = kept.then_some(head);
                    return Err(error);
                }
            };
            if write.is_empty() {
                pending.head = Some(head);
                return Ok(Appended::Done(Vec::new()));
            }
            let submitted = self.0.log.submit(write);
            pending.head = Some(head);
            let generation = pending.generation;
            drop(pending);
            match submitted.committed().await {
                Ok(_) => return Ok(Appended::Done(pdus)),
                Err(error) => {
                    forget_pending(&room, generation).await;
                    match error {
                        CommitError::Stale(_) => self.reach_the_database().await?,
                        CommitError::Duplicate(event_id) => return Ok(Appended::Before(event_id)),
                        error => return Err(error.into()),
                    }
                }
            }
        }
        Err(Error::Unavailable(format!("room {room_id} moves faster than this server can write to it")))
    }

    /// Appends the first events of a room that does not exist yet and gives its identifier through the first.
    pub async fn found(&self, version: RoomVersionId, room_id: Option<&RoomId>, plan: Plan) -> Result<Vec<Arc<Pdu>>> {
        let rules = event::rules(&version).ok_or_else(|| {
            let kind = ruma::api::error::ErrorKind::UnsupportedRoomVersion;
            Error::refused(kind, format!("Room version {version} is not supported: 6 to 12 are"))
        })?;
        let mut head = Head { room: RoomHead::new(version), rules, state: State::default() };
        let (write, pdus) = self.build(&mut head, room_id, plan).map_err(|(_, error)| error)?;
        self.0.log.append(write).await?;
        Ok(pdus)
    }

    /// Waits until this node has read what the database holds now.
    async fn reach_the_database(&self) -> Result<()> {
        let last = store::log::last_position(&mut self.0.db.read().await?).await?;
        self.0.log.tail().look();
        self.0.log.tail().wait_for(last).await;
        Ok(())
    }

    /// Builds a plan's events on `head`, each on the one before. On error tells whether `head` is untouched.
    fn build(
        &self,
        head: &mut Head,
        room_id: Option<&RoomId>,
        plan: Plan,
    ) -> Result<(Write, Vec<Arc<Pdu>>), (bool, Error)> {
        let mut write = Write { events: Vec::with_capacity(plan.proposals.len()), facts: plan.facts };
        let mut pdus = Vec::with_capacity(plan.proposals.len());
        for (done, proposal) in plan.proposals.into_iter().enumerate() {
            let room_id = room_id.or_else(|| pdus.first().map(|first: &Arc<Pdu>| first.room_id()));
            let event = self.build_event(head, room_id, proposal).map_err(|error| (done == 0, error))?;
            pdus.push(Arc::clone(&event.pdu));
            write.events.push(event);
        }
        Ok((write, pdus))
    }

    fn build_event(&self, head: &mut Head, room_id: Option<&RoomId>, proposal: Proposal) -> Result<NewEvent> {
        let Proposal { draft, transaction, redacts } = proposal;
        let content = serde_json::value::to_raw_value(&draft.content).map_err(Error::broken)?;
        let (kind, state_key) = (draft.kind.clone(), draft.state_key.clone());
        let auth_events =
            auth::auth_events(&head.state, &kind, &draft.sender, state_key.as_deref(), &content, head.rules)
                .map_err(Error::bad_json)?;
        let place = Place {
            room_id: room_id_for(room_id, &kind, head.rules),
            depth: head.room.depth + 1,
            prev_events: head.room.extremities.clone(),
            auth_events,
        };
        let pdu =
            draft.sign(&place, self.now(), &self.0.server_name, &self.0.key, head.rules).map_err(refused_draft)?;
        auth::check(&pdu, &head.state)
            .map_err(|rule| Error::forbidden(format!("The room does not allow this: {rule}")))?;
        let pdu = Arc::new(pdu);
        Ok(accept(head, pdu, transaction, redacts.as_deref(), &self.0.server_name))
    }

    pub(super) fn now(&self) -> MilliSecondsSinceUnixEpoch {
        self.0.clock.now()
    }
}

/// Adds an event that follows the head directly: the linear case, in which state needs no resolution.
fn accept(
    head: &mut Head,
    pdu: Arc<Pdu>,
    transaction: Option<Transaction>,
    redacts: Option<&Pdu>,
    here: &ServerName,
) -> NewEvent {
    let attention = highlight::attention(&pdu, &head.state, here);
    let redacted = redacts.and_then(|target| match target.redacted(Arc::clone(&pdu)) {
        Ok(redacted) => Some(Arc::new(redacted)),
        Err(error) => {
            tracing::error!(%error, event_id = %target.event_id(), "an event could not be redacted");
            None
        }
    });
    let mut changes = Vec::new();
    let mut replaces = None;
    if let Some(state_key) = pdu.state_key() {
        let change = StateChange {
            kind: pdu.kind().to_string(),
            state_key: state_key.to_owned(),
            event: Some(Arc::clone(&pdu)),
        };
        replaces = head.state.apply(&change);
        changes.push(change);
    }
    if let Some(redacted) = &redacted {
        head.state.redact(redacted);
    }
    head.room.follow(&pdu, Standing::Accepted);
    NewEvent {
        standing: Standing::Accepted,
        head: head.room.clone(),
        fork: None,
        changes,
        transaction,
        notifies: attention.notifies,
        thread_root: attention.thread_root,
        highlights: attention.highlights,
        replaces,
        redacted,
        pdu,
    }
}

fn committed_head(room: &Room) -> Head {
    room.view(|view| Head { room: view.head.clone(), rules: view.rules, state: view.state.clone() })
}

async fn forget_pending(room: &Room, generation: u64) {
    let mut pending = room.pending.lock().await;
    if pending.generation == generation {
        pending.head = None;
        pending.generation += 1;
    }
}

/// Since room version 12 the create event names no room: it becomes the room's name.
fn room_id_for(
    room_id: Option<&RoomId>,
    kind: &TimelineEventType,
    rules: &RoomVersionRules,
) -> Option<ruma::OwnedRoomId> {
    let nameless = *kind == TimelineEventType::RoomCreate && !rules.event_format.require_room_create_room_id;
    room_id.filter(|_| !nameless).map(ToOwned::to_owned)
}

fn refused_draft(error: DraftError) -> Error {
    use ruma::api::error::ErrorKind;
    match error {
        DraftError::TooLarge { .. } => Error::refused(ErrorKind::TooLarge, error.to_string()),
        DraftError::FieldTooLong { .. } | DraftError::Nul { .. } => {
            Error::refused(ErrorKind::InvalidParam, error.to_string())
        }
        DraftError::Pdu(error) => Error::bad_json(error.to_string()),
    }
}
