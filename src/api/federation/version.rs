//! What this server is.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#server-implementation>

use ruma::api::federation::discovery::get_server_version::v1::{Request, Response, Server};

use crate::{
    api::{auth::check_federates, error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(version)
}

async fn version(app: App, _: Call<Request>) -> ApiResult<Response> {
    check_federates(&app)?;
    let mut server = Server::new();
    server.name = Some("Hearth".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = Response::new();
    response.server = Some(server);
    Ok(response)
}
