//! The event of a room that is closest to a time.
//!
//! Clients use it to jump to a date. The times are those that senders' servers claim. Where events are missing here that
//! may be closer, other servers are asked, and what they know is fetched.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use ruma::api::{
    Direction,
    client::room::get_event_by_timestamp::v1::{Request, Response},
};

use super::reaching::Reaching;
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
    let room_id = request.room_id.clone();
    let reading = app.rooms.open(&room_id, &caller.user_id).await?;
    let request = request.read()?;
    let at = (request.ts, request.dir);
    let mut found = app.rooms.find_closest(&reading, request.ts, request.dir).await?;
    if app.reach.may_be_closer(&reading.room, at, found.as_ref()).await? {
        let mut reaching = Reaching::new(&app, (&caller.user_id, caller.pace), &room_id);
        let wait = reaching.begin().await?;
        if let Some(event_id) = app.reach.find_closest(wait, &room_id, at).await?
            && reaching.fetch_event(&reading.room, &event_id).await?
        {
            let reading = app.rooms.open(&room_id, &caller.user_id).await?;
            found = app.rooms.find_closest(&reading, request.ts, request.dir).await?;
        }
    }
    let event = found.ok_or_else(|| {
        let side = if request.dir == Direction::Backward { "at or before" } else { "at or after" };
        Error::not_found(format!("You see no event in this room that was sent {side} {}", request.ts.get()))
    })?;
    Ok(Response::new(event.pdu.event_id().to_owned(), event.pdu.origin_server_ts()))
}
