//! `POST /knock/{roomIdOrAlias}`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#knocking-on-rooms>

use ruma::api::client::knock::knock_room::v3::{Request, Response};

use super::join::resolve;
use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(knock)
}

async fn knock(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Request { room_id_or_alias, reason, via, .. } = call.request;
    let (room_id, via) = resolve(&app, &room_id_or_alias, via).await?;
    app.entrance.knock(&room_id, &call.caller.user_id, &via, reason).await?;
    Ok(Response::new(room_id))
}
