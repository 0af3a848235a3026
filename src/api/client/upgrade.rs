//! `POST /rooms/{roomId}/upgrade`.
//!
//! An upgrade has one outcome: whoever asks again, or at the same time, gets the room that the first one made.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>

use ruma::api::client::room::upgrade_room::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
    room::Upgrade,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(upgrade)
}

async fn upgrade(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Request { room_id, new_version, additional_creators, .. } = call.request;
    let upgrade = Upgrade { room_id, by: call.caller.user_id, version: new_version, additional_creators };
    // The new room stands before everything has moved there: whoever hangs up must not leave it half empty.
    let rooms = app.rooms.clone();
    let upgraded = app.tasks.see_through("room upgrade", async move { rooms.upgrade(&upgrade).await }).await;
    Ok(Response::new(upgraded.unwrap_or_else(|| Err(Error::broken("an upgrade has panicked")))?))
}
