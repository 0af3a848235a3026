//! `POST /join/{roomIdOrAlias}` and `POST /rooms/{roomId}/join`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#joining-rooms>

use axum::Router;
use ruma::{
    RoomId,
    api::client::membership::{
        ThirdPartySigned,
        join_room_by_id::v3::{Request as ById, Response as JoinedById},
        join_room_by_id_or_alias::v3::{Request as ByIdOrAlias, Response as Joined},
    },
};

use crate::{
    account::Caller,
    api::{error::ApiResult, extract::Call, restriction::check_joining, route::Routes as _},
    app::App,
    error::Result,
    rate_limit::Limit,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<ById, _, _>(join_by_id).endpoint::<ByIdOrAlias, _, _>(join_by_id_or_alias)
}

async fn join_by_id(app: App, call: Call<ById>) -> ApiResult<JoinedById> {
    let ById { room_id, third_party_signed, reason, .. } = call.request;
    join(&app, &call.caller, &room_id, third_party_signed.as_ref(), reason).await?;
    Ok(JoinedById::new(room_id))
}

/// Other servers that could help (`via`) can't be asked.
async fn join_by_id_or_alias(app: App, call: Call<ByIdOrAlias>) -> ApiResult<Joined> {
    let ByIdOrAlias { room_id_or_alias, third_party_signed, reason, .. } = call.request;
    let room_id = app.rooms.resolve(&room_id_or_alias).await?;
    join(&app, &call.caller, &room_id, third_party_signed.as_ref(), reason).await?;
    Ok(Joined::new(room_id))
}

async fn join(
    app: &App,
    caller: &Caller,
    room_id: &RoomId,
    signed: Option<&ThirdPartySigned>,
    reason: Option<String>,
) -> Result<()> {
    app.rate_limits.check(Limit::Join, caller).await?;
    check_joining(app, caller, room_id).await?;
    if let Some(signed) = signed {
        app.third_party_invites.accept(room_id, &caller.user_id, signed).await?;
    }
    app.rooms.join(room_id, &caller.user_id, caller.guest, reason).await
}
