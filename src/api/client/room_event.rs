//! One event of a room. One that is missing here is asked of other servers.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid>

use ruma::api::{
    client::room::get_room_event::v3::{Request, Response},
    error::ErrorKind,
};

use super::reaching::Reaching;
use crate::{
    api::{error::ApiResult, extract::Call, in_room::InRoom, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(event)
}

/// `M_NOT_FOUND` alike for what is not there and what the caller may not see, the whole room included.
async fn event(app: App, call: Call<InRoom<Request>>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let room_id = request.room_id.clone();
    let not_found = || Error::not_found("There is no such event in this room, or you can't see it");
    let mut reading = match app.rooms.open(&room_id, caller.user_id()).await {
        Err(Error::Refused { kind: ErrorKind::Forbidden, .. }) => return Err(not_found().into()),
        opened => opened?,
    };
    let request = request.read()?;
    // What is asked for by its identifier is shown even if the caller ignores its sender.
    let mut found = app.rooms.find_event(&mut reading, &request.event_id).await?;
    let mut reaching = Reaching::new(&app, (caller.user_id(), caller.pace()), &room_id);
    while found.is_none() && reaching.fetch_event(&reading.room, &request.event_id).await? {
        reading = app.rooms.open(&room_id, caller.user_id()).await?;
        found = app.rooms.find_event(&mut reading, &request.event_id).await?;
    }
    let event = found.ok_or_else(not_found)?;
    let reading = reading.ignoring(app.account_data.ignored(caller.user_id()).await?);
    let writer = app.rooms.writer(&reading, [&event], caller.device_id(), app.clock.now()).await?;
    Ok(Response::new(writer.write(&event)))
}
