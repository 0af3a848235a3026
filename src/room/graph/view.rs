//! A room as this node sees it: the committed state, the recent timeline, and the head.
//!
//! A view follows the log: it is read from the database once and every later batch is applied to it. What it holds is
//! therefore true at one position, and what was true a little earlier is found by undoing.
//!
//! Two stretches end at the view's position and begin further back: the timeline after `timeline_after`, and what can
//! be undone after `undo_after`. Nothing is answered from memory that begins before these; the database is asked then.
//! All places are inclusive at their end and exclusive at their beginning.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use ruma::{
    EventId, OwnedRoomId, UserId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
    room_version_rules::RoomVersionRules,
};

use super::{
    servers::{Servers, count_server},
    state::{State, membership_of, visibility_of},
};
use crate::{
    event::{Logged, Pdu, Standing, StateChange, Stored, fact::RoomHead},
    ground::position::{Order, Position},
    store::room::Lineage,
};

/// The key of the state that says who may read the room's history.
pub(in crate::room) const HISTORY_VISIBILITY: (&str, &str) = ("m.room.history_visibility", "");
/// How many events of the timeline a view remembers.
const TIMELINE: usize = 64;
/// How many state changes a view can undo.
const UNDO: usize = 256;
/// What a change to undo takes beside the event that it took away, which is most often one that nobody else holds.
const UNDO_BYTES: usize = 200;
/// What an event of the timeline takes beside the event itself.
const STORED_BYTES: usize = 400;

/// A room at one position of the log.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) rules: &'static RoomVersionRules,
    /// Under which its state is stored.
    pub(crate) trunk: Lineage,
    /// Everything up to here is part of the view.
    pub(crate) position: Position,
    pub(crate) head: RoomHead,
    pub(crate) state: State,
    /// The newest accepted events, oldest first.
    timeline: VecDeque<Arc<Stored>>,
    /// How many bytes they take, about.
    timeline_bytes: usize,
    /// The timeline is complete after this place.
    timeline_after: Order,
    /// What each change took away, oldest first. At most [`UNDO`]. Those at `undo_after` may lack
    /// some of their event's and are never undone.
    undo: VecDeque<(Order, StateChange)>,
    /// How many bytes these take, about.
    undo_bytes: usize,
    /// The state is known from here on.
    undo_after: Order,
    /// Users of all servers.
    joined: usize,
    invited: usize,
    /// How many have joined from each server. None with zero.
    servers: Arc<Servers>,
    /// The place of the newest accepted event. Where nothing is remembered, the place before the timeline.
    last_event: Order,
    /// Whether there ever was a time whose events are hidden from members who came later.
    pub(in crate::room) has_hidden_history: bool,
    /// Whether there are or were events of the room that are not here: how its visibility went is not known for sure then.
    pub(in crate::room) has_gaps: bool,
}

impl View {
    /// A view as the database had it at `position`. `timeline` holds the newest accepted events, oldest first,
    /// and is complete after `timeline_after`. Whether it has gaps or hidden history is set by the loader. Nothing can
    /// be undone yet.
    pub(in crate::room) fn new(
        room_id: OwnedRoomId,
        rules: &'static RoomVersionRules,
        (head, trunk): (RoomHead, Lineage),
        position: Position,
        state: State,
        timeline: Vec<Arc<Stored>>,
        timeline_after: Order,
    ) -> Self {
        let mut view = Self {
            room_id,
            rules,
            trunk,
            position,
            head,
            state,
            last_event: timeline.last().map_or(timeline_after, |stored| stored.order),
            timeline_bytes: timeline.iter().map(|stored| bytes_of(stored)).sum(),
            timeline: timeline.into(),
            timeline_after,
            undo: VecDeque::new(),
            undo_bytes: 0,
            undo_after: Order::at(position),
            joined: 0,
            invited: 0,
            servers: Arc::default(),
            has_hidden_history: false,
            has_gaps: false,
        };
        for member in view.state.members() {
            match member.membership() {
                MembershipState::Join => {
                    view.joined += 1;
                    count_server(Arc::make_mut(&mut view.servers), member.user_id, true);
                }
                MembershipState::Invite => view.invited += 1,
                _ => {}
            }
        }
        view
    }

    /// Takes what undoes the changes after a place, as far as so much is remembered.
    pub(in crate::room) fn remember_undo(&mut self, undo: Vec<(Order, StateChange)>, after: Order) {
        self.undo_bytes = undo.iter().map(|(_, change)| undo_bytes_of(change)).sum();
        self.undo = undo.into();
        self.undo_after = after;
        self.forget_oldest_undo();
    }

    fn forget_oldest_undo(&mut self) {
        while self.undo.len() > UNDO {
            // All of one event's changes go together: the state is only known where all can be undone.
            if let Some((dropped, change)) = self.undo.pop_front() {
                self.undo_bytes = self.undo_bytes.saturating_sub(undo_bytes_of(&change));
                self.undo_after = dropped;
            }
        }
    }

    /// Takes the next event of the room. One that is already part of the view changes nothing. Called by the log's
    /// reader, in the order of the log, and by the loader for what came while it read.
    pub(in crate::room) fn apply(&mut self, logged: &Logged) {
        if logged.at <= self.position {
            return;
        }
        self.position = logged.at;
        let at = logged.stored.order;
        if logged.stored.follows_gap {
            self.forget_before(at);
        }
        if logged.is_entry() {
            self.head.enter(&logged.stored.pdu);
        } else {
            self.head.follow(&logged.stored.pdu, logged.stored.standing);
        }
        for change in &logged.changes {
            // Before the change is applied: what it replaces is still there.
            self.count(change);
            self.look_for_hiding(change);
            let event = self.state.apply(change);
            let before = StateChange { event, ..change.clone() };
            self.undo_bytes += undo_bytes_of(&before);
            self.undo.push_back((at, before));
        }
        self.state.settle();
        self.forget_oldest_undo();
        if let Some(redacted) = &logged.redacted {
            self.redact(redacted);
        }
        if logged.stored.standing == Standing::Accepted {
            self.last_event = at;
            let stored = Arc::new(logged.stored.clone());
            self.timeline_bytes += bytes_of(&stored);
            self.timeline.push_back(stored);
            if self.timeline.len() > TIMELINE
                && let Some(oldest) = self.timeline.pop_front()
            {
                self.timeline_bytes = self.timeline_bytes.saturating_sub(bytes_of(&oldest));
                self.timeline_after = oldest.order;
            }
        }
    }

    /// Remembers nothing that was before a place: what is missing there may be fetched at any time, and who remembers
    /// that there is nothing is not known.
    fn forget_before(&mut self, at: Order) {
        self.has_gaps = true;
        self.timeline.clear();
        self.timeline_bytes = 0;
        self.timeline_after = at.before();
        self.undo.clear();
        self.undo_bytes = 0;
        self.undo_after = at.before();
    }

    /// How many bytes the view takes, about.
    pub(in crate::room) fn bytes(&self) -> usize {
        size_of::<Self>() + self.state.bytes() + self.timeline_bytes + self.undo_bytes
    }

    fn look_for_hiding(&mut self, change: &StateChange) {
        if (change.kind.as_str(), change.state_key.as_str()) == HISTORY_VISIBILITY {
            self.has_hidden_history |= hides(&visibility_of(change.event.as_deref()));
        }
    }

    /// Keeps `joined`, `invited` and `servers` right.
    fn count(&mut self, change: &StateChange) {
        if change.kind != "m.room.member" {
            return;
        }
        let before = self.state.find_membership(&change.state_key);
        let after = change.event.as_ref().map(membership_of);
        let [was_in, is_in] = [&before, &after].map(|membership| membership.as_ref() == Some(&MembershipState::Join));
        if was_in != is_in
            && let Ok(user_id) = <&UserId>::try_from(&*change.state_key)
        {
            count_server(Arc::make_mut(&mut self.servers), user_id, is_in);
        }
        for (counter, membership) in
            [(&mut self.joined, MembershipState::Join), (&mut self.invited, MembershipState::Invite)]
        {
            match (before.as_ref() == Some(&membership), after.as_ref() == Some(&membership)) {
                (false, true) => *counter += 1,
                (true, false) => *counter = counter.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Everywhere the event may be: also an earlier state that is found by undoing must not show it any more. More than
    /// once does no harm.
    pub(super) fn redact(&mut self, redacted: &Arc<Pdu>) {
        self.state.redact(redacted);
        for stored in &mut self.timeline {
            if let Some(pdu) = stored.pdu.after_redaction_of(redacted) {
                *stored = Arc::new(Stored { pdu, ..Stored::clone(stored) });
            }
            if let Some(old) = stored.replaces.as_ref().and_then(|old| old.after_redaction_of(redacted)) {
                *stored = Arc::new(Stored { replaces: Some(old), ..Stored::clone(stored) });
            }
        }
        for event in self.undo.iter_mut().filter_map(|(_, before)| before.event.as_mut()) {
            if let Some(pdu) = event.after_redaction_of(redacted) {
                *event = pdu;
            }
        }
    }

    /// How many users have joined. For summaries and directories.
    pub fn joined(&self) -> usize {
        self.joined
    }

    /// The servers of those who have joined, each with how many they are. In the order of their names.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The servers of those who were in the room just before a place, if the view still knows it. A copy that is shared
    /// where nobody has come or gone since.
    pub(super) fn servers_before(&self, at: Order) -> Option<Arc<Servers>> {
        let before = at.before();
        if before < self.undo_after {
            return None;
        }
        let later = self.undo.iter().rev().take_while(|(place, _)| *place > before);
        let moved: BTreeSet<&str> =
            later.filter(|(_, change)| change.kind == "m.room.member").map(|(_, change)| &*change.state_key).collect();
        if moved.is_empty() {
            return Some(Arc::clone(&self.servers));
        }
        let state = self.state_at(before)?;
        let mut servers = Servers::clone(&self.servers);
        for key in moved {
            let [was_in, is_in] =
                [&state, &self.state].map(|state| state.find_membership(key) == Some(MembershipState::Join));
            if was_in != is_in
                && let Ok(user_id) = <&UserId>::try_from(key)
            {
                count_server(&mut servers, user_id, was_in);
            }
        }
        Some(Arc::new(servers))
    }

    /// How many users are invited.
    pub fn invited(&self) -> usize {
        self.invited
    }

    /// The place of the newest accepted event.
    pub fn last_event(&self) -> Order {
        self.last_event
    }

    /// The state just after `at`, if the view still knows it. Costs as much as has to be undone; the copy itself costs
    /// nothing.
    pub fn state_at(&self, at: Order) -> Option<State> {
        if at >= Order::at(self.position) {
            return Some(self.state.clone());
        }
        if at < self.undo_after {
            return None;
        }
        let mut state = self.state.clone();
        for (place, before) in self.undo.iter().rev() {
            if *place <= at {
                break;
            }
            state.apply(before);
        }
        Some(state)
    }

    /// How a user's membership went as far back as the view knows it: from where on it is known, and for each value
    /// from where on it held.
    pub(in crate::room) fn memberships(&self, user_id: &UserId) -> (Order, Vec<(Order, MembershipState)>) {
        let mut current = self.state.membership(user_id);
        let mut history = Vec::new();
        for (place, before) in self.undo.iter().rev() {
            if before.kind == "m.room.member" && before.state_key == user_id.as_str() {
                let earlier = before.event.as_ref().map_or(MembershipState::Leave, membership_of);
                history.push((*place, std::mem::replace(&mut current, earlier)));
            }
        }
        history.push((self.undo_after, current));
        history.reverse();
        (self.undo_after, history)
    }

    /// Where a user who is in the room joined it, if the view still remembers that they were not there before. None for
    /// whoever has been in it for longer than that, or is not in it.
    pub fn joined_at(&self, user_id: &UserId) -> Option<Order> {
        let mut is_in = self.state.membership(user_id) == MembershipState::Join;
        for (place, before) in self.undo.iter().rev() {
            if before.kind == "m.room.member" && before.state_key == user_id.as_str() {
                let was_in = before.event.as_ref().is_some_and(|pdu| membership_of(pdu) == MembershipState::Join);
                if is_in && !was_in {
                    return Some(*place);
                }
                is_in = was_in;
            }
        }
        None
    }

    /// The newest accepted events, newest first.
    pub(in crate::room) fn recent(&self) -> impl Iterator<Item = &Pdu> {
        self.timeline.iter().rev().map(|stored| &*stored.pdu)
    }

    /// One of the newest accepted events. From the newest on, since most are asked for soon after they came.
    pub fn find_recent(&self, event_id: &EventId) -> Option<Arc<Stored>> {
        self.timeline.iter().rev().find(|stored| stored.pdu.event_id() == event_id).cloned()
    }

    /// The accepted events after `after` up to `until`, oldest first, if the view remembers them all; `most` of them,
    /// the newest. The flag says whether there are more.
    pub fn timeline(&self, after: Order, until: Order, most: usize) -> Option<(Vec<Arc<Stored>>, bool)> {
        let within: Vec<_> =
            self.timeline.iter().rev().skip_while(|e| e.order > until).take_while(|e| e.order > after).collect();
        let complete = after >= self.timeline_after;
        if within.len() < most && !complete {
            return None;
        }
        let limited = within.len() > most || (within.len() == most && !complete);
        let mut newest: Vec<_> = within.into_iter().take(most).cloned().collect();
        newest.reverse();
        Some((newest, limited))
    }

    /// The keys that changed after `after` up to `until`, with what they hold then, if the view still knows it.
    pub fn changed(&self, after: Order, until: Order) -> Option<Vec<StateChange>> {
        if after < self.undo_after {
            return None;
        }
        let state = self.state_at(until)?;
        let mut changed: Vec<StateChange> = Vec::new();
        for (_, change) in self.undo.iter().filter(|(at, _)| *at > after && *at <= until) {
            if !changed.iter().any(|c| c.kind == change.kind && c.state_key == change.state_key) {
                let event = state.get(&change.kind, &change.state_key).cloned();
                changed.push(StateChange { event, ..change.clone() });
            }
        }
        Some(changed)
    }

    /// The accepted events after `after` up to `until`, oldest first, if the view remembers them all; `most` of
    /// them, the oldest.
    pub fn timeline_from(&self, after: Order, until: Order, most: usize) -> Option<Vec<Arc<Stored>>> {
        let within = || self.timeline.iter().skip_while(|e| e.order <= after).take_while(|e| e.order <= until);
        (after >= self.timeline_after).then(|| within().take(most).cloned().collect())
    }
}

/// How many bytes a change to undo takes, about.
fn undo_bytes_of(change: &StateChange) -> usize {
    UNDO_BYTES + change.event.as_ref().map_or(0, |event| event.bytes())
}

/// How many bytes an event of the timeline takes, about. What is part of the state is counted there.
fn bytes_of(stored: &Stored) -> usize {
    STORED_BYTES + if stored.pdu.is_state() { 0 } else { stored.pdu.bytes() }
}

/// Whether events sent under this visibility stay hidden from members who join later.
pub(in crate::room) fn hides(visibility: &HistoryVisibility) -> bool {
    !matches!(visibility, HistoryVisibility::Shared | HistoryVisibility::WorldReadable)
}
