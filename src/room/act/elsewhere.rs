//! What users of this server say of themselves in rooms that other servers have: membership events that are built on what
//! such a server says of the room, and what follows once they have come in.
//!
//! Nothing of the room is known here, so nothing is checked but the event's own form: who takes it checks it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use ruma::{
    RoomId, UserId,
    api::error::ErrorKind,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};

use super::{
    join::AUTHORISED_VIA,
    member_profile::{MemberProfile, fill_in},
};
use crate::{
    error::{Error, Result},
    event::{Content, Draft, GraphPlace, Pdu},
    room::{
        Rooms,
        graph::append::{ATTEMPTS, Plan, refused_draft},
    },
};

/// What somebody says of themselves in a room elsewhere.
#[derive(Clone, Debug)]
pub struct Introduction {
    content: Content,
    /// As it was when that was written.
    profile: MemberProfile,
}

impl Rooms {
    /// The content of somebody's membership event for a room elsewhere: `content` with the membership and, unless they
    /// leave, with what their profile has.
    pub async fn introduce(
        &self,
        user_id: &UserId,
        membership: &MembershipState,
        mut content: Content,
    ) -> Result<Introduction> {
        content.insert("membership".to_owned(), membership.as_str().into());
        // Who vouches for the user and which invitation they answer is for servers to say.
        content.remove(AUTHORISED_VIA);
        content.remove("third_party_invite");
        let profile = self.profile(user_id).await?;
        if *membership != MembershipState::Leave {
            fill_in(&mut content, &profile);
        }
        Ok(Introduction { content, profile })
    }

    /// The membership event at its place in a room elsewhere, signed by this server alone. `authorised_by` is who lets the
    /// user in where the room is restricted.
    pub fn sign_elsewhere(
        &self,
        user_id: &UserId,
        introduction: &Introduction,
        authorised_by: Option<&UserId>,
        place: &GraphPlace,
        rules: &'static RoomVersionRules,
    ) -> Result<Pdu> {
        let mut content = introduction.content.clone();
        content.extend(authorised_by.map(|user| (AUTHORISED_VIA.to_owned(), user.as_str().into())));
        let draft = Draft::state(user_id.to_owned(), TimelineEventType::RoomMember, user_id.as_str(), content);
        draft.sign(place, self.now(), self.server_name(), &self.0.key.current(), rules).map_err(refused_draft)
    }

    /// What follows once somebody has come into a room by the help of another server: they have what they had set for the
    /// room that it replaces, and are called what they are called by now. Done again it changes nothing.
    pub async fn settle_in(&self, room_id: &RoomId, user_id: &UserId, introduction: &Introduction) -> Result<()> {
        self.bring_settings(room_id, user_id).await?;
        let profile = self.profile(user_id).await?;
        if profile != introduction.profile {
            self.update_profile_in_room(room_id, user_id, &profile).await?;
        }
        Ok(())
    }

    /// Nothing where the room that was replaced does not agree, or nobody of this server is in it.
    async fn bring_settings(&self, room_id: &RoomId, user_id: &UserId) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let state = self.get(room_id).await?.state();
            let settings = self.inherited(&state, room_id, user_id).await?;
            if settings.is_empty() {
                return Ok(());
            }
            let plan = || Plan::facts(settings.clone()).within(self.0.quotas.account_data(user_id));
            match self.append(room_id, |_| Ok(plan())).await {
                // Another device of theirs has changed what they bring along.
                Err(Error::Conflict) => {}
                // They have no space for it.
                Err(Error::Refused { kind: ErrorKind::UserLimitExceeded(_), .. }) => return Ok(()),
                brought => return brought.map(drop),
            }
        }
        Err(Error::Unavailable(format!("what {user_id} has set changes faster than it can be carried over")))
    }
}
