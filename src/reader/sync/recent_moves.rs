//! Who has come into a room lately or gone, and whether it has become encrypted.

use std::collections::{BTreeSet, VecDeque};

use ruma::{
    OwnedUserId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

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

/// Whether a user was in the room before the event of their membership: then it may change no more than their profile.
/// None where that does not say it: another event has changed what they are, which a resolution of states does, or the
/// event saw another state than the room's, in which it may have replaced something else than here.
fn was_in(logged: &Logged, user_id: &UserId) -> Option<bool> {
    let stored = &logged.stored;
    let is_of_user = *stored.pdu.kind() == TimelineEventType::RoomMember
        && stored.pdu.state_key() == Some(user_id.as_str())
        && stored.fork.is_none();
    let before = || stored.replaces.as_ref().map(membership_of);
    is_of_user.then(|| before() == Some(MembershipState::Join))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma::{MilliSecondsSinceUnixEpoch, RoomVersionId, room_id};
    use serde_json::json;

    use super::*;
    use crate::{
        event::{Draft, GraphPlace, Pdu, SigningKey, Standing, Stored},
        ground::{position::Order, room_version::rules},
        testing::user,
    };

    fn membership(user_id: &UserId, membership: &str) -> Arc<Pdu> {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap(), "ed25519:a").unwrap();
        let content = serde_json::from_value(json!({ "membership": membership })).unwrap();
        let draft = Draft::state(user_id.to_owned(), TimelineEventType::RoomMember, user_id.as_str(), content);
        let room_id = Some(room_id!("!room:localhost").to_owned());
        let place = GraphPlace { room_id, depth: 7, prev_events: Vec::new(), auth_events: Vec::new() };
        let now = MilliSecondsSinceUnixEpoch(1_700_000_000_000_u64.try_into().unwrap());
        let pdu = draft.sign(&place, now, user_id.server_name(), &key, rules(&RoomVersionId::V11).unwrap()).unwrap();
        Arc::new(pdu)
    }

    /// That a user joins, or changes their profile, by an event that has replaced another, and may have seen a state of
    /// its own.
    fn join(at: i64, user_id: &UserId, replaces: Option<&str>, is_fork: bool) -> Logged {
        let at = Position(at);
        let stored = Stored {
            key: at.into(),
            order: Order::at(at),
            pdu: membership(user_id, "join"),
            standing: Standing::Accepted,
            fork: is_fork.then_some(at.into()),
            transaction: None,
            notifies: false,
            thread_root: None,
            replaces: replaces.map(|before| membership(user_id, before)),
            follows_gap: false,
        };
        let (changes, highlights) = (Vec::new(), Vec::new());
        Logged { at, stored, changes, highlights, highlights_everybody: false, redacted: None }
    }

    fn follow(moves: &mut RecentMoves, logged: &Logged, user_id: &UserId) {
        let room_id = room_id!("!room:localhost");
        moves.follow(logged, &MembershipRow { user_id, room_id, state: MembershipState::Join, position: logged.at });
    }

    #[test]
    fn a_new_name_is_no_coming_unless_the_event_saw_another_state() {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(user);
        let mut moves = RecentMoves::new(Position(1));
        follow(&mut moves, &join(2, &alice, Some("join"), false), &alice);
        assert!(moves.since(Position(1)).unwrap().is_empty());
        follow(&mut moves, &join(3, &alice, Some("leave"), false), &alice);
        follow(&mut moves, &join(4, &bob, None, false), &bob);
        // She had left here, of which this event, by another server, knew nothing.
        follow(&mut moves, &join(5, &carol, Some("join"), true), &carol);
        // An event of somebody else has settled what he is.
        follow(&mut moves, &join(6, &alice, Some("join"), false), &bob);
        let users = |after| moves.since(Position(after)).unwrap().users;
        assert_eq!(users(1), BTreeSet::from([alice, bob.clone(), carol.clone()]));
        assert_eq!(users(4), BTreeSet::from([bob, carol]));
        assert_eq!(moves.joins_since(Position(5)).unwrap().len(), 1);
        assert_eq!(moves.since(Position(0)), None);
    }

    #[test]
    fn only_what_is_all_remembered_is_answered() {
        let mut moves = RecentMoves::new(Position(0));
        let most = i64::try_from(KEPT_MOVES).unwrap();
        for at in 1..=most + 2 {
            let user_id = user(&format!("user{at}"));
            follow(&mut moves, &join(at, &user_id, None, false), &user_id);
        }
        assert_eq!(moves.since(Position(1)), None);
        assert_eq!(moves.since(Position(2)).unwrap().users.len(), KEPT_MOVES);
        // What comes twice, as while somebody is registered, is known.
        let user_id = user("user5");
        follow(&mut moves, &join(5, &user_id, None, false), &user_id);
        assert_eq!(moves.since(Position(2)).unwrap().users.len(), KEPT_MOVES);
        moves.follow_encryption(Position(7));
        assert!(moves.since(Position(6)).unwrap().encryption && !moves.since(Position(7)).unwrap().encryption);
    }
}
