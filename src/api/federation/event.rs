//! One event, and what it cites for being allowed.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events> and
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieve-event-authorization>

use ruma::api::federation::{authorization::get_event_authorization, event::get_event};

use super::pdus::json_of;
use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(event).endpoint(event_auth)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>
async fn event(app: App, call: Call<get_event::v1::Request>) -> ApiResult<get_event::v1::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open_event_to_server(&request.event_id, &caller.name).await?;
    let pdu = reading.event(&request.event_id).await?;
    Ok(get_event::v1::Response::new(app.rooms.server_name().to_owned(), app.clock.now(), pdu.json().to_owned()))
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>
async fn event_auth(
    app: App,
    call: Call<get_event_authorization::v1::Request>,
) -> ApiResult<get_event_authorization::v1::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open_to_server(&request.room_id, &caller.name).await?;
    let chain = reading.auth_chain(&[request.event_id]).await?;
    Ok(get_event_authorization::v1::Response::new(json_of(&chain)))
}
