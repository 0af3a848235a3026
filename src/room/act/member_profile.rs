//! What a membership event says about its user: name and picture, from their profile.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information>
//!
//! The profile itself lies in tables of its own; a room holds a copy for each of its members, which is what other
//! members see. A change is written to the profile first and carried into rooms afterwards, by an errand that can be
//! done again.
//!
//! The copy of somebody who joins is never older than the event that holds it; an invitation or a knock keeps the name
//! that it was made with. The event names what it has copied, and if the profile is
//! another when the event is committed, it is made again ([`CopiedFields`]). So of two changes at once, whoever is last
//! to write a room writes the newer name; and who joins a room while they are renamed either does so before, and the
//! room is among those that are updated, or is called by the new name from the start.

use std::{borrow::Cow, collections::HashMap};

use futures_util::{StreamExt as _, stream};
use ruma::{
    OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    db::{Conn, DbResult},
    error::{Error, Result},
    event::{Content, Draft, Pdu, content, fact::CopiedFields},
    room::{
        Rooms,
        graph::append::{ATTEMPTS, Plan, Proposal},
    },
    store,
};

/// In how many rooms a new profile is written at once: enough to share commits, few enough to hold nobody else up.
const ROOMS_AT_ONCE: usize = 16;

/// The part of a profile that rooms see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberProfile {
    /// Of any length that the event allows; the API limits what users set.
    pub(crate) displayname: Option<String>,
    /// As it was set, usually `mxc://…`.
    pub(crate) avatar_url: Option<String>,
}

impl MemberProfile {
    /// What a membership event says of its user. There may be anything in it: what is no text is no name and no picture,
    /// and does not take the other along.
    pub(crate) fn said_by(member: &Pdu) -> Self {
        member.content_as::<MemberContent>().unwrap_or_default().profile()
    }

    /// All of it, as a membership event copies it.
    pub(super) fn fields(&self) -> CopiedFields {
        vec![("avatar_url", self.avatar_url.clone()), ("displayname", self.displayname.clone())]
    }
}

/// What is read of the content of a membership event. There may be anything in it.
#[derive(Default, Deserialize)]
struct MemberContent {
    #[serde(default)]
    membership: Value,
    #[serde(default)]
    displayname: Value,
    #[serde(default)]
    avatar_url: Value,
}

impl MemberContent {
    fn profile(self) -> MemberProfile {
        let text = |value: Value| if let Value::String(text) = value { Some(text) } else { None };
        MemberProfile { displayname: text(self.displayname), avatar_url: text(self.avatar_url) }
    }
}

/// The profiles of some users. A user who has none has an empty one.
#[derive(Debug, Default)]
pub(super) struct MemberProfiles {
    known: HashMap<OwnedUserId, MemberProfile>,
    nothing: MemberProfile,
}

impl MemberProfiles {
    pub(super) fn of(&self, user_id: &UserId) -> &MemberProfile {
        self.known.get(user_id).unwrap_or(&self.nothing)
    }
}

/// The content of a membership event. Without a reason where there is none; further fields are the caller's to add.
pub(super) fn member_content(membership: &MembershipState, profile: &MemberProfile, reason: Option<String>) -> Content {
    let mut content = content([("membership", membership.as_str().into())]);
    fill_in(&mut content, profile);
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), reason.into());
    }
    content
}

/// Adds what the profile says, where the content does not say otherwise. Returns what it has in common with the profile
/// by that.
pub(super) fn fill_in(content: &mut Content, profile: &MemberProfile) -> CopiedFields {
    let copied: CopiedFields =
        profile.fields().into_iter().filter(|(field, _)| !content.contains_key(*field)).collect();
    for (field, value) in &copied {
        if let Some(value) = value {
            content.insert((*field).to_owned(), value.as_str().into());
        }
    }
    copied
}

impl Rooms {
    /// The profiles of users. Of those of other servers nothing is known.
    pub(super) async fn profiles(&self, users: &[&UserId]) -> Result<MemberProfiles> {
        Ok(list(&mut self.0.db.read().await?, users).await?)
    }

    /// An empty one where the user has none.
    pub(super) async fn profile(&self, user_id: &UserId) -> Result<MemberProfile> {
        Ok(self.profiles(&[user_id]).await?.known.remove(user_id).unwrap_or_default())
    }

    /// Writes a new name or picture of a user into every room that they are in.
    ///
    /// A room that refuses to hear it, for instance because the user has just left, keeps the old one. Where something
    /// breaks, the other rooms get it all the same.
    ///
    /// Returns the first error, so that whoever keeps the errand tries again; rooms that say it already are then left
    /// alone.
    pub async fn update_profile(&self, user_id: &UserId) -> Result<()> {
        let profile = self.profile(user_id).await?;
        let joined = store::membership::list_joined_events(&mut self.0.db.read().await?, user_id).await?;
        // Those that say it already are not even read: a second try costs what is left to do.
        let joined = joined.into_iter().filter(|(_, json)| !says_already(json.as_deref(), user_id, &profile));
        let updated = stream::iter(joined)
            .map(|(room_id, _)| {
                let profile = &profile;
                async move { self.update_profile_in_room(&room_id, user_id, profile).await }
            })
            .buffer_unordered(ROOMS_AT_ONCE);
        updated.fold(Ok(()), |so_far, updated| async { so_far.and(updated) }).await
    }

    /// Writes it into one room, if the user is in it and it does not say so yet; and if the profile has changed since it
    /// was read, what it says now. A refusal is no error: trying again would not help.
    pub(super) async fn update_profile_in_room(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        profile: &MemberProfile,
    ) -> Result<()> {
        let mut profile = Cow::Borrowed(profile);
        for _ in 0..ATTEMPTS {
            match self.try_to_update(room_id, user_id, &profile).await {
                Ok(()) => return Ok(()),
                Err(Error::Conflict) => profile = Cow::Owned(self.profile(user_id).await?),
                Err(Error::Refused { message, .. }) => {
                    tracing::debug!(%room_id, reason = message, "a room does not take a new profile");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%room_id, %error, "a room was not told of a new profile");
                    return Err(error);
                }
            }
        }
        Err(Error::Unavailable(format!("the profile of {user_id} changes faster than rooms can be told")))
    }

    /// One try, with the profile as it was read. `Error::Conflict` where it is another by the time it is written.
    async fn try_to_update(&self, room_id: &RoomId, user_id: &UserId, profile: &MemberProfile) -> Result<()> {
        let updated = self.append(room_id, |head| {
            let Some(current) = head.state.member(user_id) else { return Ok(Plan::nothing()) };
            if head.state.membership(user_id) != MembershipState::Join {
                return Ok(Plan::nothing());
            }
            // Also a second try of the errand ends here.
            if MemberProfile::said_by(current) == *profile {
                return Ok(Plan::nothing());
            }
            let content = member_content(&MembershipState::Join, profile, None);
            let draft = Draft::state(user_id.to_owned(), TimelineEventType::RoomMember, user_id.as_str(), content);
            Ok(Plan::of(Proposal { copied: profile.fields(), ..draft.into() }))
        });
        updated.await.map(drop)
    }
}

/// Whether the event that made somebody what they are in a room calls them what their profile does. False where it can't
/// be read, or is not their membership event: then the room is asked.
fn says_already(json: Option<&str>, user_id: &UserId, profile: &MemberProfile) -> bool {
    #[derive(Deserialize)]
    struct MemberEvent {
        #[serde(rename = "type")]
        kind: String,
        state_key: Option<String>,
        content: MemberContent,
    }
    let event: Option<MemberEvent> = json.and_then(|json| serde_json::from_str(json).ok());
    event.is_some_and(|event| {
        event.kind == "m.room.member"
            && event.state_key.as_deref() == Some(user_id.as_str())
            && event.content.membership.as_str() == Some(MembershipState::Join.as_str())
            && event.content.profile() == *profile
    })
}

async fn list(conn: &mut Conn, users: &[&UserId]) -> DbResult<MemberProfiles> {
    let mut known: HashMap<OwnedUserId, MemberProfile> = HashMap::new();
    for (user_id, field, value) in store::profile::list_faces(conn, users).await? {
        let profile = known.entry(user_id).or_default();
        let value = value.as_str().map(ToOwned::to_owned);
        match field.as_str() {
            "displayname" => profile.displayname = value,
            _ => profile.avatar_url = value,
        }
    }
    Ok(MemberProfiles { known, nothing: MemberProfile::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::room::testing::pdu_of;

    #[test]
    fn a_name_that_is_no_text_does_not_take_the_picture_along() {
        let said = |content: Value| MemberProfile::said_by(&pdu_of(&json!({ "content": content })));
        let profile = |name: Option<&str>, picture: Option<&str>| MemberProfile {
            displayname: name.map(ToOwned::to_owned),
            avatar_url: picture.map(ToOwned::to_owned),
        };
        assert_eq!(said(json!({})), profile(None, None));
        assert_eq!(said(json!({ "displayname": "A", "avatar_url": 1 })), profile(Some("A"), None));
        assert_eq!(said(json!({ "displayname": null, "avatar_url": "mxc://a/b" })), profile(None, Some("mxc://a/b")));
    }
}
