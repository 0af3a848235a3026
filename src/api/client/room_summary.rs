//! What may be known of a room from outside, by whom it is open to.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-summaries>

use ruma::{
    OwnedRoomId, RoomAliasId, api::client::room::get_summary::v1::Request, events::room::member::MembershipState,
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
    people::account::Caller,
    reader::directory::RoomSummary,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<AsJson<Request>, _, _>(summary)
}

/// The card's summary, and what the caller is in the room.
#[derive(Serialize)]
struct SummaryResponse<'a> {
    #[serde(flatten)]
    summary: &'a RoomSummary,
    /// The caller's, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipState>,
}

/// `M_NOT_FOUND` alike for a room that is not there and one that is none of the caller's business.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
async fn summary(app: App, call: Call<AsJson<Request>>) -> ApiResult<Json> {
    // Without an access token, nothing has made this node look at the end of the log.
    if call.caller.is_none() {
        app.catch_up().await?;
    }
    let room = call.request.0.room_id_or_alias;
    let room_id = match <&RoomAliasId>::try_from(room.as_str()) {
        Ok(alias) => app.rooms.get_by_alias(alias).await?,
        Err(_) => OwnedRoomId::try_from(room.as_str()).map_err(|e| Error::invalid_param(e.to_string()))?,
    };
    let user_id = call.caller.as_ref().map(Caller::user_id);
    let found = app.directory.summary(&room_id, user_id).await?;
    let (card, membership) = found.ok_or_else(|| Error::not_found("There is no such room, or you can't know of it"))?;
    Ok(Json::of(&SummaryResponse { summary: &card.summary, membership }).map_err(Error::broken)?)
}
