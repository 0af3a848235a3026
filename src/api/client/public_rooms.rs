//! The public room directory.
//!
//! A token is the number of rooms that came before. The list is sorted by members, so between two pages a room may move
//! over the edge; clients show it twice or miss it until they look again.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use ruma::{
    ServerName, UInt,
    api::client::directory::{get_public_rooms, get_public_rooms_filtered},
    directory::{Filter, RoomNetwork},
};
use serde::Serialize;

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
    reader::directory::{PublicRoomsQuery, RoomSummary},
};

/// How many rooms come in a page where the client does not say, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<get_public_rooms::v3::Request>, _, _>(all)
        .endpoint::<AsJson<get_public_rooms_filtered::v3::Request>, _, _>(filtered)
}

/// A page of the directory. Of each room it says how to join it, also where everybody may, and no more than the
/// specification's `PublishedRoomsChunk` has.
#[derive(Default, Serialize)]
struct PublicRoomsResponse {
    chunk: Vec<RoomSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_room_count_estimate: Option<UInt>,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>
async fn all(app: App, call: Call<AsJson<get_public_rooms::v3::Request>>) -> ApiResult<Json> {
    // Anybody may ask, so no access token has made this node look at the end of the log.
    app.catch_up().await?;
    let get_public_rooms::v3::Request { limit, since, server, .. } = call.request.0;
    let found = find(&app, server.as_deref(), limit, since.as_deref(), Filter::default()).await?;
    Ok(Json::of(&found).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms>
async fn filtered(app: App, call: Call<AsJson<get_public_rooms_filtered::v3::Request>>) -> ApiResult<Json> {
    let get_public_rooms_filtered::v3::Request { server, limit, since, filter, room_network, .. } = call.request.0;
    let found = if matches!(room_network, RoomNetwork::ThirdParty(_)) {
        // No room of this server belongs to another network.
        PublicRoomsResponse { total_room_count_estimate: Some(UInt::MIN), ..PublicRoomsResponse::default() }
    } else {
        find(&app, server.as_deref(), limit, since.as_deref(), filter).await?
    };
    Ok(Json::of(&found).map_err(Error::broken)?)
}

/// `M_NOT_FOUND` for the directory of another server, `M_INVALID_PARAM` for a token of somewhere else.
async fn find(
    app: &App,
    server: Option<&ServerName>,
    limit: Option<UInt>,
    since: Option<&str>,
    filter: Filter,
) -> ApiResult<PublicRoomsResponse> {
    if server.is_some_and(|server| *server != *app.server_name) {
        return Err(Error::not_found("This server can't ask other servers for their directory").into());
    }
    // A page of no rooms would lead nowhere: the next one would begin at the same place.
    let limit = limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX)).clamp(1, MAX_LIMIT);
    let skip: usize = match given(since) {
        Some(token) => {
            token.parse().map_err(|_unreadable| Error::invalid_param("`since` is no token of this directory"))?
        }
        None => 0,
    };
    let types = Some(filter.room_types).filter(|types| !types.is_empty());
    let term = filter.generic_search_term.filter(|term| !term.is_empty());
    let page = app.directory.public_rooms(&PublicRoomsQuery { term, types, skip, limit }).await?;
    let returned = skip.saturating_add(page.rooms.len());
    Ok(PublicRoomsResponse {
        chunk: page.rooms.iter().map(|card| card.summary.as_published()).collect(),
        next_batch: (returned < page.total).then(|| returned.to_string()),
        prev_batch: (skip > 0).then(|| skip.saturating_sub(limit).to_string()),
        total_room_count_estimate: UInt::try_from(page.total).ok(),
    })
}
