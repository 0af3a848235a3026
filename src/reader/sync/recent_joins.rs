//! Who has come into a room lately.

use std::collections::VecDeque;

use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};

use crate::{
    event::Logged, ground::position::Position, room::graph::state::membership_of, store::membership::MembershipRow,
};

/// How many who have joined a room are remembered.
const KEPT_NEWCOMERS: usize = 200;
/// What one of them takes beside their name.
const JOIN_BYTES: usize = 48;

/// Those who have joined a room lately.
pub(super) struct RecentJoins {
    /// All who have joined after this are remembered.
    after: Position,
    joins: VecDeque<(Position, OwnedUserId)>,
    /// What they take.
    bytes: u64,
}

impl RecentJoins {
    pub(super) fn new(after: Position) -> Self {
        Self { after, joins: VecDeque::new(), bytes: 0 }
    }

    /// An event has changed a membership.
    pub(super) fn follow(&mut self, logged: &Logged, row: &MembershipRow<'_>) {
        let is_known = self.joins.back().is_some_and(|(at, _)| *at > row.position) || row.position <= self.after;
        if row.state != MembershipState::Join || was_in(logged, row.user_id) || is_known {
            return;
        }
        self.joins.push_back((row.position, row.user_id.to_owned()));
        self.bytes += bytes_of(row.user_id);
        if self.joins.len() > KEPT_NEWCOMERS
            && let Some((oldest, user_id)) = self.joins.pop_front()
        {
            self.after = oldest;
            self.bytes -= bytes_of(&user_id);
        }
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Who has joined after a place. None if that is not remembered.
    pub(super) fn since(&self, after: Position) -> Option<Vec<OwnedUserId>> {
        let joined = self.joins.iter().filter(|(at, _)| *at > after).map(|(_, user_id)| user_id.clone());
        (after >= self.after).then(|| joined.collect())
    }
}

fn bytes_of(user_id: &UserId) -> u64 {
    (JOIN_BYTES + user_id.as_str().len()) as u64
}

/// Whether a user only changes their profile in a room that they are in.
fn was_in(logged: &Logged, user_id: &UserId) -> bool {
    let own = logged.stored.pdu.state_key() == Some(user_id.as_str());
    own && logged.stored.replaces.as_ref().is_some_and(|before| membership_of(before) == MembershipState::Join)
}
