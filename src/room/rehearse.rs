//! Whether something could be said in a room as it is now. Nothing is said.

use ruma::{
    RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    Rooms,
    append::{Head, refused_draft},
    membership::read_membership,
    send::{check_joined, redaction_as_state, take_redacts},
};
use crate::{
    error::Result,
    event::{Content, Draft, Place},
};

impl Rooms {
    /// Refuses an event that would be refused if it were sent now, a piece of state where it has a state key. What the
    /// room allows later is seen later.
    pub async fn rehearse(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        kind: &TimelineEventType,
        state_key: Option<&str>,
        content: &Content,
    ) -> Result<()> {
        let (sender_id, mut content) = (sender.to_owned(), content.clone());
        let draft = match (kind, state_key) {
            (TimelineEventType::RoomRedaction, Some(_)) => return Err(redaction_as_state()),
            (TimelineEventType::RoomRedaction, None) => {
                let target = take_redacts(&mut content)?;
                Draft { redacts: Some(target), ..Draft::message(sender_id, kind.clone(), content) }
            }
            (_, Some(state_key)) => Draft::state(sender_id, kind.clone(), state_key, content),
            (_, None) => Draft::message(sender_id, kind.clone(), content),
        };
        let room = self.get(room_id).await?;
        let mut head = room.view(|view| Head { room: view.head.clone(), rules: view.rules, state: view.state.clone() });
        let membership = match state_key.filter(|_| *kind == TimelineEventType::RoomMember) {
            Some(state_key) => Some(read_membership(state_key, &draft.content)?),
            None => None,
        };
        match membership {
            // To come in takes more than this event: who vouches for whom, and a name from a profile.
            Some((target, MembershipState::Join | MembershipState::Knock)) if target == sender => {
                return self.rehearse_form(room_id, draft, &head);
            }
            Some((target, MembershipState::Leave)) if target == sender => self.check_leaving(&head.state, sender)?,
            Some((target, _)) if target == sender => {}
            _ => check_joined(&head.state, sender)?,
        }
        self.build_event(&mut head, Some(room_id), draft.into()).map(drop)
    }

    /// Only that it is an event at all, and not too large.
    fn rehearse_form(&self, room_id: &RoomId, draft: Draft, head: &Head) -> Result<()> {
        let place = Place {
            room_id: Some(room_id.to_owned()),
            depth: head.room.depth + 1,
            prev_events: head.room.extremities.clone(),
            auth_events: Vec::new(),
        };
        let signed = draft.sign(&place, self.now(), self.server_name(), &self.0.key, head.rules);
        signed.map(drop).map_err(refused_draft)
    }
}
