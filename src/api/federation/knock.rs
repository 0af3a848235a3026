//! Users of other servers knock on rooms.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms>

use ruma::api::federation::membership::{
    RawStrippedState, create_knock_event::v1 as create_knock_event, prepare_knock_event::v1 as prepare_knock_event,
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    federation::handshakes::SentEvent,
    room::Asking,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(make_knock).endpoint(send_knock)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid>
async fn make_knock(app: App, call: Call<prepare_knock_event::Request>) -> ApiResult<prepare_knock_event::Response> {
    let Call { request, caller, .. } = call;
    let asking = Asking { room_id: &request.room_id, user_id: &request.user_id, from: &caller.name };
    let template = app.rooms.knock_template(asking, &request.ver).await?;
    Ok(prepare_knock_event::Response::new(template.version, template.event))
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid>
///
/// The room's state comes as whole events, the create event among them.
async fn send_knock(app: App, call: Call<create_knock_event::Request>) -> ApiResult<create_knock_event::Response> {
    let Call { request, caller, .. } = call;
    let sent = SentEvent { room_id: request.room_id, event_id: request.event_id, json: request.pdu };
    let shown = app.handshakes.knock(&caller.name, &sent).await?;
    let shown = shown.iter().map(|pdu| RawStrippedState::Pdu(pdu.json().to_owned())).collect();
    Ok(create_knock_event::Response::new(shown))
}
