//! Who is in a room, and in which rooms the caller is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use std::collections::BTreeMap;

use axum::Router;
use ruma::{
    OwnedUserId,
    api::client::membership::{
        get_member_events::v3 as members, joined_members::v3 as joined_members, joined_rooms::v3 as joined_rooms,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::token::place;
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        in_room::InRoom,
        json::{Json, Written},
        route::Routes as _,
    },
    app::App,
    event::{ClientFormat, Pdu, client_event},
    room::members::MemberFilter,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<InRoom<members::Request>, _, _>(members)
        .endpoint::<Written<joined_members::Request>, _, _>(joined_members)
        .endpoint(joined_rooms)
}

async fn members(app: App, call: Call<InRoom<members::Request>>) -> ApiResult<members::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let request = request.read()?;
    let at = place(&app, request.at.as_deref()).await?;
    let filter = MemberFilter { membership: request.membership, not_membership: request.not_membership };
    let members = app.rooms.list_members(&reading, at, &filter).await?;
    let format = ClientFormat { with_room_id: true, now: Some(app.clock.now()), ..ClientFormat::default() };
    Ok(members::Response::new(members.iter().map(|member| client_event(member, &format)).collect()))
}

async fn joined_members(app: App, call: Call<Written<joined_members::Request>>) -> ApiResult<Json> {
    let Call { request: Written(request), caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let members = app.rooms.list_joined_members(&reading).await?;
    let joined: BTreeMap<OwnedUserId, Profile> = members.iter().filter_map(|member| profile(member)).collect();
    Ok(Json::from(json!({ "joined": joined })))
}

/// Who has no name or no picture has `null` there, as other servers write it: clients look for the keys.
#[derive(Serialize)]
struct Profile {
    display_name: Value,
    avatar_url: Value,
}

/// A member with the profile that their membership event carries. What is not a name or an address there is none.
fn profile(member: &Pdu) -> Option<(OwnedUserId, Profile)> {
    #[derive(Default, Deserialize)]
    struct Content {
        #[serde(default)]
        displayname: Value,
        #[serde(default)]
        avatar_url: Value,
    }
    let user_id = OwnedUserId::try_from(member.state_key()?).ok()?;
    let content: Content = member.content_as().unwrap_or_default();
    let text = |value: Value| if value.is_string() { value } else { Value::Null };
    Some((user_id, Profile { display_name: text(content.displayname), avatar_url: text(content.avatar_url) }))
}

async fn joined_rooms(app: App, call: Call<joined_rooms::Request>) -> ApiResult<joined_rooms::Response> {
    Ok(joined_rooms::Response::new(app.rooms.list_joined_rooms(&call.caller.user_id).await?))
}
