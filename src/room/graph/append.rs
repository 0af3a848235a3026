//! The one door for what this server writes into rooms: each event of its users is built here. Events of other servers
//! come in through `receive.rs`, history that is fetched later through `history.rs`.
//!
//! Events are built on the room's pending head, one after the other under the room's lock, and queued for
//! the committer in that order; the lock is not held while they are committed. Where the database has another
//! head, because another node wrote or an earlier write failed, everything that was built on the wrong one
//! comes back as stale and is built again.
//!
//! An event that was answered is in the database and in the room's view. One whose process died before that may be
//! there or not; its transaction id finds it.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use ruma::{
    CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId,
    ServerName, UserId, api::error::ErrorKind, events::TimelineEventType, room_version_rules::RoomVersionRules,
};

use super::{
    auth,
    head::Head,
    highlight,
    room::Room,
    rooms::{Inner, Rooms},
    state::State,
    thread::Related,
};
use crate::{
    error::{Error, Result},
    event::{
        Draft, DraftError, GraphPlace, Pdu, Standing, StateChange, Transaction,
        fact::{CopiedFields, ExpectedAccount, Fact, NewEvent, RoomHead, SenderToOthers, Write, WriteQuota},
    },
    ground::room_version,
    log::{CommitError, Submitted},
    store,
};

/// How often a write is built again before the caller gets the error that they may try later. Where several nodes write
/// to one room, only one of them wins each time.
pub(in crate::room) const ATTEMPTS: u32 = 64;
/// How long to step back at most before a write is built again.
const STEP_BACK: Duration = Duration::from_millis(40);
/// How many of the newest extremities a new event follows at most. The others stay, for later ones.
const MAX_PREV_EVENTS: usize = 10;
/// How long to wait for a write that may have failed before looking again.
const PATIENCE: Duration = Duration::from_secs(1);

/// What somebody wants to do to a room. Events and facts of one plan become one write: all of them are committed or
/// none.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which they are built, each on the one before.
    pub proposals: Vec<Proposal>,
    /// Facts that hold if and only if the events do.
    pub facts: Vec<Fact>,
    /// To which all of it is held.
    pub quotas: Vec<WriteQuota>,
    /// The event that has already done what is wanted. Nothing is written then.
    pub done_by: Option<OwnedEventId>,
}

/// An event of a plan.
#[derive(Debug)]
pub struct Proposal {
    pub draft: Draft,
    /// By which the judge recognises a retry.
    pub transaction: Option<Transaction>,
    /// The event that the draft redacts, as it stands.
    pub redacts: Option<Arc<Pdu>>,
    /// What it has to do with another event, where that has been looked up.
    pub(crate) related: Related,
    /// What a membership event that makes somebody a member has copied from their profile. If that is another when the
    /// event is committed, the write comes back as [`Error::Conflict`].
    pub copied: CopiedFields,
}

impl From<Draft> for Proposal {
    fn from(draft: Draft) -> Self {
        Self { draft, transaction: None, redacts: None, related: Related::default(), copied: CopiedFields::new() }
    }
}

impl Plan {
    /// Nothing is to be done. [`Appended::Done`] without an event is the answer then.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// One event, and no facts.
    pub fn of(proposal: impl Into<Proposal>) -> Self {
        Self { proposals: vec![proposal.into()], ..Self::default() }
    }

    /// No event, only facts.
    pub fn facts(facts: Vec<Fact>) -> Self {
        Self { facts, ..Self::default() }
    }

    /// This plan, held to a quota if there is one.
    pub fn within(self, quota: Option<WriteQuota>) -> Self {
        Self { quotas: self.quotas.into_iter().chain(quota).collect(), ..self }
    }

    /// What is wanted is so already, by this event. The head is confirmed to be the current one before that is
    /// believed.
    pub fn done_by(event_id: &EventId) -> Self {
        Self { done_by: Some(event_id.to_owned()), ..Self::default() }
    }
}

/// The first events of a room that does not exist yet. The create event first.
#[derive(Debug)]
pub struct NewRoomEvents {
    pub version: RoomVersionId,
    pub proposals: Vec<Proposal>,
}

/// What became of a plan.
#[derive(Clone, Debug)]
pub enum Appended {
    /// The events, in order. None if the plan was to do nothing.
    Done(Vec<Arc<Pdu>>),
    /// It had been done before, with this event.
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

/// A write that was built, and the events in it.
type Built = (Write, Vec<Arc<Pdu>>);

/// One try at a write.
enum WriteAttempt {
    /// It is in the queue, built on everything up to this generation.
    Submitted(Submitted, Vec<Arc<Pdu>>, u64),
    /// Nothing is to be written, by what was known of the room at a head.
    Verdict { verdict: Result<Appended>, head: RoomHead, generation: u64 },
}

impl Rooms {
    /// Appends what `plan` makes of the room's head. It is called again if the head turns out to be another.
    /// An error of the plan is the answer, and nothing happens.
    ///
    /// `plan` runs under the room's lock and does no I/O. An error is only returned once the head that it was found at
    /// is known to be the committed one: a plan that is refused on a head that never came to be is tried again.
    ///
    /// Errors of this function itself are `M_NOT_FOUND` for a room that is not held here, `M_FORBIDDEN` and
    /// `M_BAD_JSON` where the authorization rules refuse an event, and `Unavailable`.
    pub async fn append(&self, room_id: &RoomId, plan: impl Fn(&Head) -> Result<Plan>) -> Result<Appended> {
        self.append_built(room_id, |head| {
            let plan = plan(head)?;
            match plan.done_by {
                Some(event_id) => Ok(Err(event_id)),
                None => self.build(head, Some(room_id), plan).map(Ok),
            }
        })
        .await
    }

    /// Founds a room with nothing beside it, and returns its identifier.
    #[cfg(test)]
    pub(crate) async fn create_room(&self, founding: NewRoomEvents) -> Result<OwnedRoomId> {
        type Nothing = fn(&RoomId, &State) -> BoxFuture<'static, Result<Vec<Proposal>>>;
        self.create_room_with((founding, Vec::new()), |_| Ok(Vec::new()), None::<Nothing>).await
    }

    /// Founds a room and returns its identifier: with facts that hold if and only if it is there, and with events that
    /// can only be thought of once it has an identifier and a state. If either fails, there is no room. Nobody thinks of
    /// `more` where the room is known to be beyond a quota: what that does may not be undone.
    pub(in crate::room) async fn create_room_with<'a>(
        &self,
        (founding, quotas): (NewRoomEvents, Vec<WriteQuota>),
        facts: impl FnOnce(&RoomId) -> Result<Vec<Fact>>,
        more: Option<impl FnOnce(&RoomId, &State) -> BoxFuture<'a, Result<Vec<Proposal>>>>,
    ) -> Result<OwnedRoomId> {
        // Nobody else can know the room, so no lock is taken and the write can't be stale.
        let (room_id, mut head, (mut write, _)) = self.build_new(founding)?;
        write.facts.extend(facts(&room_id)?);
        write.quotas.extend(quotas);
        if let Some(more) = more {
            self.0.log.check_quotas(&write).await?;
            let proposals = more(&room_id, &head.state).await?;
            let (further, _) = self.build(&mut head, Some(&room_id), Plan { proposals, ..Plan::default() })?;
            write.events.extend(further.events);
        }
        self.0.log.append(write).await?;
        Ok(room_id)
    }

    /// Founds a room that takes the place of another, in one write: `plan` looks at the old room and says how
    /// the new one begins and, once that has an identifier, what happens to the old one; or which event has had the old
    /// room replaced already. Returns the identifier of the new room, or that event.
    pub async fn create_successor<F>(
        &self,
        old: &RoomId,
        plan: impl Fn(&Head) -> Result<Result<(NewRoomEvents, F), OwnedEventId>>,
    ) -> Result<Result<OwnedRoomId, OwnedEventId>>
    where
        F: FnOnce(&RoomId) -> Plan,
    {
        let appended = self.append_built(old, |head| {
            let (founding, then) = match plan(head)? {
                Ok(replacement) => replacement,
                Err(event_id) => return Ok(Err(event_id)),
            };
            // Anew in each attempt: the new room's identifier may depend on what its first events say.
            let (room_id, _, (mut write, mut pdus)) = self.build_new(founding)?;
            let (in_old, pdus_in_old) = self.build(head, Some(old), then(&room_id))?;
            write.events.extend(in_old.events);
            write.facts.extend(in_old.facts);
            write.quotas.extend(in_old.quotas);
            pdus.extend(pdus_in_old);
            Ok(Ok((write, pdus)))
        });
        match appended.await? {
            Appended::Done(pdus) => {
                let new = pdus.first().map(|create| create.room_id().to_owned());
                new.map(Ok).ok_or_else(|| Error::broken("a room was founded without events"))
            }
            Appended::Before(event_id) => Ok(Err(event_id)),
        }
    }

    /// Builds on the room's pending head, under its lock, and waits for the log. The inner error of `build` is
    /// the event that makes a write needless.
    async fn append_built(
        &self,
        room_id: &RoomId,
        build: impl Fn(&mut Head) -> Result<Result<Built, OwnedEventId>>,
    ) -> Result<Appended> {
        let mut looked = false;
        for attempt in 0..ATTEMPTS {
            // Whether its sender may do this in a room that nobody is in any more, the room's state says.
            let room = self.get_held(room_id).await?;
            match self.attempt(&room, &build).await {
                WriteAttempt::Submitted(submitted, pdus, generation) => match submitted.committed().await {
                    Ok(_) => return Ok(Appended::Done(pdus)),
                    Err(error) => {
                        // Whatever was built after this write was built on it, and comes back as stale as well.
                        room.forget_pending(generation).await;
                        match error {
                            CommitError::Stale(_) => {
                                // The newer head is in this node's view from here on.
                                self.0.log.refresh().await?;
                                self.back_off(attempt).await;
                            }
                            CommitError::Duplicate(event_id) => return Ok(Appended::Before(event_id)),
                            error => return Err(error.into()),
                        }
                    }
                },
                // Nothing was written, so no head was compared: confirm that ours is current.
                WriteAttempt::Verdict { verdict, head, generation } => {
                    let settled = self.has_committed(&room, &head).await?;
                    if !settled {
                        room.forget_pending(generation).await;
                    }
                    // The head was committed, but may be an old one on this node: one look at the log's end is enough.
                    let known = looked || {
                        self.0.log.refresh().await?;
                        room.view(|view| view.head == head)
                    };
                    if settled && known {
                        return verdict;
                    }
                    looked = true;
                }
            }
        }
        Err(Error::Unavailable(format!("room {room_id} moves faster than this server can write to it")))
    }

    /// Lets another node go first: after the first attempts for a random time, that grows. Up to [`STEP_BACK`], a
    /// millisecond more with each attempt. Without chance two nodes would collide again and again.
    async fn back_off(&self, attempt: u32) {
        let most = Duration::from_millis(attempt.saturating_sub(2).into()).min(STEP_BACK);
        let mut chance = [0];
        self.0.random.fill(&mut chance);
        tokio::time::sleep(most.mul_f64(f64::from(chance[0]) / 255.0)).await;
    }

    /// Builds on the room's pending head and queues the write, both under the room's lock.
    async fn attempt(
        &self,
        room: &Room,
        build: impl Fn(&mut Head) -> Result<Result<Built, OwnedEventId>>,
    ) -> WriteAttempt {
        // Those who wait get it in the order in which they came, and submit in that order.
        let mut pending = room.pending.lock().await;
        let generation = pending.generation;
        let mut head = room.head(&pending);
        let before = head.room.clone();
        let verdict = match build(&mut head) {
            Ok(Ok((write, pdus))) if !write.is_empty() => {
                let submitted = self.0.log.submit(write);
                for pdu in &pdus {
                    pending.note(pdu);
                }
                // The next event of this node is built on it, before it is committed.
                pending.head = Some(head);
                return WriteAttempt::Submitted(submitted, pdus, generation);
            }
            Ok(Ok(_)) => Ok(Appended::Done(Vec::new())),
            Ok(Err(event_id)) => Ok(Appended::Before(event_id)),
            Err(error) => Err(error),
        };
        WriteAttempt::Verdict { verdict, head: before, generation }
    }

    /// Waits until a head is committed. False if it is not to be, or takes so long that it may never be. The room's
    /// lock must not be held: it waits for up to [`PATIENCE`].
    pub(in crate::room) async fn has_committed(&self, room: &Room, head: &RoomHead) -> Result<bool> {
        let mut steps = self.0.log.tail().watch();
        // Heads are counted, so it is enough to wait until as many events are there; whether they are the same ones is
        // looked at below.
        let reached = async {
            while room.view(|view| view.head.head) < head.head {
                if steps.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        if !tokio::time::timeout(PATIENCE, reached).await.unwrap_or(false) {
            return Ok(false);
        }
        if room.view(|view| view.head == *head) {
            return Ok(true);
        }
        // The room has moved on: past this head, or past another one with as many events.
        let extremities: Vec<&EventId> = head.extremities.iter().map(|id| &**id).collect();
        let known = store::event::list(&mut self.0.db.read().await?, &extremities).await?;
        Ok(known.len() == extremities.len())
    }

    /// Builds a plan's events on `head`, each on the one before. After an error `head` is of no use. Nothing is read or
    /// awaited. The head is changed step by step, hence of no use when only half is built.
    fn build(&self, head: &mut Head, room_id: Option<&RoomId>, plan: Plan) -> Result<Built> {
        let events = Vec::with_capacity(plan.proposals.len());
        let mut write = Write { events, facts: plan.facts, quotas: plan.quotas, ..Write::default() };
        let mut pdus = Vec::with_capacity(plan.proposals.len());
        for proposal in plan.proposals {
            let room_id = room_id.or_else(|| pdus.first().map(|first: &Arc<Pdu>| first.room_id()));
            let event = self.build_event(head, room_id, proposal)?;
            pdus.push(Arc::clone(&event.pdu));
            write.events.push(event);
        }
        Ok((write, pdus))
    }

    /// Builds the first events of a room and with the very first its identifier. Further ones go on the head.
    /// `M_UNSUPPORTED_ROOM_VERSION` for versions that this server does not speak.
    fn build_new(&self, NewRoomEvents { version, proposals }: NewRoomEvents) -> Result<(OwnedRoomId, Head, Built)> {
        let rules = room_version::rules(&version).ok_or_else(|| unsupported(&version))?;
        let room_id = if rules.event_format.require_room_create_room_id { Some(self.new_room_id()?) } else { None };
        let mut head = Head { room: RoomHead::new(version), rules, state: State::default() };
        let built = self.build(&mut head, room_id.as_deref(), Plan { proposals, ..Plan::default() })?;
        let room_id = built.1.first().map(|create| create.room_id().to_owned());
        Ok((room_id.ok_or_else(|| Error::broken("a room begins with an event"))?, head, built))
    }

    /// A name for a room of a version in which rooms are named by their server.
    ///
    /// <https://spec.matrix.org/v1.19/appendices/#room-ids>
    fn new_room_id(&self) -> Result<OwnedRoomId> {
        let Inner { random, server_name, .. } = &*self.0;
        OwnedRoomId::try_from(format!("!{}:{server_name}", random.token(18))).map_err(Error::broken)
    }

    /// Builds, signs and authorizes one event, and moves `head` to it: the sequence that the specification gives for an
    /// event of one's own.
    ///
    /// `M_FORBIDDEN` where the authorization rules refuse it, `M_BAD_JSON` where nobody could send it, and what
    /// [`refused_draft`] makes of one that is too large.
    pub(in crate::room) fn build_event(
        &self,
        head: &mut Head,
        room_id: Option<&RoomId>,
        proposal: Proposal,
    ) -> Result<NewEvent> {
        let Proposal { draft, transaction, redacts, related, copied } = proposal;
        let expects = self.expected(&draft, copied);
        let content = serde_json::value::to_raw_value(&draft.content).map_err(Error::broken)?;
        let (kind, state_key) = (draft.kind.clone(), draft.state_key.clone());
        let auth_events =
            auth::auth_events(&head.state, &kind, &draft.sender, state_key.as_deref(), &content, head.rules)
                .map_err(Error::bad_json)?;
        let place = GraphPlace {
            room_id: room_id_for(room_id, &kind, head.rules),
            depth: head.room.depth + 1,
            prev_events: newest(&head.room.extremities),
            auth_events,
        };
        let pdu = draft
            .sign(&place, self.now(), &self.0.server_name, &self.0.key.current(), head.rules)
            .map_err(refused_draft)?;
        auth::check(&pdu, &head.state).map_err(|rule| match auth::contradiction(&pdu, &head.state) {
            Some(contradiction) => Error::bad_json(format!("Nobody can send this: {contradiction}")),
            None => Error::forbidden(format!("The room does not allow this: {rule}")),
        })?;
        let pdu = Arc::new(pdu);
        let event = accept(head, pdu, transaction, redacts.as_deref(), related, &self.0.server_name);
        Ok(NewEvent { expects, ..event })
    }

    /// The account that must be there still when somebody of this server comes into a room, is invited or knocks.
    fn expected(&self, draft: &Draft, copied: CopiedFields) -> Option<ExpectedAccount> {
        let enters = draft.kind == TimelineEventType::RoomMember
            && matches!(
                draft.content.get("membership").and_then(CanonicalJsonValue::as_str),
                Some("join" | "invite" | "knock")
            );
        let user_id = <&UserId>::try_from(draft.state_key.as_deref()?).ok()?;
        let is_ours = user_id.server_name() == self.0.server_name;
        (enters && is_ours).then(|| ExpectedAccount { user_id: user_id.to_owned(), copied })
    }

    /// `origin_server_ts` of what is built, in milliseconds since the Unix epoch.
    pub(in crate::room) fn now(&self) -> MilliSecondsSinceUnixEpoch {
        self.0.clock.now()
    }
}

/// The newest of a room's extremities. At most [`MAX_PREV_EVENTS`], in the order in which they came.
pub(in crate::room) fn newest(extremities: &[OwnedEventId]) -> Vec<OwnedEventId> {
    extremities.iter().skip(extremities.len().saturating_sub(MAX_PREV_EVENTS)).cloned().collect()
}

/// Adds an event that follows the head directly: the linear case, in which state needs no resolution. `head` is the
/// room's with everything before the event, and with the event afterwards. Nothing is checked here: the authorization
/// rules have been asked.
pub(in crate::room) fn accept(
    head: &mut Head,
    pdu: Arc<Pdu>,
    transaction: Option<Transaction>,
    redacts: Option<&Pdu>,
    related: Related,
    here: &ServerName,
) -> NewEvent {
    let before = head.room.clone();
    // Before the event is applied: who is in the room is looked up in the state before it.
    let attention = highlight::attention(&pdu, &head.state, here);
    let sender_to_others = SenderToOthers::of(&pdu, here);
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
        before,
        head: head.room.clone(),
        fork: None,
        changes,
        missing: Vec::new(),
        outlier: None,
        transaction,
        notifies: attention.notifies,
        thread_root: related.thread_root,
        annotates_once: related.annotates_once,
        highlights: attention.highlights,
        highlights_everybody: attention.highlights_everybody,
        replaces,
        redacted,
        awaits: None,
        expects: None,
        sender_to_others,
        pdu,
    }
}

/// Since room version 12 the create event names no room: it becomes the room's name.
fn room_id_for(room_id: Option<&RoomId>, kind: &TimelineEventType, rules: &RoomVersionRules) -> Option<OwnedRoomId> {
    let nameless = *kind == TimelineEventType::RoomCreate && !rules.event_format.require_room_create_room_id;
    room_id.filter(|_| !nameless).map(ToOwned::to_owned)
}

/// The answer to whoever asks for a room version that this server does not speak.
pub(in crate::room) fn unsupported(version: &RoomVersionId) -> Error {
    let message = format!("Room version {version} is not supported here: 6 to 12 are");
    Error::refused(ErrorKind::UnsupportedRoomVersion, message)
}

/// `M_TOO_LARGE` beyond the specification's 65,536 bytes, `M_INVALID_PARAM` for single fields, `M_BAD_JSON` else.
pub(in crate::room) fn refused_draft(error: DraftError) -> Error {
    match error {
        DraftError::TooLarge { .. } => Error::refused(ErrorKind::TooLarge, error.to_string()),
        DraftError::FieldTooLong { .. } | DraftError::Nul { .. } => {
            Error::refused(ErrorKind::InvalidParam, error.to_string())
        }
        DraftError::Pdu(error) => Error::bad_json(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join;

    use super::*;
    use crate::room::{
        testing::text,
        world::{RoomWorld, message},
    };

    /// A message of alice built on a head, and on its way nowhere.
    fn build(world: &RoomWorld, head: &mut Head, room_id: &RoomId, body: &str) -> Built {
        world.rooms.build(head, Some(room_id), Plan::of(text("alice", body))).unwrap()
    }

    #[tokio::test]
    async fn what_was_built_on_an_event_that_came_to_nothing_comes_to_nothing() {
        let world = RoomWorld::new().await;
        let other = world.another_node().await;
        let room_id = world.public_room("alice").await;
        let room = world.rooms.get(&room_id).await.unwrap();
        let mut head = room.head(&*room.pending.lock().await);
        let (first, _) = build(&world, &mut head, &room_id, "first");
        let (second, _) = build(&world, &mut head, &room_id, "second");
        other.send(&message(&room_id, "alice", "as many events as the first")).await.unwrap();
        assert!(matches!(world.rooms.0.log.append(first).await, Err(CommitError::Stale(_))));
        assert!(matches!(world.rooms.0.log.append(second).await, Err(CommitError::Stale(_))));
        world.rooms.send(&message(&room_id, "alice", "third")).await.unwrap();
        world.one_chain(&room_id).await;
        drop(other);
        world.close().await;
    }

    #[tokio::test]
    async fn nothing_was_done_by_an_event_that_came_to_nothing() {
        let world = RoomWorld::new().await;
        let other = world.another_node().await;
        let room_id = world.public_room("alice").await;
        let room = world.rooms.get(&room_id).await.unwrap();
        let lost = {
            let mut pending = room.pending.lock().await;
            let mut head = room.head(&pending);
            let (_, built) = build(&world, &mut head, &room_id, "lost");
            pending.head = Some(head);
            built[0].event_id().to_owned()
        };
        let appended = world.rooms.append(&room_id, |head| {
            let there = head.room.extremities.contains(&lost);
            Ok(if there { Plan::done_by(&lost) } else { Plan::of(text("alice", "again")) })
        });
        let as_many = message(&room_id, "alice", "as many events as with that one");
        let moved_on = async {
            other.send(&as_many).await.unwrap();
            world.rooms.0.log.refresh().await.unwrap();
        };
        let (appended, ()) = join(appended, moved_on).await;
        assert!(matches!(appended.unwrap(), Appended::Done(_)));
        world.one_chain(&room_id).await;
        drop(other);
        world.close().await;
    }
}
