//! What can be told of a room from outside.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-summaries>

use axum::Router;
use ruma::{
    OwnedRoomId, RoomAliasId, api::client::room::get_summary::v1::Request, events::room::member::MembershipState,
};
use serde::Serialize;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{Json, Written},
        route::Routes as _,
    },
    app::App,
    directory::Summary,
    error::Error,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Written<Request>, _, _>(summary)
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    /// The caller's, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipState>,
}

/// `M_NOT_FOUND` alike for a room that is not there and one that is none of the caller's business.
async fn summary(app: App, call: Call<Written<Request>>) -> ApiResult<Json> {
    if call.caller.is_none() {
        app.catch_up().await?;
    }
    let room = call.request.0.room_id_or_alias;
    let room_id = match <&RoomAliasId>::try_from(room.as_str()) {
        Ok(alias) => app.rooms.get_by_alias(alias).await?,
        Err(_) => OwnedRoomId::try_from(room.as_str()).map_err(|e| Error::invalid_param(e.to_string()))?,
    };
    let user_id = call.caller.as_ref().map(|caller| &*caller.user_id);
    let found = app.directory.summary(&room_id, user_id).await?;
    let (card, membership) = found.ok_or_else(|| Error::not_found("There is no such room, or you can't know of it"))?;
    Ok(Json::of(&Answer { summary: &card.summary, membership }).map_err(Error::broken)?)
}
