//! A room's state, whole or by key: as it is, or as it was when the caller left.
//!
//! State is read from memory; for whoever has left, it is undone from there or read as it was at that position.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate>

use ruma::api::client::state::{get_state_event_for_key::v3 as one, get_state_events::v3 as all};

use crate::{
    api::{error::ApiResult, extract::Call, in_room::InRoom, route::Endpoints},
    app::App,
    error::Error,
    event::{ClientFormat, client_event},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(state).endpoint::<InRoom<one::Request>, _, _>(state_for_key)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate>
async fn state(app: App, call: Call<all::Request>) -> ApiResult<all::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, caller.user_id()).await?;
    let state = app.rooms.readable_state(&reading).await?;
    let format = ClientFormat { with_room_id: true, now: Some(app.clock.now()), ..ClientFormat::default() };
    Ok(all::Response::new(state.iter().map(|event| client_event(&event, &format)).collect()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey>
async fn state_for_key(app: App, call: Call<InRoom<one::Request>>) -> ApiResult<one::Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, caller.user_id()).await?;
    let request = request.read()?;
    let (kind, state_key) = (request.event_type.to_string(), &request.state_key);
    let found = app.rooms.readable_state_event(&reading, &kind, state_key).await?;
    let event = found.ok_or_else(|| {
        Error::not_found(format!("The room has no state of type {kind} with the state key {state_key:?}"))
    })?;
    let format = ClientFormat { with_room_id: true, now: Some(app.clock.now()), ..ClientFormat::default() };
    match request.format {
        one::StateEventFormat::Event => Ok(one::Response::new(client_event::<()>(&event, &format).into_json())),
        one::StateEventFormat::Content => Ok(one::Response::new(event.content().to_owned())),
        other => Err(Error::invalid_param(format!("There is no format {other}: there are content and event")).into()),
    }
}
