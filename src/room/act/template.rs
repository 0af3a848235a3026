//! What users of other servers are handed who want to come into a room, go or knock: an event that says so, built on the
//! room as it is, for their server to complete, sign and send back (`admission.rs`).
//!
//! A template is only given to who may do what it says, by what is known here: the rules of the room are asked about the
//! very event. Nothing is written.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites> and
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>

use ruma::{
    RoomId, RoomVersionId, ServerName, UserId,
    api::error::{ErrorKind, IncompatibleRoomVersionErrorData},
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::value::{RawValue, to_raw_value};

use super::join::AUTHORISED_VIA;
use crate::{
    error::{Error, Result},
    event::{Content, Draft, GraphPlace, Pdu, content},
    room::{
        Rooms,
        graph::{append::newest, auth, head::Head},
    },
};

/// For whom which server asks, and for which room.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub room_id: &'a RoomId,
    pub user_id: &'a UserId,
    pub from: &'a ServerName,
}

/// An event to complete. It has neither hash nor signature.
#[derive(Debug)]
pub struct Template {
    /// That of the room.
    pub version: RoomVersionId,
    pub event: Box<RawValue>,
}

impl Rooms {
    /// The join of a user of another server, one of whose `versions` the room must have.
    ///
    /// `M_NOT_FOUND` for a room that nobody of this server is in, `M_FORBIDDEN` for who may not come in,
    /// `M_INCOMPATIBLE_ROOM_VERSION`, and for rooms with conditions `M_UNABLE_TO_AUTHORISE_JOIN` and
    /// `M_UNABLE_TO_GRANT_JOIN`.
    pub async fn join_template(&self, asking: Asking<'_>, versions: &[RoomVersionId]) -> Result<Template> {
        let head = self.head_for(asking).await?;
        check_version(&head, versions)?;
        let mut content = membership(&MembershipState::Join);
        if let Some(authorising_user) = self.admit_stranger(&head, asking.user_id).await? {
            content.insert(AUTHORISED_VIA.to_owned(), authorising_user.as_str().into());
        }
        self.template(&head, asking, content)
    }

    /// That a user of another server leaves the room, turns down an invitation or takes back a knock.
    ///
    /// `M_NOT_FOUND` for a room that nobody of this server is in, `M_FORBIDDEN` for who has nothing to leave.
    pub async fn leave_template(&self, asking: Asking<'_>) -> Result<Template> {
        let head = self.head_for(asking).await?;
        self.template(&head, asking, membership(&MembershipState::Leave))
    }

    /// The knock of a user of another server, one of whose `versions` the room must have.
    ///
    /// `M_NOT_FOUND` for a room that nobody of this server is in, `M_INCOMPATIBLE_ROOM_VERSION`, and `M_FORBIDDEN` where
    /// the room knows no knocking or the user has no need to.
    pub async fn knock_template(&self, asking: Asking<'_>, versions: &[RoomVersionId]) -> Result<Template> {
        let head = self.head_for(asking).await?;
        check_version(&head, versions)?;
        self.template(&head, asking, membership(&MembershipState::Knock))
    }

    /// What has been committed of a room, for a server that asks in the name of one of its own users.
    async fn head_for(&self, Asking { room_id, user_id, from }: Asking<'_>) -> Result<Head> {
        if user_id.server_name() != from {
            return Err(Error::forbidden(format!("{user_id} is no user of {from}")));
        }
        Ok(self.get_for_handshake(room_id, from).await?.view(Head::of))
    }

    /// Builds the event, and asks the rules of the room whether they would let it in.
    fn template(&self, head: &Head, asking: Asking<'_>, content: Content) -> Result<Template> {
        let (user_id, kind) = (asking.user_id, TimelineEventType::RoomMember);
        let raw = to_raw_value(&content).map_err(Error::broken)?;
        let auth_events = auth::auth_events(&head.state, &kind, user_id, Some(user_id.as_str()), &raw, head.rules)
            .map_err(Error::broken)?;
        let place = GraphPlace {
            room_id: Some(asking.room_id.to_owned()),
            depth: head.room.depth + 1,
            prev_events: newest(&head.room.extremities),
            auth_events,
        };
        let draft = Draft::state(user_id.to_owned(), kind, user_id.as_str(), content);
        let mut event = draft.unsigned(&place, self.now(), head.rules);
        let pdu = Pdu::from_canonical(&event, head.rules).map_err(Error::broken)?;
        auth::check(&pdu, &head.state)
            .map_err(|rule| Error::forbidden(format!("The room does not allow this: {rule}")))?;
        // No room version has this field. The specification still lists it here, and the other server replaces it.
        event.insert("origin".to_owned(), self.server_name().as_str().into());
        let event = to_raw_value(&event).map_err(Error::broken)?;
        Ok(Template { version: head.room.version.clone(), event })
    }
}

fn membership(membership: &MembershipState) -> Content {
    content([("membership", membership.as_str().into())])
}

fn check_version(head: &Head, spoken: &[RoomVersionId]) -> Result<()> {
    if spoken.contains(&head.room.version) { Ok(()) } else { Err(incompatible(&head.room.version)) }
}

/// The answer to a server that has to do with a room of a version that one of the two servers does not speak.
fn incompatible(version: &RoomVersionId) -> Error {
    let data = IncompatibleRoomVersionErrorData::new(version.clone());
    let message = format!("The room has version {version}, which your server does not say that it speaks");
    Error::refused(ErrorKind::IncompatibleRoomVersion(data), message)
}
