//! What was said in a room before some events.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>

use ruma::api::federation::backfill::get_backfill::v1::{Request, Response};

use super::pdus::json_of;
use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(backfill)
}

async fn backfill(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open_to_server(&request.room_id, &caller.name).await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let pdus = reading.backfill(&request.v, limit).await?;
    Ok(Response::new(app.rooms.server_name().to_owned(), app.clock.now(), json_of(&pdus)))
}
