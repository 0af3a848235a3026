//! What clients asked for first before there was `/sync`, and what they begin the preview of a room with still.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync> and
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync>

use ruma::{
    UInt,
    api::{auth_scheme::AccessToken, client::peeking::get_current_state::v3 as get_current_state},
    presence::PresenceState,
};
use serde::Deserialize;

use super::{
    news::{self, Shape},
    sync::count_whole,
};
use crate::{
    api::{
        endpoint::RawAnswer,
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        own::{Download, own_request, read_query},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::account::Caller,
    reader::sync::{Client, Gathered, InitialSyncBody},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Download<InitialSync>, _, _>(all).endpoint::<AsJson<get_current_state::Request>, _, _>(one)
}

/// Every room of the user's with its last messages. It counts as a sign that the user is there, as `/sync` does.
async fn all(app: App, call: Call<Download<InitialSync>>) -> ApiResult<RawAnswer> {
    let Call { request: Download(request), caller, .. } = call;
    count_whole(&app, &caller.user_id, caller.pace).await?;
    let _connected = app.presence.seen(&caller.user_id, &caller.device_id, &PresenceState::Online);
    let limit = request.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let (body, asked) = app.syncs.initial((&caller).into(), limit, request.archived);
    let watcher = app.syncs.watcher(&caller.user_id).await?;
    let gathered = Box::pin(app.syncs.gather(&asked, &watcher, watcher.turn().await?)).await?;
    Box::pin(news::answer((app, Caller::User(caller)), asked, gathered, body)).await
}

impl Shape for InitialSyncBody {
    async fn write(&mut self, _: &App, gathered: Gathered) -> Result<()> {
        self.write_part(gathered).await
    }

    fn take(&mut self) -> Vec<u8> {
        self.take_text()
    }

    fn end(self) -> Vec<u8> {
        self.into_text()
    }
}

/// One room. Guests preview it with this.
async fn one(app: App, call: Call<AsJson<get_current_state::Request>>) -> ApiResult<Json> {
    let Call { request: AsJson(request), caller, .. } = call;
    let client = Client::from(&caller);
    let room = app.syncs.initial_of_room(&client, &request.room_id);
    Ok(Json::of(&Box::pin(room).await?).map_err(Error::broken)?)
}

own_request!(
    #[derive(Deserialize)]
    InitialSync {
        /// How many messages of each room.
        limit: Option<UInt>,
        /// Whether rooms that were left are included.
        #[serde(default)]
        archived: bool,
    }: GET AccessToken history {
        1.0 => "/_matrix/client/r0/initialSync",
        1.1 => "/_matrix/client/v3/initialSync",
    } -> Json,
    |request, _path| read_query(&request)
);
