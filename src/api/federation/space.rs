//! Rooms from outside, and the rooms that spaces hold.
//!
//! Of a space's rooms those are summarised of which this server knows. Whoever asks looks at the others elsewhere.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#spaces>

use ruma::{
    OwnedRoomId, api::federation::space::get_hierarchy::v1::Request, events::space::child::HierarchySpaceChildEvent,
    serde::Raw,
};
use serde::Serialize;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::Error,
    room::read::summary::RoomSummary,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<AsJson<Request>, _, _>(hierarchy)
}

#[derive(Serialize)]
struct HierarchyResponse<'a> {
    room: HierarchyRoom<'a>,
    children: Vec<&'a RoomSummary>,
    inaccessible_children: &'a [OwnedRoomId],
}

#[derive(Serialize)]
struct HierarchyRoom<'a> {
    #[serde(flatten)]
    summary: &'a RoomSummary,
    children_state: Vec<Raw<HierarchySpaceChildEvent>>,
}

/// `M_NOT_FOUND` alike for a room that is not known here and one that is none of that server's business.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>
async fn hierarchy(app: App, call: Call<AsJson<Request>>) -> ApiResult<Json> {
    let Request { room_id, suggested_only, .. } = call.request.0;
    let found = app.directory.space_for_server(&call.caller.name, &room_id, suggested_only).await?;
    let space = found.ok_or_else(|| Error::not_found("There is no such room here, or your users can't know of it"))?;
    let response = HierarchyResponse {
        room: HierarchyRoom { summary: &space.room.summary, children_state: space.room.children_state() },
        children: space.children.iter().map(|room| &**room).collect(),
        inaccessible_children: &space.closed,
    };
    Ok(Json::of(&response).map_err(Error::broken)?)
}
