//! Who has come into a room lately or gone, and whether it has become encrypted.

use std::collections::{BTreeSet, VecDeque};

use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};

use crate::{
    event::Logged, ground::position::Position, room::graph::state::membership_of, store::membership::MembershipRow,
};

/// How many who have come into a room or gone are remembered.
const KEPT_MOVES: usize = 200;
/// What one of them takes beside their name.
const MOVE_BYTES: usize = 48;

/// Those who have come into a room lately or gone.
pub(super) struct RecentMoves {
    /// All that was after this is remembered.
    after: Position,
    moves: VecDeque<Move>,
    /// Where the room's encryption last changed, if it has since the room is watched.
    encryption: Position,
    /// What the moves take.
    bytes: u64,
}

/// Somebody comes or goes.
struct Move {
    at: Position,
    user_id: OwnedUserId,
    comes: bool,
}

/// What may have changed of who shares a room, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// Who may have come or gone. Some may be as they were before.
    pub(super) users: BTreeSet<OwnedUserId>,
    /// Whether the room's encryption may have changed.
    pub(super) encryption: bool,
}

impl Moves {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && !self.encryption
    }
}

impl RecentMoves {
    pub(super) fn new(after: Position) -> Self {
        Self { after, moves: VecDeque::new(), encryption: Position::START, bytes: 0 }
    }

    /// An event has changed a membership.
    pub(super) fn follow(&mut self, logged: &Logged, row: &MembershipRow<'_>) {
        let comes = row.state == MembershipState::Join;
        let is_known = self.moves.back().is_some_and(|last| last.at > row.position) || row.position <= self.after;
        if is_known || was_in(logged, row.user_id) == Some(comes) {
            return;
        }
        self.bytes += bytes_of(row.user_id);
        self.moves.push_back(Move { at: row.position, user_id: row.user_id.to_owned(), comes });
        if self.moves.len() > KEPT_MOVES
            && let Some(oldest) = self.moves.pop_front()
        {
            self.after = oldest.at;
            self.bytes -= bytes_of(&oldest.user_id);
        }
    }

    /// An event has changed the room's encryption.
    pub(super) fn follow_encryption(&mut self, at: Position) {
        self.encryption = self.encryption.max(at);
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Who has come into the room after a place. None if that is not remembered.
    pub(super) fn joins_since(&self, after: Position) -> Option<Vec<OwnedUserId>> {
        let comes = self.moves.iter().filter(|one| one.at > after && one.comes);
        (after >= self.after).then(|| comes.map(|one| one.user_id.clone()).collect())
    }

    /// What has changed after a place. None if that is not remembered.
    pub(super) fn since(&self, after: Position) -> Option<Moves> {
        let users = self.moves.iter().filter(|one| one.at > after).map(|one| one.user_id.clone());
        (after >= self.after).then(|| Moves { users: users.collect(), encryption: self.encryption > after })
    }
}

fn bytes_of(user_id: &UserId) -> u64 {
    (MOVE_BYTES + user_id.as_str().len()) as u64
}

/// Whether a user was in the room before their own event: then it may change no more than their profile. None where
/// another event has changed what they are, which a resolution of states does.
fn was_in(logged: &Logged, user_id: &UserId) -> Option<bool> {
    let own = logged.stored.pdu.state_key() == Some(user_id.as_str());
    let before = || logged.stored.replaces.as_ref().map(membership_of);
    own.then(|| before() == Some(MembershipState::Join))
}
