//! Credentials for the TURN server, through which calls go that find no direct way.
//!
//! Credentials are made for each request and kept nowhere; the TURN server checks them by itself.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip>

use ruma::api::client::voip::get_turn_server_info::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(turn_server)
}

async fn turn_server(app: App, call: Call<Request>) -> ApiResult<Response> {
    let turn = app.turn.as_ref().ok_or_else(|| Error::not_found("This server has no TURN server for calls"))?;
    let credentials = turn.credentials(&call.caller.user_id, app.clock.now());
    Ok(Response::new(credentials.username, credentials.password, turn.uris().to_vec(), turn.lifetime()))
}
