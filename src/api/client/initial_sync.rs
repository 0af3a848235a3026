//! What clients asked for first before there was `/sync`, and what they begin the preview of a room with still.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync> and
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync>

use axum::Router;
use ruma::{
    UInt,
    api::{
        IncomingRequest, auth_scheme::AccessToken, client::peeking::get_current_state::v3 as get_current_state,
        error::DeserializationError, metadata,
    },
    presence::PresenceState,
};
use serde::Deserialize;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{Json, Written},
        own::read_query,
        route::Routes as _,
    },
    app::App,
    error::Error,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<InitialSync, _, _>(all).endpoint::<Written<get_current_state::Request>, _, _>(one)
}

async fn all(app: App, call: Call<InitialSync>) -> ApiResult<Json> {
    let Call { request, caller, .. } = call;
    let _connected = app.presence.seen(&caller.user_id, &caller.device_id, &PresenceState::Online);
    let initial = app.syncs.initial(&caller.user_id, &caller.device_id, request.limit, request.archived);
    Ok(Json::of(&Box::pin(initial).await?).map_err(Error::broken)?)
}

async fn one(app: App, call: Call<Written<get_current_state::Request>>) -> ApiResult<Json> {
    let Call { request: Written(request), caller, .. } = call;
    let room = app.syncs.initial_of_room(&caller.user_id, &caller.device_id, &request.room_id);
    Ok(Json::of(&Box::pin(room).await?).map_err(Error::broken)?)
}

/// The request that ruma does not have.
#[derive(Deserialize)]
struct InitialSync {
    /// How many messages of each room.
    limit: Option<UInt>,
    /// Whether rooms that were left are told too.
    #[serde(default)]
    archived: bool,
}

metadata! {
    @for InitialSync,
    method: GET,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        1.0 => "/_matrix/client/r0/initialSync",
        1.1 => "/_matrix/client/v3/initialSync",
    }
}

impl IncomingRequest for InitialSync {
    type EndpointError = <get_current_state::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        read_query(&request)
    }
}
