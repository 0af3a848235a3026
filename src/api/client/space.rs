//! The rooms of a space.
//!
//! A token is how many rooms came before, with what was asked for then: the walk is done again from its beginning for
//! each page, from cards in memory, and from what other servers have said of theirs a moment ago.
//!
//! Parameters are judged before the room is looked up, and what is wrong with them is reported only to those who may
//! know of the room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use ruma::{
    api::client::space::get_hierarchy::v1::Request, events::space::child::HierarchySpaceChildEvent, serde::Raw,
};
use serde::Serialize;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        in_room::InRoom,
        json::{AsJson, Json},
        own::given,
        route::Endpoints,
    },
    app::App,
    error::Error,
    reader::directory::HierarchyQuery,
    room::read::summary::RoomSummary,
};

/// How many rooms come in a page where the client does not say, and at most.
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// How deep a walk goes at most.
const MAX_DEPTH: usize = 50;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<InRoom<AsJson<Request>>, _, _>(hierarchy)
}

#[derive(Serialize)]
struct HierarchyResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    rooms: Vec<HierarchyRoom<'a>>,
}

#[derive(Serialize)]
struct HierarchyRoom<'a> {
    #[serde(flatten)]
    summary: &'a RoomSummary,
    children_state: Vec<Raw<HierarchySpaceChildEvent>>,
}

/// Whoever may not know of the room is refused for that first, whatever else is wrong with what they ask for.
///
/// `M_FORBIDDEN` alike for a room that is not there and one that the caller may not view.
async fn hierarchy(app: App, call: Call<InRoom<AsJson<Request>>>) -> ApiResult<Json> {
    let Call { request, caller, .. } = call;
    let forbidden = || Error::forbidden("There is no such room, or you are not allowed to view it");
    let room_id = request.room_id.clone();
    let walk = request.read().and_then(|AsJson(request)| Ok(walk(&request)?));
    let walk = match walk {
        Ok(walk) => walk,
        Err(error) => {
            let known = app.directory.summary(&room_id, Some(&caller.user_id)).await?;
            return Err(if known.is_some() { error } else { forbidden().into() });
        }
    };
    let HierarchyQuery { skip, max_depth, suggested_only, .. } = walk;
    let found = app.directory.hierarchy(&caller.user_id, &room_id, walk).await?.ok_or_else(forbidden)?;
    // With the token goes what the walk depends on: with another depth, the number of rooms would count others.
    let next_batch =
        found.more.then(|| format!("{}-{max_depth}-{suggested_only}", skip.saturating_add(found.rooms.len())));
    let rooms = found.rooms.iter();
    let rooms = rooms.map(|branch| HierarchyRoom { summary: &branch.summary, children_state: branch.children_state() });
    Ok(Json::of(&HierarchyResponse { next_batch, rooms: rooms.collect() }).map_err(Error::broken)?)
}

/// What part of the space is asked for.
fn walk(request: &Request) -> Result<HierarchyQuery, Error> {
    // More than the most is no error: the specification has servers set a limit of their own.
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
    Ok(HierarchyQuery { suggested_only, max_depth, skip, limit })
}

/// How many rooms came before, if the same is asked for as then.
fn read_token(token: &str, suggested_only: bool, max_depth: usize) -> Result<usize, Error> {
    let unknown = || Error::invalid_param("`from` is no token of this endpoint");
    let (skip, asked) = token.split_once('-').ok_or_else(unknown)?;
    let skip = skip.parse().map_err(|_unreadable| unknown())?;
    if asked != format!("{max_depth}-{suggested_only}") {
        return Err(Error::invalid_param("`suggested_only` and `max_depth` stay as they were on the first page"));
    }
    Ok(skip)
}
