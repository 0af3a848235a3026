//! Who can be found in the user directory because of what a batch did to memberships and to the doors of rooms.
//!
//! Anybody may find those who are in an open room, one that everybody can enter or read. Users of other servers are
//! found by what each room calls them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::collections::{HashMap, HashSet};

use ruma::{
    RoomId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use super::{Rooms, Touched};
use crate::{
    db::{DbResult, Tx},
    event::Pdu,
    store::{
        self,
        membership::Membership,
        room::Doors,
        user_directory::{self, Entry},
    },
    words,
};

/// Up to so many members are looked at with the event that opens or closes their room; more of them later, since the
/// log waits.
const FEW: usize = 100;

/// Takes the memberships that a batch has changed, with their events, and the rooms that it has opened or closed.
pub(super) async fn follow(
    tx: &mut Tx,
    rooms: &Rooms<'_>,
    memberships: &[Membership<'_>],
    events: &[Option<&Pdu>],
    here: &ServerName,
) -> DbResult<()> {
    let (strangers, locals): (Vec<_>, Vec<_>) = memberships
        .iter()
        .zip(events.iter().copied())
        .partition(|(membership, _)| membership.user_id.server_name() != here);
    let concerns = |membership: &Membership<'_>| rooms.get(membership.room_id).is_some_and(Touched::concerns_everybody);
    let mut touched: HashSet<String> = locals
        .iter()
        .filter(|(membership, _)| concerns(membership))
        .map(|(membership, _)| membership.user_id.to_string())
        .collect();
    relist_strangers(tx, rooms, &strangers).await?;
    for (room_id, room) in rooms {
        if room.doors_before.is_none_or(|before| before.are_open() == room.standing.doors.are_open()) {
            continue;
        }
        let limit = i64::try_from(FEW + 1).unwrap_or(i64::MAX);
        let members = store::membership::list_joined_users(tx, room_id, limit).await?;
        if members.len() > FEW {
            user_directory::put_off(tx, room_id, room.head.head).await?;
            continue;
        }
        let members: Vec<&str> = members.iter().map(|user| user.as_str()).collect();
        user_directory::show_strangers(tx, room_id, &members, room.standing.doors.are_open()).await?;
        touched.extend(members.into_iter().map(ToOwned::to_owned));
    }
    if touched.is_empty() {
        return Ok(());
    }
    user_directory::review(tx, &touched.iter().map(String::as_str).collect::<Vec<_>>()).await
}

impl Touched<'_> {
    /// Whether it is or was open, so that who is in it matters to everybody.
    fn concerns_everybody(&self) -> bool {
        self.standing.doors.are_open() || self.doors_before.is_some_and(Doors::are_open)
    }
}

/// Writes down what rooms call users of other servers who have come, gone or been renamed.
async fn relist_strangers(
    tx: &mut Tx,
    rooms: &Rooms<'_>,
    strangers: &[(&Membership<'_>, Option<&Pdu>)],
) -> DbResult<()> {
    let mut by_room: HashMap<&RoomId, Vec<&str>> = HashMap::new();
    let mut entries = Vec::new();
    for (membership, event) in strangers {
        by_room.entry(membership.room_id).or_default().push(membership.user_id.as_str());
        if membership.state == MembershipState::Join {
            entries.push(Entry {
                user_id: membership.user_id,
                room_id: Some(membership.room_id),
                words: words::of_user(membership.user_id, event.and_then(display_name).as_deref()),
                is_public: rooms.get(membership.room_id).is_some_and(|room| room.standing.doors.are_open()),
            });
        }
    }
    for (room_id, users) in by_room {
        user_directory::forget_strangers(tx, room_id, &users).await?;
    }
    user_directory::insert(tx, &entries).await
}

/// Forgets a name that somebody of another server had in a membership event that has been redacted.
pub(super) async fn redact(tx: &mut Tx, redacted: &Pdu, here: &ServerName) -> DbResult<()> {
    let stranger = redacted.state_key().and_then(|key| <&UserId>::try_from(key).ok());
    let stranger =
        stranger.filter(|user| *redacted.kind() == TimelineEventType::RoomMember && user.server_name() != here);
    let Some(user_id) = stranger else { return Ok(()) };
    let room_id = redacted.room_id();
    let membership = store::membership::find(tx, user_id, room_id).await?;
    if membership.is_none_or(|membership| membership.membership != MembershipState::Join) {
        return Ok(());
    }
    let places = store::state::list_current_of(tx, &[room_id], "m.room.member", &[user_id.as_str()]).await?;
    let current = store::event::list_at(tx, &places).await?.pop();
    let words = words::of_user(user_id, current.and_then(|event| display_name(&event.pdu)).as_deref());
    let is_public = store::room::is_open(tx, room_id).await?;
    user_directory::forget_strangers(tx, room_id, &[user_id.as_str()]).await?;
    user_directory::insert(tx, &[Entry { user_id, room_id: Some(room_id), words, is_public }]).await
}

/// What a membership event calls its user.
fn display_name(event: &Pdu) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        displayname: String,
    }
    event.content_as::<Content>().ok().map(|content| content.displayname)
}
