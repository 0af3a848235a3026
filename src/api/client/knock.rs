//! `POST /knock/{roomIdOrAlias}`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#knocking-on-rooms>

use ruma::api::client::knock::knock_room::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(knock)
}

/// Other servers that could help (`via`) can't be asked.
async fn knock(app: App, call: Call<Request>) -> ApiResult<Response> {
    let room_id = app.rooms.resolve(&call.request.room_id_or_alias).await?;
    app.rooms.knock(&room_id, &call.caller.user_id, call.request.reason).await?;
    Ok(Response::new(room_id))
}
