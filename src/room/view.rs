//! A room as this node sees it: the committed state, the recent timeline, and the head.
//!
//! A view follows the log: it is read from the database once and every later batch is applied to it. What
//! it holds is therefore true at one position, and what was true a little earlier can be told by undoing.

use std::{collections::VecDeque, sync::Arc};

use ruma::{
    EventId, OwnedRoomId, UserId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
    room_version_rules::RoomVersionRules,
};

use super::state::{State, membership_of, visibility_of};
use crate::{
    event::{Logged, Pdu, Standing, StateChange, Stored},
    fact::RoomHead,
    position::Position,
    store::room::Lineage,
};

/// How many events of the timeline a view remembers.
const TIMELINE: usize = 64;
/// How many state changes a view can undo.
const UNDO: usize = 256;

/// A room at one position of the log.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) rules: &'static RoomVersionRules,
    pub(crate) trunk: Lineage,
    /// Everything up to here is part of the view.
    pub(crate) position: Position,
    pub(crate) head: RoomHead,
    pub(crate) state: State,
    /// The newest accepted events, oldest first.
    timeline: VecDeque<Arc<Stored>>,
    /// The timeline is complete after this position.
    timeline_after: Position,
    /// What each change took away, oldest first.
    undo: VecDeque<(Position, StateChange)>,
    /// State can be told from here on.
    undo_after: Position,
    joined: usize,
    invited: usize,
    /// The place of the newest accepted event.
    last_event: Position,
    /// Whether there ever was a time whose events are hidden from members who came later.
    pub(super) has_hidden_history: bool,
}

impl View {
    /// A view as the database had it at `position`. `timeline` holds the newest accepted events, oldest first,
    /// and is complete after `timeline_after`.
    pub(super) fn new(
        room_id: OwnedRoomId,
        rules: &'static RoomVersionRules,
        (head, trunk): (RoomHead, Lineage),
        position: Position,
        state: State,
        timeline: Vec<Stored>,
        timeline_after: Position,
    ) -> Self {
        let mut view = Self {
            room_id,
            rules,
            trunk,
            position,
            head,
            state,
            last_event: timeline.last().map_or(timeline_after, |stored| stored.position),
            timeline: timeline.into_iter().map(Arc::new).collect(),
            timeline_after,
            undo: VecDeque::new(),
            undo_after: position,
            joined: 0,
            invited: 0,
            has_hidden_history: false,
        };
        for (_, pdu) in view.state.members() {
            match membership_of(pdu) {
                MembershipState::Join => view.joined += 1,
                MembershipState::Invite => view.invited += 1,
                _ => {}
            }
        }
        view
    }

    /// Takes the next event of the room. One that is already part of the view changes nothing.
    pub(super) fn apply(&mut self, logged: &Logged) {
        let at = logged.stored.position;
        if at <= self.position {
            return;
        }
        self.position = at;
        self.head.follow(&logged.stored.pdu, logged.stored.standing);
        for change in &logged.changes {
            self.count(change);
            self.look_for_hiding(change);
            let event = self.state.apply(change);
            let before = StateChange { event, ..change.clone() };
            self.undo.push_back((at, before));
        }
        while self.undo.len() > UNDO {
            // All of one event's changes go together: state is only told where all can be undone.
            if let Some((dropped, _)) = self.undo.pop_front() {
                self.undo_after = dropped;
            }
        }
        if let Some(redacted) = &logged.redacted {
            self.redact(redacted);
        }
        if logged.stored.standing == Standing::Accepted {
            self.last_event = at;
            self.timeline.push_back(Arc::new(logged.stored.clone()));
            if self.timeline.len() > TIMELINE
                && let Some(oldest) = self.timeline.pop_front()
            {
                self.timeline_after = oldest.position;
            }
        }
    }

    fn look_for_hiding(&mut self, change: &StateChange) {
        if change.kind == "m.room.history_visibility" && change.state_key.is_empty() {
            self.has_hidden_history |= hides(&visibility_of(change.event.as_deref()));
        }
    }

    fn count(&mut self, change: &StateChange) {
        if change.kind != "m.room.member" {
            return;
        }
        let before = self.state.get(&change.kind, &change.state_key).map(membership_of);
        let after = change.event.as_ref().map(membership_of);
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

    fn redact(&mut self, redacted: &Arc<Pdu>) {
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

    /// How many users have joined.
    pub fn joined(&self) -> usize {
        self.joined
    }

    /// How many users are invited.
    pub fn invited(&self) -> usize {
        self.invited
    }

    /// The place of the newest accepted event.
    pub fn last_event(&self) -> Position {
        self.last_event
    }

    /// The state just after `at`, if the view can still tell.
    pub fn state_at(&self, at: Position) -> Option<State> {
        if at >= self.position {
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

    /// How a user's membership went as far back as the view can tell: from where on it is known, and for each
    /// value from where on it held.
    pub(super) fn memberships(&self, user_id: &UserId) -> (Position, Vec<(Position, MembershipState)>) {
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

    /// Where a user who is in the room joined it, if the view still remembers that they were not there before.
    pub fn joined_at(&self, user_id: &UserId) -> Option<Position> {
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

    /// One of the newest accepted events.
    pub fn find_recent(&self, event_id: &EventId) -> Option<Arc<Stored>> {
        self.timeline.iter().rev().find(|stored| stored.pdu.event_id() == event_id).cloned()
    }

    /// The accepted events after `after` up to `until`, oldest first, if the view remembers them all;
    /// `most` of them, the newest. The flag tells whether there are more.
    pub fn timeline(&self, after: Position, until: Position, most: usize) -> Option<(Vec<Arc<Stored>>, bool)> {
        let within: Vec<_> =
            self.timeline.iter().rev().skip_while(|e| e.position > until).take_while(|e| e.position > after).collect();
        let complete = after >= self.timeline_after;
        if within.len() < most && !complete {
            return None;
        }
        let limited = within.len() > most || (within.len() == most && !complete);
        let mut newest: Vec<_> = within.into_iter().take(most).cloned().collect();
        newest.reverse();
        Some((newest, limited))
    }

    /// The keys that changed after `after` up to `until`, with what they hold then, if the view can still tell.
    pub fn changed(&self, after: Position, until: Position) -> Option<Vec<StateChange>> {
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
    pub fn timeline_from(&self, after: Position, until: Position, most: usize) -> Option<Vec<Arc<Stored>>> {
        let within = || self.timeline.iter().skip_while(|e| e.position <= after).take_while(|e| e.position <= until);
        (after >= self.timeline_after).then(|| within().take(most).cloned().collect())
    }
}

/// Whether events sent under this visibility stay hidden from members who join later.
pub(super) fn hides(visibility: &HistoryVisibility) -> bool {
    !matches!(visibility, HistoryVisibility::Shared | HistoryVisibility::WorldReadable)
}
