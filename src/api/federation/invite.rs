//! Users of other servers invite users of this one.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use ruma::{
    RoomVersionId,
    api::{
        IncomingRequest,
        error::DeserializationError,
        federation::membership::create_invite::{v1 as create_invite_v1, v2 as create_invite},
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::Json,
        own::{metadata_of, read_path},
        route::Endpoints,
    },
    app::App,
    federation::handshakes::{SentEvent, SentInvite, unspoken},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(invite).endpoint(invite_v1)
}

/// As ruma's request, but `invite_room_state` may be absent, as the specification has it, and what is in it is looked at
/// by the rules of the room's version.
struct Invite(SentInvite);

#[derive(Deserialize)]
struct InviteBody {
    room_version: RoomVersionId,
    event: Box<RawValue>,
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

metadata_of!(Invite: create_invite::Request);

impl IncomingRequest for Invite {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = create_invite::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (room_id, event_id) = read_path(path)?;
        let body: InviteBody = serde_json::from_slice(request.body())?;
        let event = SentEvent { room_id, event_id, json: body.event };
        Ok(Self(SentInvite { version: body.room_version, event, room_state: body.invite_room_state }))
    }
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>
async fn invite(app: App, call: Call<Invite>) -> ApiResult<create_invite::Response> {
    let Call { request: Invite(sent), caller, .. } = call;
    let signed = app.handshakes.invite(&caller.name, sent).await?;
    Ok(create_invite::Response::new(signed.json().to_owned()))
}

/// It does not say which version the room has: one of those that had this request alone.
struct InviteV1;

metadata_of!(InviteV1: create_invite_v1::Request);

impl IncomingRequest for InviteV1 {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self)
    }
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1inviteroomideventid>
///
/// Who gets such an invitation must take the room to be of version 1 or 2, neither of which this server speaks.
async fn invite_v1(_: App, _: Call<InviteV1>) -> ApiResult<Json> {
    Err(unspoken(&RoomVersionId::V1).into())
}
