//! What a membership event says about its user: name and picture, from their profile.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information>

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};
use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{Rooms, append::Plan, membership::member_content};
use crate::{
    db::{Conn, DbResult},
    error::{Error, Result},
    event::Draft,
    store,
};

/// How many rooms are told of a new profile at once: enough to share commits, few enough to leave room for others.
const ROOMS_AT_ONCE: usize = 16;

/// The part of a profile that rooms see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) displayname: Option<String>,
    pub(super) avatar_url: Option<String>,
}

/// The profiles of some users.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    known: HashMap<OwnedUserId, Profile>,
    nothing: Profile,
}

impl Profiles {
    pub(super) fn of(&self, user_id: &UserId) -> &Profile {
        self.known.get(user_id).unwrap_or(&self.nothing)
    }
}

impl Rooms {
    /// The profiles of users. Of those of other servers nothing is known.
    pub(super) async fn profiles(&self, users: &[&UserId]) -> Result<Profiles> {
        Ok(list(&mut self.0.db.read().await?, users).await?)
    }

    pub(super) async fn profile(&self, user_id: &UserId) -> Result<Profile> {
        Ok(self.profiles(&[user_id]).await?.known.remove(user_id).unwrap_or_default())
    }

    /// Tells every room that a user is in of their new name or picture.
    ///
    /// A room that refuses to hear it, for instance because the user has just left, keeps the old one. Where
    /// something breaks, the other rooms are told all the same.
    pub async fn update_profile(&self, user_id: &UserId) -> Result<()> {
        let profile = self.profile(user_id).await?;
        let memberships = store::membership::list_of_user(&mut self.0.db.read().await?, user_id).await?;
        let joined = memberships.into_iter().filter(|row| row.membership == MembershipState::Join);
        let told = stream::iter(joined)
            .map(|row| {
                let profile = &profile;
                async move { self.tell_profile(&row.room_id, user_id, profile).await }
            })
            .buffer_unordered(ROOMS_AT_ONCE);
        told.fold(Ok(()), |so_far, told| async { so_far.and(told) }).await
    }

    /// Tells one room, if the user is in it and it does not know yet.
    pub(super) async fn tell_profile(&self, room_id: &RoomId, user_id: &UserId, profile: &Profile) -> Result<()> {
        let told = self.append(room_id, |head| {
            let Some(current) = head.state.member(user_id) else { return Ok(Plan::nothing()) };
            if head.state.membership(user_id) != MembershipState::Join {
                return Ok(Plan::nothing());
            }
            let named: Named = current.content_as().unwrap_or_default();
            let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
            let known = Profile { displayname: text(&named.displayname), avatar_url: text(&named.avatar_url) };
            if known == *profile {
                return Ok(Plan::nothing());
            }
            let content = member_content(&MembershipState::Join, profile, None);
            Ok(Plan::of(Draft::state(user_id.to_owned(), TimelineEventType::RoomMember, user_id.as_str(), content)))
        });
        match told.await {
            Ok(_) => Ok(()),
            Err(Error::Refused { message, .. }) => {
                tracing::debug!(%room_id, reason = message, "a room does not take a new profile");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%room_id, %error, "a room was not told of a new profile");
                Err(error)
            }
        }
    }
}

/// What a membership event says of its user, which need not be text.
#[derive(Default, serde::Deserialize)]
struct Named {
    #[serde(default)]
    displayname: serde_json::Value,
    #[serde(default)]
    avatar_url: serde_json::Value,
}

async fn list(conn: &mut Conn, users: &[&UserId]) -> DbResult<Profiles> {
    let mut known: HashMap<OwnedUserId, Profile> = HashMap::new();
    for (user_id, field, value) in store::profile::list_faces(conn, users).await? {
        let profile = known.entry(user_id).or_default();
        let value = value.as_str().map(ToOwned::to_owned);
        match field.as_str() {
            "displayname" => profile.displayname = value,
            _ => profile.avatar_url = value,
        }
    }
    Ok(Profiles { known, nothing: Profile::default() })
}
