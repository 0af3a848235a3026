//! What only application services may do. There are none yet, so whoever asks is refused before the handler, whose
//! caller is a type without values.
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#client-server-api-extensions>

use ruma::api::client::appservice::{request_ping, set_room_visibility};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<request_ping::v1::Request, _, _>(ping)
        .endpoint::<set_room_visibility::v3::Request, _, _>(set_visibility)
}

/// <https://spec.matrix.org/v1.19/application-service-api/#post_matrixclientv1appserviceappserviceidping>
async fn ping(_: App, call: Call<request_ping::v1::Request>) -> ApiResult<request_ping::v1::Response> {
    match call.caller {}
}

/// <https://spec.matrix.org/v1.19/application-service-api/#put_matrixclientv3directorylistappservicenetworkidroomid>
async fn set_visibility(
    _: App,
    call: Call<set_room_visibility::v3::Request>,
) -> ApiResult<set_room_visibility::v3::Response> {
    match call.caller {}
}
