//! Drawing a room's ends together again: an event of this server that nobody reads, and that follows as many of them as an
//! event may.
//!
//! Where other servers talk past each other, or one of them wants it so, a room has more and more extremities, and each
//! event that comes resolves the states of all of them. Usually the next event of a user here follows ten of them. Where
//! nobody here says anything, this does.

use ruma::{OwnedUserId, events::room::member::MembershipState};

use super::{append::Plan, head::Head, residency::Resident, rooms::Rooms};
use crate::{
    error::{Error, Result},
    event::{Content, Draft},
};

/// What Synapse calls such an event, too: servers and clients know it as one that is not shown.
const DUMMY_EVENT: &str = "org.matrix.dummy_event";
/// How many extremities a room may have for as long as it likes. As many as a new event follows.
const ENOUGH: usize = 10;
/// How many such events are sent at once: what is left then has its turn later.
const AT_ONCE: usize = 10;
/// Of how many users it is found out whether they may send one.
const ASKED: usize = 100;

impl Rooms {
    /// Has an event follow the newest extremities of a room that has more than [`ENOUGH`], and again until it has no more.
    /// To be called when other servers' events have been taken in. True if the room has no more than that now; false also
    /// where no user of this server may send anything there.
    pub async fn merge_extremities(&self, room: &Resident) -> Result<bool> {
        let count = || room.view(|view| view.head.extremities.len());
        if count() <= ENOUGH {
            return Ok(true);
        }
        let Some(sender) = self.find_speaker(room) else { return Ok(false) };
        let room_id = room.view(|view| view.room_id.clone());
        for _ in 0..AT_ONCE {
            let plan = |head: &Head| {
                let is_due = head.room.extremities.len() > ENOUGH;
                let draft = || Draft::message(sender.clone(), DUMMY_EVENT.into(), Content::new());
                Ok(if is_due { Plan::of(draft()) } else { Plan::nothing() })
            };
            match self.append(&room_id, plan).await {
                // They have lost the power, or have gone: somebody else has a turn the next time.
                Err(Error::Refused { .. }) => return Ok(false),
                appended => drop(appended?),
            }
            if count() <= ENOUGH {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Somebody of this server who may send such an event.
    fn find_speaker(&self, room: &Resident) -> Option<OwnedUserId> {
        let (state, rules) = room.view(|view| (view.state.clone(), view.rules));
        let levels = state.power_levels(rules);
        let own = state.members().filter(|member| member.user_id.server_name() == self.0.server_name);
        let mut joined = own.filter(|member| member.membership() == MembershipState::Join).take(ASKED);
        let speaker = joined.find(|member| levels.user_can_send_message(member.user_id, DUMMY_EVENT.into()));
        speaker.map(|member| member.user_id.to_owned())
    }
}
