//! `POST /rooms/{roomId}/kick`.
//!
//! A kick is a membership event of `leave` that somebody else sends; power is checked where every event is. Who kicks
//! themselves leaves.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick>

use ruma::api::client::membership::kick_user::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(kick)
}

async fn kick(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Request { room_id, user_id, reason, .. } = call.request;
    if user_id == call.caller.user_id {
        app.entrance.leave(&room_id, &user_id, reason).await?;
    } else {
        app.rooms.kick(&room_id, &call.caller.user_id, &user_id, reason).await?;
    }
    Ok(Response::new())
}
