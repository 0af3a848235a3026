//! Who is in a room, and in which rooms the caller is.
//!
//! Members come as they are to the caller: whoever has left sees those who were there when they left.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-membership>

use std::collections::BTreeMap;

use ruma::{
    OwnedUserId,
    api::client::membership::{
        get_member_events::v3 as members, joined_members::v3 as joined_members, joined_rooms::v3 as joined_rooms,
    },
};
use serde::Serialize;
use serde_json::json;

use super::token::place;
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        in_room::InRoom,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    event::{ClientFormat, Pdu, client_event},
    room::{act::member_profile::MemberProfile, read::members::MemberFilter},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<InRoom<members::Request>, _, _>(members)
        .endpoint::<AsJson<joined_members::Request>, _, _>(joined_members)
        .endpoint(joined_rooms)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>
///
/// `at` is a token of a timeline; a moment that the caller can't see is replaced by the nearest that they can.
async fn members(app: App, call: Call<InRoom<members::Request>>) -> ApiResult<members::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, caller.user_id()).await?;
    let request = request.read()?;
    let at = place(&app, request.at.as_deref()).await?;
    let filter = MemberFilter { membership: request.membership, not_membership: request.not_membership };
    let members = app.rooms.list_members(&reading, at, &filter).await?;
    let format = ClientFormat { with_room_id: true, now: Some(app.clock.now()), ..ClientFormat::default() };
    Ok(members::Response::new(members.iter().map(|member| client_event(member, &format)).collect()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members>
///
/// Only for who has joined: `M_FORBIDDEN` for former members too.
async fn joined_members(app: App, call: Call<AsJson<joined_members::Request>>) -> ApiResult<Json> {
    let Call { request: AsJson(request), caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let members = app.rooms.list_joined_members(&reading).await?;
    let joined: BTreeMap<OwnedUserId, JoinedMember> = members.iter().filter_map(|member| joined(member)).collect();
    Ok(Json::from(json!({ "joined": joined })))
}

/// Who has no name or no picture has `null` there, as other servers write it: clients look for the keys.
#[derive(Serialize)]
struct JoinedMember {
    display_name: Option<String>,
    avatar_url: Option<String>,
}

/// A member with the profile that their membership event carries.
fn joined(member: &Pdu) -> Option<(OwnedUserId, JoinedMember)> {
    let user_id = OwnedUserId::try_from(member.state_key()?).ok()?;
    let MemberProfile { displayname, avatar_url } = MemberProfile::said_by(member);
    Some((user_id, JoinedMember { display_name: displayname, avatar_url }))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms>
async fn joined_rooms(app: App, call: Call<joined_rooms::Request>) -> ApiResult<joined_rooms::Response> {
    Ok(joined_rooms::Response::new(app.rooms.list_joined_rooms(&call.caller.user_id).await?))
}
