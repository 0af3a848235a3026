//! Whether something could be said in a room as it is now. Nothing is said.
//!
//! It is for events that are sent later: whoever schedules one learns at once that it could never be sent. What is
//! found is not remembered.

use ruma::{
    RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    membership::read_membership,
    send::{check_joined, redaction_as_state, take_redacts},
};
use crate::{
    error::Result,
    event::{Content, Draft, GraphPlace},
    room::{
        Rooms,
        graph::{append::refused_draft, head::Head},
    },
};

impl Rooms {
    /// Refuses an event that would be refused if it were sent now, a piece of state where it has a state key. What the
    /// room allows later is seen later.
    ///
    /// The errors are those that sending it would have. The room's lock is not taken: what is found holds for the
    /// moment of the last commit.
    pub async fn dry_run(
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
            // The target is not looked up: it may come into being before the event is sent.
            (TimelineEventType::RoomRedaction, None) => {
                let target = take_redacts(&mut content)?;
                Draft { redacts: Some(target), ..Draft::message(sender_id, kind.clone(), content) }
            }
            (_, Some(state_key)) => Draft::state(sender_id, kind.clone(), state_key, content),
            (_, None) => Draft::message(sender_id, kind.clone(), content),
        };
        let room = self.get_held(room_id).await?;
        let mut head = room.view(Head::of);
        let membership = match state_key.filter(|_| *kind == TimelineEventType::RoomMember) {
            Some(state_key) => Some(read_membership(state_key, &draft.content)?),
            None => None,
        };
        match membership {
            // To come in takes more than this event: who vouches for whom, and a name from a profile.
            Some((target, MembershipState::Join | MembershipState::Knock)) if target == sender => {
                return self.dry_run_form(room_id, draft, &head);
            }
            Some((target, MembershipState::Leave)) if target == sender => self.check_leaving(&head.state, sender)?,
            Some((target, _)) if target == sender => {}
            _ => check_joined(&head.state, sender)?,
        }
        // Built on a copy of the head, signed, and thrown away.
        self.build_event(&mut head, Some(room_id), draft.into()).map(drop)
    }

    /// Only that it is an event at all, and not too large.
    fn dry_run_form(&self, room_id: &RoomId, draft: Draft, head: &Head) -> Result<()> {
        let place = GraphPlace {
            room_id: Some(room_id.to_owned()),
            depth: head.room.depth + 1,
            prev_events: head.room.extremities.clone(),
            auth_events: Vec::new(),
        };
        let signed = draft.sign(&place, self.now(), self.server_name(), &self.0.key.current(), head.rules);
        signed.map(drop).map_err(refused_draft)
    }
}
