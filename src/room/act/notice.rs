//! The room in which the server speaks to one of its users: one for each, whoever makes it.
//!
//! Which room is whose stands in the account data of the server's own user, and comes into being with the room. Of two
//! nodes that make it at once, one fails because it was too late.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-notices>
//!
//! The tag that marks the room in clients is written with it, in the user's own account data.

use ruma::{
    Int, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::error::ErrorKind,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::to_raw_value};

use super::{member_profile::member_content, membership::Change};
use crate::{
    error::{Error, Result},
    event::{
        content,
        fact::{AccountData, Fact},
    },
    ground::position::Position,
    room::{InitialState, NewRoom, Preset, Rooms, State, graph::append::Plan},
    store,
};

/// How often a room is looked for and made before the caller gets the error that they may try later.
const ATTEMPTS: u32 = 4;

/// How such a room is made.
#[derive(Clone, Debug)]
pub struct NoticeRoom {
    /// The server's own user.
    pub sender: OwnedUserId,
    pub name: String,
    /// Only looked at when the room is made, as the name and the version are.
    pub avatar_url: Option<String>,
    pub version: RoomVersionId,
}

/// What the account data says.
#[derive(Serialize, Deserialize)]
struct NoticeRoomContent {
    room_id: OwnedRoomId,
}

impl State {
    /// By the sender of `m.room.create`, whom nobody can change afterwards.
    fn is_made_by(&self, user_id: &UserId) -> bool {
        self.find(&StateEventType::RoomCreate).is_some_and(|create| create.sender() == user_id)
    }
}

impl Rooms {
    /// The room in which the server speaks to a user, who is in it or invited from now on, and sees the server's own
    /// user as their profile is now. Whether they take invitations of others does not matter.
    ///
    /// A room that the user has left is used again: they are invited again.
    pub async fn notice_room(&self, room: &NoticeRoom, user_id: &UserId) -> Result<OwnedRoomId> {
        for _ in 0..ATTEMPTS {
            if let Some(room_id) = self.find_notice_room(&room.sender, user_id).await? {
                self.update_profile_in_room(&room_id, &room.sender, &self.profile(&room.sender).await?).await?;
                self.invite_to_notices(&room_id, &room.sender, user_id).await?;
                return Ok(room_id);
            }
            match self.create_notice_room(room, user_id).await {
                // Another node was faster, or the database fails: the next look shows which.
                Err(Error::Conflict | Error::Unavailable(_)) => {}
                made => return made,
            }
        }
        Err(Error::Unavailable(format!("the room for notices to {user_id} could not be made")))
    }

    /// From now on nobody turns down an invitation to the rooms in which this user speaks. Called at start. The first
    /// call counts.
    pub fn set_notices_sender(&self, sender: &UserId) {
        self.0.voice.get_or_init(|| sender.to_owned());
    }

    /// Refuses where a user turns down the invitation to the room in which the server speaks to them. Whoever has
    /// joined may leave.
    pub(super) fn check_leaving(&self, state: &State, user_id: &UserId) -> Result<()> {
        let is_of_the_server = || self.0.voice.get().is_some_and(|voice| state.is_made_by(voice));
        if state.membership(user_id) == MembershipState::Invite && is_of_the_server() {
            let message = "This server tells you here what you need to know: join the room, then you can leave it";
            return Err(Error::refused(ErrorKind::CannotLeaveServerNoticeRoom, message));
        }
        Ok(())
    }

    /// Whether the server speaks to somebody in this room.
    pub async fn is_notice_room(&self, sender: &UserId, room_id: &RoomId) -> Result<bool> {
        Ok(self.find_held(room_id).await?.is_some_and(|room| room.view(|view| view.state.is_made_by(sender))))
    }

    /// In the sender's account data, which only this server writes.
    async fn find_notice_room(&self, sender: &UserId, user_id: &UserId) -> Result<Option<OwnedRoomId>> {
        let mut conn = self.0.db.read().await?;
        let found = store::account_data::find(&mut conn, sender, None, &kind(user_id)).await?;
        let content = found.map(|(_, data)| serde_json::from_str::<NoticeRoomContent>(data.content.get()));
        Ok(content.transpose().map_err(Error::broken)?.map(|content| content.room_id))
    }

    /// [`Error::Conflict`] where another node has made one since it was looked for: the account data would replace
    /// another.
    async fn create_notice_room(&self, room: &NoticeRoom, user_id: &UserId) -> Result<OwnedRoomId> {
        let avatar = room.avatar_url.as_ref().map(|url| InitialState {
            kind: TimelineEventType::RoomAvatar,
            state_key: String::new(),
            content: content([("url", url.as_str().into())]),
        });
        // The server speaks and nobody reads what is answered.
        let level = Int::from(50);
        let levels = content([("events_default", level.into()), ("invite", level.into())]);
        let new = NewRoom {
            creator: room.sender.clone(),
            version: room.version.clone(),
            preset: Preset::PrivateChat,
            published: false,
            alias: None,
            name: Some(room.name.clone()),
            topic: None,
            invite: vec![user_id.to_owned()],
            is_direct: false,
            creation_content: content([]),
            initial_state: avatar.into_iter().collect(),
            power_level_content_override: levels,
        };
        let facts = |room_id: &RoomId| -> Result<Vec<Fact>> {
            let whose = AccountData {
                user_id: room.sender.clone(),
                room_id: None,
                kind: kind(user_id),
                content: to_raw_value(&NoticeRoomContent { room_id: room_id.to_owned() })
                    .map_err(Error::broken)?
                    .into(),
            };
            let tag = AccountData {
                user_id: user_id.to_owned(),
                room_id: Some(room_id.to_owned()),
                kind: "m.tag".to_owned(),
                content: to_raw_value(&json!({ "tags": { "m.server_notice": {} } })).map_err(Error::broken)?.into(),
            };
            Ok(vec![Fact::AccountData(whose.replacing(Position::START)), Fact::AccountData(tag.into())])
        };
        self.create_with(Vec::new(), new, facts, None).await
    }

    /// In the plan and not before it: the user may join at this moment.
    async fn invite_to_notices(&self, room_id: &RoomId, sender: &UserId, user_id: &UserId) -> Result<()> {
        let invite = member_content(&MembershipState::Invite, &self.profile(user_id).await?, None);
        let invited = self.append(room_id, |head| match head.state.membership(user_id) {
            MembershipState::Join | MembershipState::Invite => Ok(Plan::nothing()),
            _ => Ok(Change { sender, target: user_id, content: &invite, transaction: None }.plan(head)),
        });
        invited.await.map(drop)
    }
}

/// The type of the account data that says which room is a user's.
fn kind(user_id: &UserId) -> String {
    format!("hearth.notice_room.{user_id}")
}
