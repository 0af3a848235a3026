//! Users of other servers come into rooms.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

mod answer;

use ruma::api::federation::{
    authentication::ServerSignatures,
    membership::{create_join_event::v2 as create_join_event, prepare_join_event::v1 as prepare_join_event},
};

use self::answer::Envelope;
use super::sent::read_sent;
use crate::{
    api::{
        endpoint::RawAnswer,
        error::ApiResult,
        extract::Call,
        json::Json,
        own::{Download, own_request},
        route::Endpoints,
    },
    app::App,
    federation::handshakes::SentEvent,
    room::Asking,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(make_join).endpoint(send_join).endpoint(send_join_v1)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>
async fn make_join(app: App, call: Call<prepare_join_event::Request>) -> ApiResult<prepare_join_event::Response> {
    let Call { request, caller, .. } = call;
    let asking = Asking { room_id: &request.room_id, user_id: &request.user_id, from: &caller.name };
    let template = app.rooms.join_template(asking, &request.ver).await?;
    let mut response = prepare_join_event::Response::new(template.event);
    response.room_version = Some(template.version);
    Ok(response)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
async fn send_join(app: App, call: Call<Download<create_join_event::Request>>) -> ApiResult<RawAnswer> {
    let Call { request: Download(request), caller, .. } = call;
    let sent = SentEvent { room_id: request.room_id, event_id: request.event_id, json: request.pdu };
    let joined = app.handshakes.join(&caller.name, &sent, request.omit_members).await?;
    Ok(answer::write(joined, &app.server_name, Envelope::Object))
}

own_request!(
    /// A join as it was sent before there was a second version.
    SendJoinV1 { sent: SentEvent }:
        PUT ServerSignatures path "/_matrix/federation/v1/send_join/{room_id}/{event_id}" -> Json,
    |request, path| Ok(Self { sent: read_sent(&request, path)? })
);

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_joinroomideventid>
async fn send_join_v1(app: App, call: Call<Download<SendJoinV1>>) -> ApiResult<RawAnswer> {
    let Call { request: Download(request), caller, .. } = call;
    let joined = app.handshakes.join(&caller.name, &request.sent, false).await?;
    Ok(answer::write(joined, &app.server_name, Envelope::List))
}
