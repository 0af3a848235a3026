//! `POST /rooms/{roomId}/ban` and `/unban`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#banning-users-in-a-room>

use ruma::api::client::membership::{
    ban_user::v3::{Request as Ban, Response as Banned},
    unban_user::v3::{Request as Unban, Response as Unbanned},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Ban, _, _>(ban).endpoint::<Unban, _, _>(unban)
}

/// `M_FORBIDDEN` without the power to ban, or where the other's level is no lower.
async fn ban(app: App, call: Call<Ban>) -> ApiResult<Banned> {
    let Ban { room_id, user_id, reason, .. } = call.request;
    app.rooms.ban(&room_id, &call.caller.user_id, &user_id, reason).await?;
    Ok(Banned::new())
}

async fn unban(app: App, call: Call<Unban>) -> ApiResult<Unbanned> {
    let Unban { room_id, user_id, reason, .. } = call.request;
    app.rooms.unban(&room_id, &call.caller.user_id, &user_id, reason).await?;
    Ok(Unbanned::new())
}
