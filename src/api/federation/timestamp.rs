//! The event of a room that is closest to a time.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>

use ruma::api::{
    Direction,
    federation::event::get_event_by_timestamp::v1::{Request, Response},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(timestamp_to_event)
}

async fn timestamp_to_event(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open_to_server(&request.room_id, &caller.name).await?;
    let event = reading.event_by_timestamp(request.ts, request.dir).await?.ok_or_else(|| {
        let side = if request.dir == Direction::Backward { "at or before" } else { "at or after" };
        Error::not_found(format!("This server knows no event of the room that was sent {side} {}", request.ts.get()))
    })?;
    Ok(Response::new(event.pdu.event_id().to_owned(), event.pdu.origin_server_ts()))
}
