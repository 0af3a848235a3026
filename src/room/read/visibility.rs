//! Who may read which event: one function for every read path.
//!
//! What a user sees of a room follows from how its history visibility and the user's own membership went
//! over time. Between two changes of either, everything is visible or nothing is: a [`Sight`] is therefore a
//! few stretches of the log, and whoever pages through a room never even reads what lies between them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>
//!
//! A sight is of the room's trunk: what its resolved state said at each place, also where an event itself saw a fork.
//! It is true up to the moment at which it was made; whoever keeps one keeps its `until` with it.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    OwnedRoomId, RoomId, UserId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};

use crate::{
    error::{Error, Result},
    event::{Pdu, Stored},
    ground::position::{EventKey, Order},
    room::{
        Room, Rooms, View,
        graph::{
            state::{membership_of, visibility_of},
            view::HISTORY_VISIBILITY,
        },
    },
    store::{self, room::Lineage, state::HeldSince},
};

/// How something went over time: from each place on, ascending.
type History<T> = Vec<(Order, T)>;

/// The place after everything.
const END: Order = Order::END;
const EVERYTHING: [(Order, Order); 1] = [(Order(i64::MIN + 1), END)];

/// What one user may see of one room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The stretches of the log that the user sees: first and last place, ascending, with gaps between them.
    visible: Vec<(Order, Order)>,
    /// How the visibility went. None of a room that never hid anything from its members.
    visibility: Option<History<HistoryVisibility>>,
    /// Complete after `remembers_from`. The last value holds to the end.
    membership: History<MembershipState>,
    /// Before this place the membership is not known; what is visible is.
    remembers_from: Order,
    world_readable: bool,
}

impl Sight {
    /// From the whole history of both. Both begin with the first place at which there is a value: before that, `shared`
    /// and `leave` hold.
    fn new(visibility: &History<HistoryVisibility>, membership: History<MembershipState>) -> Self {
        let joins = || membership.iter().filter(|(_, membership)| *membership == MembershipState::Join);
        let last_join = joins().next_back().map(|(from, _)| *from);
        // Whether an event at `at` may be seen by what held at `then`.
        let allows = |then: Order, at: Order| {
            let visibility = value_at(visibility, then).unwrap_or(&HistoryVisibility::Shared);
            let membership = value_at(&membership, then).unwrap_or(&MembershipState::Leave);
            match visibility {
                HistoryVisibility::WorldReadable => true,
                _ if *membership == MembershipState::Join => true,
                // Whoever joins later reads it from then on, however often they have left in between.
                HistoryVisibility::Shared => last_join.is_some_and(|join| join > at),
                // The invitation alone opens nothing: it counts once the user has joined.
                HistoryVisibility::Invited => *membership == MembershipState::Invite && last_join.is_some(),
                _ => false,
            }
        };
        let mut places: Vec<Order> =
            visibility.iter().map(|(from, _)| *from).chain(membership.iter().map(|(from, _)| *from)).collect();
        places.sort_unstable();
        places.dedup();

        let mut visible = Vec::new();
        let mut before = Order::START;
        for place in places {
            if allows(before, before) {
                extend(&mut visible, before.next(), place.before());
            }
            // The event that makes a change is judged by the more permissive of what was and what is.
            if allows(place.before(), place) || allows(place, place) {
                extend(&mut visible, place, place);
            }
            before = place;
        }
        if allows(before, before) {
            extend(&mut visible, before.next(), END);
        }
        let world_readable =
            visibility.last().is_some_and(|(_, visibility)| *visibility == HistoryVisibility::WorldReadable);
        let visibility = Some(visibility.clone());
        Self { visible, visibility, membership, remembers_from: Order::START, world_readable }
    }

    /// Of somebody who has joined a room that never hid anything from its members. No visibility is kept: it was never
    /// one under which it matters.
    fn everything(membership: History<MembershipState>, remembers_from: Order, world_readable: bool) -> Self {
        Self { visible: EVERYTHING.to_vec(), visibility: None, membership, remembers_from, world_readable }
    }

    /// The stretches of the log that the user sees: first and last place of each, ascending. Both are places of events,
    /// inclusive.
    pub fn stretches(&self) -> &[(Order, Order)] {
        &self.visible
    }

    /// Whether nothing is hidden from the user.
    pub fn is_everything(&self) -> bool {
        *self.visible == EVERYTHING
    }

    /// Whether the user may read an event.
    pub fn sees(&self, event: &Stored) -> bool {
        self.sees_at(event.order)
    }

    /// Whether the user may read an event at `at`.
    pub fn sees_at(&self, at: Order) -> bool {
        self.visible.iter().any(|(first, last)| *first <= at && at <= *last)
    }

    /// Whether the user could read an event at `at` already just after `when`, as somebody who had been in the room by
    /// then; of what was sent later, whether they could when it was. None where that is not remembered.
    pub(super) fn saw(&self, at: Order, when: Order) -> Option<bool> {
        let when = when.max(at);
        let Some(visibility) = &self.visibility else {
            let was_in = self.membership_at(when)? == MembershipState::Join;
            // Nothing was hidden from whoever was in the room. Whoever was not may have been before.
            return was_in.then_some(true);
        };
        let then = Self::new(&until(visibility, when), until(&self.membership, when));
        Some(then.was_member() && then.sees_at(at))
    }

    /// What the user sees after `after`, up to `until`: stretches of the log, each again as after and until.
    pub fn within(&self, after: Order, until: Order) -> impl DoubleEndedIterator<Item = (Order, Order)> {
        self.visible
            .iter()
            .map(move |(first, last)| (first.before().max(after), (*last).min(until)))
            .filter(|(after, until)| after < until)
    }

    /// `at` if the user sees what happened there, else the next place that they see, else the last. [`Order::START`] of
    /// a sight that sees nothing.
    pub fn nearest(&self, at: Order) -> Order {
        let later = self.visible.iter().find(|(_, last)| at <= *last).map(|(first, _)| at.max(*first));
        later.or_else(|| self.visible.last().map(|(_, last)| *last)).unwrap_or(Order::START)
    }

    /// Whether the user is or was in the room.
    pub fn was_member(&self) -> bool {
        self.membership.iter().any(|(_, membership)| *membership == MembershipState::Join)
    }

    /// Whether the user is in the room.
    pub fn is_member(&self) -> bool {
        self.membership.last().is_some_and(|(_, membership)| *membership == MembershipState::Join)
    }

    /// Where the user ceased to be in the room, if they were and are no longer. The last time, if they did several
    /// times.
    pub fn left_at(&self) -> Option<Order> {
        let after_join = |pair: &&[(Order, MembershipState)]| {
            matches!(pair, [(_, before), (_, after)]
                if *before == MembershipState::Join && *after != MembershipState::Join)
        };
        if self.is_member() {
            return None;
        }
        self.membership.windows(2).rfind(after_join).and_then(|pair| pair.last()).map(|(left, _)| *left)
    }

    /// The user's membership just after `at`. None where that is further back than this sight remembers.
    pub fn membership_at(&self, at: Order) -> Option<MembershipState> {
        (at >= self.remembers_from).then(|| value_at(&self.membership, at).cloned().unwrap_or(MembershipState::Leave))
    }

    /// From where on the memberships are known.
    pub fn remembers_from(&self) -> Order {
        self.remembers_from
    }

    /// Whether anybody may read the room as it is now.
    pub fn is_world_readable(&self) -> bool {
        self.world_readable
    }
}

/// Adds a stretch, as part of the one before it where nothing lies between them.
fn extend(visible: &mut Vec<(Order, Order)>, first: Order, last: Order) {
    if first > last {
        return;
    }
    match visible.last_mut() {
        Some((_, end)) if end.next() == first => *end = last,
        _ => visible.push((first, last)),
    }
}

/// How it went up to some place.
fn until<T: Clone>(history: &History<T>, last: Order) -> History<T> {
    history.iter().filter(|(from, _)| *from <= last).cloned().collect()
}

fn value_at<T>(values: &[(Order, T)], at: Order) -> Option<&T> {
    values.iter().rev().find(|(from, _)| *from <= at).map(|(_, value)| value)
}

impl Rooms {
    /// What a user may see of a room. From memory for those who have joined a room that hides nothing from
    /// its members, which is nearly everybody nearly always. From memory it costs no statement, otherwise one. Errors
    /// are the database's.
    pub async fn sight(&self, room: &Room, user_id: &UserId) -> Result<Sight> {
        match room.view(|view| sight_from_memory(view, user_id)) {
            Some(sight) => Ok(sight),
            None => self.whole_sight(room, user_id).await,
        }
    }

    /// What a user may see of a room, with their membership at every time. Always from the database.
    pub async fn whole_sight(&self, room: &Room, user_id: &UserId) -> Result<Sight> {
        let sight = self.sights_along(&[room.view(|view| view.trunk)], user_id).await?.pop();
        sight.ok_or_else(|| Error::broken("one room has no sight"))
    }

    /// What a user may see of some rooms, in their order, with their membership at every time.
    pub(super) async fn whole_sights(&self, rooms: &[Arc<Room>], user_id: &UserId) -> Result<Vec<Sight>> {
        let trunks: Vec<Lineage> = rooms.iter().map(|room| room.view(|view| view.trunk)).collect();
        self.sights_along(&trunks, user_id).await
    }

    /// What a user may see of rooms that need not be in memory. Nothing of what is no room here.
    pub(crate) async fn sights(&self, rooms: &[&RoomId], user_id: &UserId) -> Result<HashMap<OwnedRoomId, Sight>> {
        let rooms = store::room::list_trunks(&mut self.0.db.read().await?, rooms).await?;
        let (rooms, trunks): (Vec<OwnedRoomId>, Vec<Lineage>) = rooms.into_iter().unzip();
        Ok(rooms.into_iter().zip(self.sights_along(&trunks, user_id).await?).collect())
    }

    /// From how visibility and membership went along some trunks, in their order.
    async fn sights_along(&self, trunks: &[Lineage], user_id: &UserId) -> Result<Vec<Sight>> {
        let keys = [HISTORY_VISIBILITY, ("m.room.member", user_id.as_str())];
        let mut histories = store::state::versions_of_both(&mut self.0.db.read().await?, trunks, keys).await?;
        Ok(trunks.iter().map(|trunk| sight_from_history(histories.remove(trunk).unwrap_or_default())).collect())
    }
}

fn sight_from_history([visibility, membership]: [Vec<HeldSince>; 2]) -> Sight {
    let membership = membership
        .into_iter()
        .map(|held| (held.from, held.event.map_or(MembershipState::Leave, |(_, pdu)| membership_of(&pdu))));
    Sight::new(&visibility_over_time(visibility), membership.collect())
}

/// None where memory is not enough: something was hidden or is missing, or the user is not in the room now.
fn sight_from_memory(view: &View, user_id: &UserId) -> Option<Sight> {
    if view.has_hidden_history || view.has_gaps || view.state.membership(user_id) != MembershipState::Join {
        return None;
    }
    let (remembers_from, membership) = view.memberships(user_id);
    let world_readable = view.state.history_visibility() == HistoryVisibility::WorldReadable;
    Some(Sight::everything(membership, remembers_from, world_readable))
}

fn visibility_over_time(versions: Vec<HeldSince>) -> History<HistoryVisibility> {
    let visibility = |event: Option<(EventKey, Arc<Pdu>)>| visibility_of(event.as_ref().map(|(_, pdu)| &**pdu));
    versions.into_iter().map(|held| (held.from, visibility(held.event))).collect()
}

#[cfg(test)]
mod tests {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use MembershipState::{Ban, Invite, Join, Knock, Leave};
    use ruma::RoomVersionId;

    use super::*;
    use crate::{
        ground::position::Position,
        room::world::{RoomWorld, user},
    };

    /// The place of the event in question.
    const EVENT: Order = Order(50);

    /// The reader's membership before the event, at it, and later.
    fn sight(visibility: &HistoryVisibility, memberships: [Option<&MembershipState>; 3]) -> Sight {
        let history = [10, 40, 90].into_iter().zip(memberships);
        let history = history.filter_map(|(at, membership)| Some((Order(at), membership?.clone())));
        Sight::new(&vec![(Order(5), visibility.clone())], history.collect())
    }

    #[test]
    fn history_visibility_matrix() {
        for visibility in [WorldReadable, Shared, Invited, Joined] {
            for membership in [Join, Invite, Knock, Leave, Ban] {
                for (before, later) in [(false, false), (true, false), (false, true), (true, true)] {
                    let (before, later) = (before.then_some(&Join), later.then_some(&Join));
                    let sees = sight(&visibility, [before, Some(&membership), later]).sees_at(EVENT);
                    let joined_ever = before.or(later).is_some();
                    let allowed = match (&visibility, &membership) {
                        (WorldReadable, _) | (_, Join) => true,
                        (Shared, _) => later.is_some(),
                        (Invited, Invite) => joined_ever,
                        _ => false,
                    };
                    assert_eq!(sees, allowed, "{visibility} {membership} {before:?} {later:?}");
                }
            }
        }
    }

    #[test]
    fn a_change_is_seen_by_whoever_may_see_what_was_or_what_is() {
        let stranger = |visibility: &[(i64, HistoryVisibility)]| {
            let visibility = visibility.iter().map(|(at, one)| (Order(*at), one.clone())).collect();
            Sight::new(&visibility, Vec::new())
        };
        let closing = stranger(&[(5, WorldReadable), (50, Joined)]);
        assert!(closing.sees_at(EVENT.before()) && closing.sees_at(EVENT) && !closing.sees_at(EVENT.next()));
        let opening = stranger(&[(5, Joined), (50, WorldReadable)]);
        assert!(!opening.sees_at(EVENT.before()) && opening.sees_at(EVENT) && opening.sees_at(EVENT.next()));

        let visibility = vec![(Order(5), Joined)];
        let member = |history: &[(i64, MembershipState)]| {
            Sight::new(&visibility, history.iter().map(|(at, one)| (Order(*at), one.clone())).collect())
        };
        let joining = member(&[(50, Join)]);
        assert!(!joining.sees_at(EVENT.before()) && joining.sees_at(EVENT) && joining.sees_at(EVENT.next()));
        let leaving = member(&[(10, Join), (50, Leave)]);
        assert!(leaving.sees_at(EVENT.before()) && leaving.sees_at(EVENT) && !leaving.sees_at(EVENT.next()));
        assert_eq!(leaving.left_at(), Some(EVENT));
        let banned_later = member(&[(10, Join), (50, Leave), (60, Invite), (70, Ban)]);
        assert_eq!(banned_later.left_at(), Some(EVENT));
        assert!(!banned_later.sees_at(Order(60)) && !banned_later.sees_at(Order(70)));
    }

    #[test]
    fn what_was_seen_is_what_could_be_read_by_then() {
        let sight = |visibility: HistoryVisibility, history: &[(i64, MembershipState)]| {
            let history = history.iter().map(|(at, one)| (Order(*at), one.clone())).collect();
            Sight::new(&vec![(Order(1), visibility)], history)
        };
        let saw = |sight: &Sight, at: i64| sight.saw(Order(at), EVENT).unwrap();
        let before = sight(Shared, &[(10, Join), (30, Leave), (60, Join)]);
        assert!(saw(&before, 5) && saw(&before, 20), "as a member, or as one who came later");
        assert!(!saw(&before, 40), "nobody had told them by then");
        assert!(!saw(&before, 55) && saw(&before, 70), "what was sent later they saw if they were there");
        for visibility in [Shared, WorldReadable] {
            let later = sight(visibility, &[(40, Invite), (60, Join)]);
            assert!(!saw(&later, 5) && !saw(&later, 45) && later.sees_at(Order(5)));
        }
        let hidden = sight(Joined, &[(10, Join)]);
        assert!(!saw(&hidden, 5) && saw(&hidden, 20));
        let remembered = |membership| Sight::everything(vec![(Order(30), membership)], Order(30), false);
        assert_eq!(remembered(Join).saw(Order(5), EVENT), Some(true));
        assert_eq!(remembered(Leave).saw(Order(5), EVENT), None, "they may have been there before");
        assert_eq!(remembered(Join).saw(Order(5), Order(20)), None);
    }

    #[test]
    fn what_is_visible_is_given_as_stretches() {
        let visibility = vec![(Order(1), Joined)];
        let history = vec![(Order(10), Join), (Order(20), Leave), (Order(30), Join)];
        let sight = Sight::new(&visibility, history);
        let within = |after, until| -> Vec<(i64, i64)> {
            sight.within(Order(after), Order(until)).map(|(after, until)| (after.0, until.0)).collect()
        };
        // Before the visibility was set it was the default, and the user joined later.
        assert_eq!(within(0, 100), [(0, 1), (9, 20), (29, 100)]);
        assert_eq!(within(15, 35), [(15, 20), (29, 35)]);
        assert_eq!(within(20, 29), []);
        let nearest = |at| sight.nearest(Order(at)).0;
        assert_eq!([nearest(5), nearest(15), nearest(25), nearest(35)], [10, 15, 30, 35]);
    }

    #[test]
    fn an_unknown_visibility_means_shared() {
        let pdu = crate::room::testing::pdu_of(&serde_json::json!({ "content": { "history_visibility": "friends" } }));
        assert_eq!(visibility_of(Some(&pdu)), Shared);
        assert_eq!(visibility_of(None), Shared);
    }

    #[tokio::test]
    async fn memory_and_database_agree_on_what_a_member_sees() {
        let test = RoomWorld::new().await;
        let room_id = test.create_room(RoomVersionId::V12, "shared").await;
        test.say(&room_id, "alice", &["before bob"]).await;
        test.member(&room_id, "bob", "bob", "join").await;
        let room = test.rooms.get(&room_id).await.unwrap();
        let until = room.view(|view| view.position);

        let bob = user("bob");
        let remembered = test.rooms.sight(&room, &bob).await.unwrap();
        let whole = test.rooms.whole_sight(&room, &bob).await.unwrap();
        for at in (0..=until.0).map(|at| Order::at(Position(at))) {
            assert_eq!(remembered.sees_at(at), whole.sees_at(at), "{at:?}");
            if let Some(membership) = remembered.membership_at(at) {
                assert_eq!(Some(membership), whole.membership_at(at), "{at:?}");
            }
        }
        assert!(remembered.membership_at(Order::at(until)).is_some());
        assert!(!room.view(|view| view.has_hidden_history));

        let hide = serde_json::json!({ "history_visibility": "joined" });
        test.set(&room_id, "alice", "m.room.history_visibility", "", hide).await;
        let show = serde_json::json!({ "history_visibility": "shared" });
        test.set(&room_id, "alice", "m.room.history_visibility", "", show).await;
        assert!(room.view(|view| view.has_hidden_history));
        let test = test.restart().await;
        assert!(test.rooms.get(&room_id).await.unwrap().view(|view| view.has_hidden_history));
    }
}
