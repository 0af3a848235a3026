//! <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>
//!
//! Tags are account data of the room, so they come with `/sync` and go along when a room is upgraded.

use ruma::api::client::tag::{create_tag::v3 as create_tag, delete_tag::v3 as delete_tag, get_tags::v3 as get_tags};

use super::account_data::check_own;
use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<get_tags::Request, _, _>(list)
        .endpoint::<create_tag::Request, _, _>(create)
        .endpoint::<delete_tag::Request, _, _>(delete)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags>
async fn list(app: App, call: Call<get_tags::Request>) -> ApiResult<get_tags::Response> {
    let get_tags::Request { user_id, room_id, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let tags = app.account_data.tags(&user_id, &room_id).await?;
    Ok(get_tags::Response::new(tags))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag>
async fn create(app: App, call: Call<create_tag::Request>) -> ApiResult<create_tag::Response> {
    let create_tag::Request { user_id, room_id, tag, tag_info, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    app.account_data.set_tag(&user_id, &room_id, &tag, &tag_info).await?;
    Ok(create_tag::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3useruseridroomsroomidtagstag>
async fn delete(app: App, call: Call<delete_tag::Request>) -> ApiResult<delete_tag::Response> {
    let delete_tag::Request { user_id, room_id, tag, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    app.account_data.remove_tag(&user_id, &room_id, &tag).await?;
    Ok(delete_tag::Response::new())
}
