//! The rooms of a space.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use axum::Router;
use ruma::api::client::space::{
    SpaceHierarchyRoomsChunk,
    get_hierarchy::v1::{Request, Response},
};

use crate::{
    api::{error::ApiResult, extract::Call, own::given, route::Routes as _},
    app::App,
    directory::Walk,
    error::Error,
};

/// How many rooms come in a page where the client does not say, and at most.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// How deep a walk goes at most.
const MAX_DEPTH: usize = 50;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(hierarchy)
}

async fn hierarchy(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let limit = match request.limit.map(u64::from) {
        Some(0) => return Err(Error::invalid_param("`limit` is greater than zero").into()),
        limit => limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX)).min(MAX_LIMIT),
    };
    let max_depth = request.max_depth.map_or(MAX_DEPTH, |depth| usize::try_from(depth).unwrap_or(MAX_DEPTH));
    let max_depth = max_depth.min(MAX_DEPTH);
    let suggested_only = request.suggested_only;
    let skip = match given(request.from.as_deref()) {
        Some(token) => read_token(token, suggested_only, max_depth)?,
        None => 0,
    };
    let walk = Walk { suggested_only, max_depth, skip, limit };
    let found = app.directory.hierarchy(&caller.user_id, &request.room_id, walk).await?;
    let found = found.ok_or_else(|| Error::forbidden("There is no such room, or you are not allowed to view it"))?;
    let mut response = Response::new();
    response.next_batch =
        found.more.then(|| format!("{}-{max_depth}-{suggested_only}", skip.saturating_add(found.rooms.len())));
    response.rooms = found
        .rooms
        .iter()
        .map(|branch| SpaceHierarchyRoomsChunk::new(branch.card.summary.clone(), branch.children_state()))
        .collect();
    Ok(response)
}

/// How many rooms were told before, if the same is asked for as then.
fn read_token(token: &str, suggested_only: bool, max_depth: usize) -> Result<usize, Error> {
    let unknown = || Error::invalid_param("`from` is no token of this endpoint");
    let (skip, asked) = token.split_once('-').ok_or_else(unknown)?;
    let skip = skip.parse().map_err(|_unreadable| unknown())?;
    if asked != format!("{max_depth}-{suggested_only}") {
        return Err(Error::invalid_param("`suggested_only` and `max_depth` stay as they were on the first page"));
    }
    Ok(skip)
}
