//! Credentials for the TURN server, through which calls go that find no direct way.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip>

use axum::Router;
use ruma::api::client::voip::get_turn_server_info::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    error::Error,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(turn_server)
}

async fn turn_server(app: App, call: Call<Request>) -> ApiResult<Response> {
    let turn = app.turn.as_ref().ok_or_else(|| Error::not_found("This server has no TURN server for calls"))?;
    let pass = turn.pass(&call.caller.user_id, app.clock.now());
    Ok(Response::new(pass.username, pass.password, turn.uris().to_vec(), turn.lifetime()))
}
