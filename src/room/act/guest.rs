//! Guests in rooms: they come where they are let in, and go when they no longer are.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use std::sync::atomic::{AtomicBool, Ordering};

use ruma::{
    CanonicalJsonValue, OwnedEventId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};

use super::member_profile::{MemberProfile, member_content};
use crate::{
    error::{Error, Result},
    event::{Content, Draft},
    room::{
        Rooms, State,
        graph::{
            append::{ATTEMPTS, Appended, Plan, Proposal},
            head::Head,
        },
    },
    store,
};

/// How many guests leave in one write. A batch of the log is about as long.
const AT_ONCE: usize = 400;

impl State {
    /// Whether guests may join.
    pub(super) fn admits_guests(&self) -> bool {
        self.content(&StateEventType::RoomGuestAccess).is_some_and(|content: Content| admits_guests(&content))
    }
}

/// Whether an `m.room.guest_access` with this content lets guests in.
pub(super) fn admits_guests(content: &Content) -> bool {
    content.get("guest_access").and_then(CanonicalJsonValue::as_str) == Some("can_join")
}

impl Rooms {
    /// Appends an event that may end guest access, and where it does, as `ends` says of the head before it, has all
    /// guests leave in the same write: at no time are they in a room that does not let them in. Returns that event.
    ///
    /// `plan` has to refuse by itself whoever lacks the power: of very many guests most leave before it.
    pub(super) async fn append_ending_guest_access(
        &self,
        room_id: &RoomId,
        plan: impl Fn(&Head) -> Result<Plan>,
        ends: impl Fn(&Head) -> bool,
    ) -> Result<OwnedEventId> {
        for _ in 0..ATTEMPTS {
            // Whoever has a membership here is known to the database when it is asked.
            let known = self.get_held(room_id).await?.state();
            let guests = store::account::list_guests_of_room(&mut self.0.db.read().await?, room_id).await?;
            // Set by the last call of the plan, which may be called again on another head: true if what was appended
            // includes the event itself.
            let planned = AtomicBool::new(false);
            let appended = self.append(room_id, |head| {
                let mut plan = plan(head)?;
                planned.store(true, Ordering::Relaxed);
                if plan.done_by.is_some() || !ends(head) {
                    return Ok(plan);
                }
                let joined = |user: &UserId| head.state.membership(user) == MembershipState::Join;
                let present: Vec<&OwnedUserId> = guests.iter().filter(|guest| joined(guest)).collect();
                let newcomers = self.has_newcomers(&known, &head.state);
                // The event waits: first some guests leave, or the guests are looked up again.
                if newcomers || present.len() > AT_ONCE {
                    planned.store(false, Ordering::Relaxed);
                    plan = Plan::nothing();
                }
                if !newcomers {
                    plan.proposals.extend(present.into_iter().take(AT_ONCE).map(leaving));
                }
                Ok(plan)
            });
            let appended = appended.await?;
            if planned.load(Ordering::Relaxed) {
                let event_id = match &appended {
                    Appended::Done(events) => events.first().map(|pdu| pdu.event_id().to_owned()),
                    Appended::Before(event_id) => Some(event_id.clone()),
                };
                return event_id.ok_or_else(|| Error::broken("nothing was appended, and nothing was there before"));
            }
        }
        Err(Error::Unavailable(format!("guests come into room {room_id} faster than they can be made to leave it")))
    }

    /// Whether somebody of this server is in the room who had nothing to do with it before. Whether they are guests,
    /// only a further look into the database says.
    fn has_newcomers(&self, known: &State, now: &State) -> bool {
        now.members().any(|member| {
            member.user_id.server_name() == self.server_name()
                && known.find_membership(member.user_id.as_str()).is_none()
                && member.has_joined()
        })
    }
}

/// In the guest's own name, which needs no power over them.
fn leaving(guest: &OwnedUserId) -> Proposal {
    let reason = Some("Guests are no longer let into this room".to_owned());
    let content = member_content(&MembershipState::Leave, &MemberProfile::default(), reason);
    Draft::state(guest.clone(), TimelineEventType::RoomMember, guest.as_str(), content).into()
}
