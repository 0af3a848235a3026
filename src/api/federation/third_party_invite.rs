//! Invitations to addresses become invitations to users of other servers, and of this one.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#third-party-invites>

use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId,
    api::{
        IncomingRequest,
        error::DeserializationError,
        federation::thirdparty::{bind_callback::v1 as bind_callback, exchange_invite::v1 as exchange_invite},
    },
};
use serde::Deserialize;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        own::{metadata_of, read_path},
        route::Endpoints,
    },
    app::App,
    error::Error,
    federation::third_party_exchange::{AskedInvite, BoundInvite},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(exchange).endpoint(on_bind)
}

/// As ruma's request, but with the room in the body, which must be that of the path. Not every server sends it.
struct Exchange {
    room_id: OwnedRoomId,
    body: ExchangeBody,
}

#[derive(Deserialize)]
struct ExchangeBody {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: ExchangedContent,
}

#[derive(Deserialize)]
struct ExchangedContent {
    membership: String,
    third_party_invite: ExchangedInvite,
}

/// What the room shows of the address is what its offer says.
#[derive(Deserialize)]
struct ExchangedInvite {
    signed: CanonicalJsonObject,
}

metadata_of!(Exchange: exchange_invite::Request);

impl IncomingRequest for Exchange {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = exchange_invite::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (room_id,) = read_path(path)?;
        Ok(Self { room_id, body: serde_json::from_slice(request.body())? })
    }
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>
///
/// Nothing of the event that comes is signed: it says which invitation is meant.
async fn exchange(app: App, call: Call<Exchange>) -> ApiResult<exchange_invite::Response> {
    let Call { request: Exchange { room_id, body }, caller, .. } = call;
    if body.room_id.as_ref().is_some_and(|of_body| *of_body != room_id) {
        return Err(Error::invalid_param("The event is of another room than the path").into());
    }
    if body.kind != "m.room.member" || body.content.membership != "invite" {
        return Err(Error::invalid_param("The event is no m.room.member that invites").into());
    }
    let ExchangeBody { sender, state_key: user_id, content, .. } = body;
    let asked = AskedInvite { room_id, sender, user_id, signed: content.third_party_invite.signed };
    app.third_party_exchange.exchange(&caller.name, asked).await?;
    Ok(exchange_invite::Response::new())
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind>
///
/// An identity server asks, and does not prove that it is one: what the keys of the room's offer have signed does. It is
/// of use to rooms of this server alone, too.
async fn on_bind(app: App, call: Call<bind_callback::Request>) -> ApiResult<bind_callback::Response> {
    let bind_callback::Request { mxid, invites, .. } = call.request;
    let is_theirs = |invite: &bind_callback::ThirdPartyInvite| invite.mxid == mxid;
    let bound = invites.into_iter().filter(is_theirs).map(|invite| BoundInvite {
        room_id: invite.room_id,
        sender: invite.sender,
        signed: invite.signed,
    });
    app.third_party_exchange.take_bound(&mxid, bound.collect()).await?;
    Ok(bind_callback::Response::new())
}
