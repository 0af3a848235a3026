//! Who is in a room, and in which rooms the caller is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use axum::Router;
use ruma::{
    OwnedMxcUri, OwnedUserId,
    api::client::membership::{
        get_member_events::v3 as members,
        joined_members::v3::{self as joined_members, RoomMember},
        joined_rooms::v3 as joined_rooms,
    },
};
use serde::Deserialize;

use super::token::place;
use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    event::{ClientFormat, Pdu, client_event},
    room::members::MemberFilter,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(members).endpoint(joined_members).endpoint(joined_rooms)
}

async fn members(app: App, call: Call<members::Request>) -> ApiResult<members::Response> {
    let Call { request, caller, .. } = call;
    let at = place(&app, request.at.as_deref()).await?;
    let filter = MemberFilter { membership: request.membership, not_membership: request.not_membership };
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let members = app.rooms.list_members(&reading, at, &filter).await?;
    let format = ClientFormat { with_room_id: true, now: Some(app.clock.now()), ..ClientFormat::default() };
    Ok(members::Response::new(members.iter().map(|member| client_event(member, &format)).collect()))
}

async fn joined_members(app: App, call: Call<joined_members::Request>) -> ApiResult<joined_members::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let members = app.rooms.list_joined_members(&reading).await?;
    Ok(joined_members::Response::new(members.iter().filter_map(|member| profile(member)).collect()))
}

/// A member with the profile that their membership event carries. What is not a name or an address there is left out.
fn profile(member: &Pdu) -> Option<(OwnedUserId, RoomMember)> {
    #[derive(Default, Deserialize)]
    struct Content {
        #[serde(default)]
        displayname: serde_json::Value,
        #[serde(default)]
        avatar_url: serde_json::Value,
    }
    let user_id = OwnedUserId::try_from(member.state_key()?).ok()?;
    let content: Content = member.content_as().unwrap_or_default();
    let mut profile = RoomMember::new();
    profile.display_name = content.displayname.as_str().map(ToOwned::to_owned);
    profile.avatar_url = content.avatar_url.as_str().map(OwnedMxcUri::from);
    Some((user_id, profile))
}

async fn joined_rooms(app: App, call: Call<joined_rooms::Request>) -> ApiResult<joined_rooms::Response> {
    Ok(joined_rooms::Response::new(app.rooms.list_joined_rooms(&call.caller.user_id).await?))
}
