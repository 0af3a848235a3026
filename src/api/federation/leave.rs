//! Users of other servers leave rooms, turn down invitations and take back knocks.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>

use ruma::api::federation::{
    authentication::ServerSignatures,
    membership::{create_leave_event::v2 as create_leave_event, prepare_leave_event::v1 as prepare_leave_event},
};
use serde_json::json;

use super::sent::read_sent;
use crate::{
    api::{error::ApiResult, extract::Call, json::Json, own::own_request, route::Endpoints},
    app::App,
    federation::handshakes::SentEvent,
    room::Asking,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(make_leave).endpoint(send_leave).endpoint(send_leave_v1)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid>
async fn make_leave(app: App, call: Call<prepare_leave_event::Request>) -> ApiResult<prepare_leave_event::Response> {
    let Call { request, caller, .. } = call;
    let asking = Asking { room_id: &request.room_id, user_id: &request.user_id, from: &caller.name };
    let template = app.rooms.leave_template(asking).await?;
    Ok(prepare_leave_event::Response::new(Some(template.version), template.event))
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid>
async fn send_leave(app: App, call: Call<create_leave_event::Request>) -> ApiResult<create_leave_event::Response> {
    let Call { request, caller, .. } = call;
    let sent = SentEvent { room_id: request.room_id, event_id: request.event_id, json: request.pdu };
    app.handshakes.leave(&caller.name, &sent).await?;
    Ok(create_leave_event::Response::new())
}

own_request!(
    /// A leave as it was sent before there was a second version.
    SendLeaveV1 { sent: SentEvent }:
        PUT ServerSignatures path "/_matrix/federation/v1/send_leave/{room_id}/{event_id}" -> Json,
    |request, path| Ok(Self { sent: read_sent(&request, path)? })
);

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_leaveroomideventid>
async fn send_leave_v1(app: App, call: Call<SendLeaveV1>) -> ApiResult<Json> {
    app.handshakes.leave(&call.caller.name, &call.request.sent).await?;
    // It has a status where other answers have nothing.
    Ok(Json::from(json!([200, {}])))
}
