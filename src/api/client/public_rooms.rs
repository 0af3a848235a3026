//! The public room directory.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use axum::Router;
use ruma::{
    ServerName, UInt,
    api::client::directory::{get_public_rooms, get_public_rooms_filtered},
    directory::{Filter, PublicRoomsChunk, RoomNetwork},
};

use crate::{
    api::{error::ApiResult, extract::Call, own::given, route::Routes as _},
    app::App,
    directory::Query,
    error::Error,
};

/// How many rooms come in a page where the client does not say, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(all).endpoint(filtered)
}

struct Found {
    chunk: Vec<PublicRoomsChunk>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    total: Option<UInt>,
}

async fn all(app: App, call: Call<get_public_rooms::v3::Request>) -> ApiResult<get_public_rooms::v3::Response> {
    app.catch_up().await?;
    let get_public_rooms::v3::Request { limit, since, server, .. } = call.request;
    let found = find(&app, server.as_deref(), limit, since.as_deref(), Filter::default()).await?;
    let mut response = get_public_rooms::v3::Response::new(found.chunk);
    response.next_batch = found.next_batch;
    response.prev_batch = found.prev_batch;
    response.total_room_count_estimate = found.total;
    Ok(response)
}

async fn filtered(
    app: App,
    call: Call<get_public_rooms_filtered::v3::Request>,
) -> ApiResult<get_public_rooms_filtered::v3::Response> {
    let get_public_rooms_filtered::v3::Request { server, limit, since, filter, room_network, .. } = call.request;
    let mut response = get_public_rooms_filtered::v3::Response::new();
    if matches!(room_network, RoomNetwork::ThirdParty(_)) {
        // No room of this server belongs to another network.
        response.total_room_count_estimate = Some(UInt::MIN);
        return Ok(response);
    }
    let found = find(&app, server.as_deref(), limit, since.as_deref(), filter).await?;
    response.chunk = found.chunk;
    response.next_batch = found.next_batch;
    response.prev_batch = found.prev_batch;
    response.total_room_count_estimate = found.total;
    Ok(response)
}

async fn find(
    app: &App,
    server: Option<&ServerName>,
    limit: Option<UInt>,
    since: Option<&str>,
    filter: Filter,
) -> ApiResult<Found> {
    if server.is_some_and(|server| *server != *app.server_name) {
        return Err(Error::not_found("This server can't ask other servers for their directory").into());
    }
    let limit = limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX)).clamp(1, MAX_LIMIT);
    let skip: usize = match given(since) {
        Some(token) => {
            token.parse().map_err(|_unreadable| Error::invalid_param("`since` is no token of this directory"))?
        }
        None => 0,
    };
    let types = Some(filter.room_types).filter(|types| !types.is_empty());
    let term = filter.generic_search_term.filter(|term| !term.is_empty());
    let page = app.directory.public_rooms(&Query { term, types, skip, limit }).await?;
    let told = skip.saturating_add(page.rooms.len());
    Ok(Found {
        chunk: page.rooms.iter().map(|card| PublicRoomsChunk::from(card.summary.clone())).collect(),
        next_batch: (told < page.total).then(|| told.to_string()),
        prev_batch: (skip > 0).then(|| skip.saturating_sub(limit).to_string()),
        total: UInt::try_from(page.total).ok(),
    })
}
