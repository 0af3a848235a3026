//! The public room directory, of this server or of another.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use ruma::{
    ServerName,
    api::client::directory::{get_public_rooms, get_public_rooms_filtered},
};

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        own::given,
        route::Endpoints,
    },
    app::App,
    error::Error,
    federation::reach::RoomsWanted,
    reader::directory::PublicRoomsQuery,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<get_public_rooms::v3::Request>, _, _>(all)
        .endpoint::<AsJson<get_public_rooms_filtered::v3::Request>, _, _>(filtered)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>
async fn all(app: App, call: Call<AsJson<get_public_rooms::v3::Request>>) -> ApiResult<Json> {
    // Anybody may ask, so no access token has made this node look at the end of the log.
    app.catch_up().await?;
    let get_public_rooms::v3::Request { limit, since, server, .. } = call.request.0;
    let query = PublicRoomsQuery { limit, since: since.as_deref(), ..PublicRoomsQuery::default() };
    find(&app, server.as_deref(), query).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms>
async fn filtered(app: App, call: Call<AsJson<get_public_rooms_filtered::v3::Request>>) -> ApiResult<Json> {
    let get_public_rooms_filtered::v3::Request { server, limit, since, filter, room_network, .. } = call.request.0;
    let since = since.as_deref();
    let query = PublicRoomsQuery { limit, since, filter, network: room_network, server: None };
    find(&app, server.as_deref(), query).await
}

/// `M_INVALID_PARAM` for a token of somewhere else, unless another server is asked: its tokens are its own.
async fn find(app: &App, server: Option<&ServerName>, query: PublicRoomsQuery<'_>) -> ApiResult<Json> {
    let page = match server.filter(|server| **server != *app.server_name) {
        Some(server) => {
            let (limit, since) = (query.limit(), given(query.since).map(ToOwned::to_owned));
            let wanted = RoomsWanted { limit, since, filter: query.filter, network: query.network };
            app.reach.public_rooms(server, &wanted).await?
        }
        None => app.directory.public_rooms(&query).await?,
    };
    Ok(Json::of(&page).map_err(Error::broken)?)
}
