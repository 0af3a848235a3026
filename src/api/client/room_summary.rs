//! What may be known of a room from outside, by whom it is open to.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-summaries>

use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, api::client::room::get_summary::v1::Request,
    events::room::member::MembershipState,
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

/// `M_NOT_FOUND` alike for a room that is not there and one that is none of the caller's business. Other servers are asked
/// for users alone.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
async fn summary(app: App, call: Call<AsJson<Request>>) -> ApiResult<Json> {
    let not_found = || Error::not_found("There is no such room, or you can't know of it");
    let Request { room_id_or_alias: room, via, .. } = call.request.0;
    let Some(caller) = call.caller else {
        // Without an access token, nothing has made this node look at the end of the log.
        app.catch_up().await?;
        let room_id = match <&RoomAliasId>::try_from(room.as_str()) {
            Ok(alias) => app.rooms.get_by_alias(alias).await?,
            Err(_) => read_id(room.as_str())?,
        };
        let (card, _) = app.directory.summary(&room_id, None).await?.ok_or_else(not_found)?;
        return Ok(Json::of(&SummaryResponse { summary: &card.summary, membership: None }).map_err(Error::broken)?);
    };
    let (room_id, servers) = match <&RoomAliasId>::try_from(room.as_str()) {
        Ok(alias) => app.reach.resolve_alias(alias).await?,
        Err(_) => (read_id(room.as_str())?, Vec::new()),
    };
    // Older rooms are known to the server that their identifier names.
    let named = room_id.server_name().map(ToOwned::to_owned);
    let servers: Vec<OwnedServerName> = via.into_iter().chain(servers).chain(named).collect();
    let found = app.directory.summary_anywhere(&room_id, caller.user_id(), &servers).await?;
    let (summary, membership) = found.ok_or_else(not_found)?;
    let response = SummaryResponse { summary: &summary, membership: Some(membership) };
    Ok(Json::of(&response).map_err(Error::broken)?)
}

fn read_id(room: &str) -> Result<OwnedRoomId, Error> {
    OwnedRoomId::try_from(room).map_err(|e| Error::invalid_param(e.to_string()))
}
