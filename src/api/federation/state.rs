//! A room's state before an event.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>

use ruma::api::federation::event::{get_room_state, get_room_state_ids};

use super::pdus::{ids_of, json_of};
use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(state).endpoint(state_ids)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>
async fn state(app: App, call: Call<get_room_state::v1::Request>) -> ApiResult<get_room_state::v1::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open_to_server(&request.room_id, &caller.name).await?;
    let state = reading.state_before(&request.event_id).await?;
    let chain = reading.auth_chain_of(&state).await?;
    Ok(get_room_state::v1::Response::new(json_of(&chain), json_of(&state)))
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid>
async fn state_ids(
    app: App,
    call: Call<get_room_state_ids::v1::Request>,
) -> ApiResult<get_room_state_ids::v1::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open_to_server(&request.room_id, &caller.name).await?;
    let state = reading.state_before(&request.event_id).await?;
    let chain = reading.auth_chain_of(&state).await?;
    Ok(get_room_state_ids::v1::Response::new(ids_of(&chain), ids_of(&state)))
}
