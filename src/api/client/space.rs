//! The rooms of a space.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use axum::Router;
use ruma::{
    api::client::space::get_hierarchy::v1::Request, events::space::child::HierarchySpaceChildEvent, serde::Raw,
};
use serde::Serialize;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        in_room::InRoom,
        json::{Json, Written},
        own::given,
        route::Routes as _,
    },
    app::App,
    directory::{Summary, Walk},
    error::Error,
};

/// How many rooms come in a page where the client does not say, and at most.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// How deep a walk goes at most.
const MAX_DEPTH: usize = 50;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<InRoom<Written<Request>>, _, _>(hierarchy)
}

#[derive(Serialize)]
struct Page<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    rooms: Vec<Room<'a>>,
}

#[derive(Serialize)]
struct Room<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    children_state: Vec<Raw<HierarchySpaceChildEvent>>,
}

/// Whoever may not know of the room is told so first, whatever else they ask for.
async fn hierarchy(app: App, call: Call<InRoom<Written<Request>>>) -> ApiResult<Json> {
    let Call { request, caller, .. } = call;
    let forbidden = || Error::forbidden("There is no such room, or you are not allowed to view it");
    let room_id = request.room_id.clone();
    let walk = request.read().and_then(|Written(request)| Ok(walk(&request)?));
    let walk = match walk {
        Ok(walk) => walk,
        Err(error) => {
            let known = app.directory.summary(&room_id, Some(&caller.user_id)).await?;
            return Err(if known.is_some() { error } else { forbidden().into() });
        }
    };
    let Walk { skip, max_depth, suggested_only, .. } = walk;
    let found = app.directory.hierarchy(&caller.user_id, &room_id, walk).await?.ok_or_else(forbidden)?;
    let next_batch =
        found.more.then(|| format!("{}-{max_depth}-{suggested_only}", skip.saturating_add(found.rooms.len())));
    let rooms = found.rooms.iter();
    let rooms = rooms.map(|branch| Room { summary: &branch.card.summary, children_state: branch.children_state() });
    Ok(Json::of(&Page { next_batch, rooms: rooms.collect() }).map_err(Error::broken)?)
}

/// What part of the space is asked for.
fn walk(request: &Request) -> Result<Walk, Error> {
    let limit = match request.limit.map(u64::from) {
        Some(0) => return Err(Error::invalid_param("`limit` is greater than zero")),
        limit => limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX)).min(MAX_LIMIT),
    };
    let max_depth = request.max_depth.map_or(MAX_DEPTH, |depth| usize::try_from(depth).unwrap_or(MAX_DEPTH));
    let max_depth = max_depth.min(MAX_DEPTH);
    let suggested_only = request.suggested_only;
    let skip = match given(request.from.as_deref()) {
        Some(token) => read_token(token, suggested_only, max_depth)?,
        None => 0,
    };
    Ok(Walk { suggested_only, max_depth, skip, limit })
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
