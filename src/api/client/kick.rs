//! `POST /rooms/{roomId}/kick`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick>

use axum::Router;
use ruma::api::client::membership::kick_user::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Request, _, _>(kick)
}

async fn kick(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Request { room_id, user_id, reason, .. } = call.request;
    app.rooms.kick(&room_id, &call.caller.user_id, &user_id, reason).await?;
    Ok(Response::new())
}
