//! `POST /rooms/{roomId}/leave` and `/forget`.
//!
//! Leaving is open to suspended accounts and to guests: nobody is kept in a room. Forgetting only hides it from the one
//! who asks, and takes having left.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#leaving-rooms>

use ruma::api::client::membership::{
    forget_room::v3::{Request as Forget, Response as Forgotten},
    leave_room::v3::{Request as Leave, Response as Left},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Leave, _, _>(leave).endpoint::<Forget, _, _>(forget)
}

async fn leave(app: App, call: Call<Leave>) -> ApiResult<Left> {
    app.entrance.leave(&call.request.room_id, call.caller.user_id(), call.request.reason).await?;
    Ok(Left::new())
}

async fn forget(app: App, call: Call<Forget>) -> ApiResult<Forgotten> {
    app.rooms.forget(&call.request.room_id, &call.caller.user_id).await?;
    Ok(Forgotten::new())
}
