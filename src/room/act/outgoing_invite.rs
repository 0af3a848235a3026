//! Invitations of users of other servers: the server of whoever is invited signs the event before it is sent to anybody
//! else, so it is built and checked here, signed there, and then taken into the room.
//!
//! The room may change in between. The invitation keeps the place that it was built for, as an event does that another
//! server has sent, and the room's rules are asked again when it comes in.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::sync::Arc;

use ruma::{
    CanonicalJsonValue, OwnedEventId, RoomId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType},
};

use super::{
    membership::{Change, check_invitable},
    send::check_joined,
};
use crate::{
    error::{Error, Result},
    event::{Content, Draft, Pdu, Standing},
    room::{Rooms, State, graph::head::Head},
};

/// An invitation that the server of whoever is invited has not signed yet.
#[derive(Debug)]
pub struct OutgoingInvite {
    pub invite: Pdu,
    pub version: RoomVersionId,
    /// What is shown of the room with it, as whole events: the create event first, and who invites last.
    pub room_state: Vec<Arc<Pdu>>,
}

impl State {
    /// Whether users of other servers than its creator's may be in the room.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#mroomcreate>
    fn federates(&self) -> bool {
        let create: Option<Content> = self.content(&StateEventType::RoomCreate);
        let says = create.as_ref().and_then(|content| content.get("m.federate"));
        says != Some(&CanonicalJsonValue::Bool(false))
    }
}

impl Rooms {
    /// Builds an invitation of a user of another server, at the room's end as it is now. The inner error is the event by
    /// which they are invited already, in these words. `content` is all that the event says.
    ///
    /// `M_FORBIDDEN` where the target is in the room, is banned or can't be invited by this user, and where the room is for
    /// one server alone.
    pub async fn prepare_invite(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        content: &Content,
    ) -> Result<Result<OutgoingInvite, OwnedEventId>> {
        // Built on what is committed: the event names what it follows, which the room must not lose.
        self.0.log.refresh().await?;
        let room = self.get_held(room_id).await?;
        let mut head = room.view(Head::of);
        check_joined(&head.state, sender)?;
        if !head.state.federates() {
            return Err(Error::forbidden("This room was made for users of this server alone"));
        }
        check_invitable(target, &head.state.membership(target))?;
        let change = Change { sender, target, content, transaction: None };
        if let Some(event_id) = change.plan(&head).done_by {
            return Ok(Err(event_id));
        }
        let (mut room_state, version) = (head.state.introduction(), head.room.version.clone());
        room_state.extend(head.state.member(sender).cloned());
        let draft = Draft::state(sender.to_owned(), TimelineEventType::RoomMember, target.as_str(), content.clone());
        let built = self.build_event(&mut head, Some(room_id), draft.into())?;
        Ok(Ok(OutgoingInvite { invite: Pdu::clone(&built.pdu), version, room_state }))
    }

    /// Takes an invitation into its room that both servers have signed.
    pub async fn complete_invite(&self, invite: Pdu) -> Result<OwnedEventId> {
        let event_id = invite.event_id().to_owned();
        let room = self.get(invite.room_id()).await?;
        match self.append_remote(&room, invite).await? {
            Standing::Accepted => Ok(event_id),
            Standing::SoftFailed | Standing::Rejected | Standing::Outlier => {
                Err(Error::forbidden("The room has changed meanwhile, and does not allow this invitation any more"))
            }
        }
    }
}
