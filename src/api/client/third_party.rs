//! Third-party networks, of which there are none without application services.
//!
//! Lists are empty rather than missing: a server without networks is not one that lacks the endpoints.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-networks>

use std::collections::BTreeMap;

use ruma::api::client::thirdparty::{
    get_location_for_protocol, get_location_for_room_alias, get_protocol, get_protocols, get_user_for_protocol,
    get_user_for_user_id,
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint(protocols)
        .endpoint(protocol)
        .endpoint(location)
        .endpoint(location_of_alias)
        .endpoint(user)
        .endpoint(user_of_user_id)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols>
async fn protocols(_: App, _: Call<get_protocols::v3::Request>) -> ApiResult<get_protocols::v3::Response> {
    Ok(get_protocols::v3::Response::new(BTreeMap::new()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol>
async fn protocol(_: App, call: Call<get_protocol::v3::Request>) -> ApiResult<get_protocol::v3::Response> {
    Err(no_such_protocol(&call.request.protocol).into())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocationprotocol>
async fn location(
    _: App,
    call: Call<get_location_for_protocol::v3::Request>,
) -> ApiResult<get_location_for_protocol::v3::Response> {
    Err(no_such_protocol(&call.request.protocol).into())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation>
async fn location_of_alias(
    _: App,
    _: Call<get_location_for_room_alias::v3::Request>,
) -> ApiResult<get_location_for_room_alias::v3::Response> {
    Ok(get_location_for_room_alias::v3::Response::new(Vec::new()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol>
async fn user(
    _: App,
    call: Call<get_user_for_protocol::v3::Request>,
) -> ApiResult<get_user_for_protocol::v3::Response> {
    Err(no_such_protocol(&call.request.protocol).into())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser>
async fn user_of_user_id(
    _: App,
    _: Call<get_user_for_user_id::v3::Request>,
) -> ApiResult<get_user_for_user_id::v3::Response> {
    Ok(get_user_for_user_id::v3::Response::new(Vec::new()))
}

fn no_such_protocol(protocol: &str) -> Error {
    Error::not_found(format!("This server is connected to no network that is called {protocol}"))
}
