//! The public directory of this server.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#published-room-directory>

use ruma::{
    UInt,
    api::federation::directory::{get_public_rooms, get_public_rooms_filtered},
};

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::Error,
    reader::directory::PublicRoomsQuery,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<get_public_rooms::v1::Request>, _, _>(all)
        .endpoint::<AsJson<get_public_rooms_filtered::v1::Request>, _, _>(filtered)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms>
async fn all(app: App, call: Call<AsJson<get_public_rooms::v1::Request>>) -> ApiResult<Json> {
    let get_public_rooms::v1::Request { limit, since, room_network, .. } = call.request.0;
    let query = PublicRoomsQuery {
        limit: limited(limit),
        since: since.as_deref(),
        network: room_network,
        server: Some(&call.caller.name),
        ..PublicRoomsQuery::default()
    };
    Ok(Json::of(&app.directory.public_rooms(&query).await?).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms>
async fn filtered(app: App, call: Call<AsJson<get_public_rooms_filtered::v1::Request>>) -> ApiResult<Json> {
    let get_public_rooms_filtered::v1::Request { limit, since, filter, room_network, .. } = call.request.0;
    let query = PublicRoomsQuery {
        limit: limited(limit),
        since: since.as_deref(),
        filter,
        network: room_network,
        server: Some(&call.caller.name),
    };
    Ok(Json::of(&app.directory.public_rooms(&query).await?).map_err(Error::broken)?)
}

/// Between servers 0 says that there is no limit but the server's own.
fn limited(limit: Option<UInt>) -> Option<UInt> {
    limit.filter(|limit| *limit > UInt::MIN)
}
