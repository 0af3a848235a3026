//! Pushers: where a user's notifications are sent. As long as none can be set, nobody has any.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>

use ruma::api::client::push::get_pushers::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(list)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers>
async fn list(_: App, _: Call<Request>) -> ApiResult<Response> {
    Ok(Response::new(Vec::new()))
}
