//! What other servers ask about this one's users and aliases.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#querying-for-information>

use ruma::api::federation::query::{get_profile_information, get_room_information};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(room_of_alias).endpoint(profile)
}

/// `M_NOT_FOUND` also for aliases of other servers.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>
async fn room_of_alias(
    app: App,
    call: Call<get_room_information::v1::Request>,
) -> ApiResult<get_room_information::v1::Response> {
    let room_id = app.rooms.get_by_alias(&call.request.room_alias).await?;
    let servers = app.rooms.list_servers(&room_id).await?;
    Ok(get_room_information::v1::Response::new(room_id, servers))
}

/// All of a profile or one field, which is missing from the answer where the user has not set it. `M_NOT_FOUND` also for
/// users of other servers.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>
async fn profile(
    app: App,
    call: Call<get_profile_information::v1::Request>,
) -> ApiResult<get_profile_information::v1::Response> {
    let get_profile_information::v1::Request { user_id, field, .. } = call.request;
    let Some(field) = field else { return Ok(app.profiles.get(&user_id).await?.into_iter().collect()) };
    let value = app.profiles.find_field(&user_id, field.as_str()).await?;
    Ok(value.map(|value| (field.to_string(), value)).into_iter().collect())
}
