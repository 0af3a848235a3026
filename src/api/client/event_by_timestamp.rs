//! The event of a room that is closest to a time.
//!
//! Clients use it to jump to a date. The times are those that senders' servers claim.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use ruma::api::{
    Direction,
    client::room::get_event_by_timestamp::v1::{Request, Response},
};

use crate::{
    api::{error::ApiResult, extract::Call, in_room::InRoom, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<InRoom<Request>, _, _>(event_by_timestamp)
}

async fn event_by_timestamp(app: App, call: Call<InRoom<Request>>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let request = request.read()?;
    let event = app.rooms.find_closest(&reading, request.ts, request.dir).await?.ok_or_else(|| {
        let side = if request.dir == Direction::Backward { "at or before" } else { "at or after" };
        Error::not_found(format!("You see no event in this room that was sent {side} {}", request.ts.get()))
    })?;
    Ok(Response::new(event.pdu.event_id().to_owned(), event.pdu.origin_server_ts()))
}
