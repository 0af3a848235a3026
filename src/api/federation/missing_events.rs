//! What lies between the events that another server has and those that it has heard of.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>

use ruma::api::federation::event::get_missing_events::v1::{Request, Response};

use super::pdus::json_of;
use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(missing_events)
}

async fn missing_events(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open_to_server(&request.room_id, &caller.name).await?;
    let Request { earliest_events, latest_events, limit, min_depth, .. } = request;
    let (limit, min_depth) = (usize::try_from(limit).unwrap_or(usize::MAX), i64::from(min_depth));
    let pdus = reading.missing_events(&earliest_events, &latest_events, limit, min_depth).await?;
    Ok(Response::new(json_of(&pdus)))
}
