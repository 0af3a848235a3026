//! `POST /rooms/{roomId}/invite`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite>

use axum::Router;
use ruma::api::{
    client::membership::invite_user::v3::{InvitationRecipient, Request, Response},
    error::ErrorKind,
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    error::Error,
    rate_limit::Limit,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Request, _, _>(invite)
}

async fn invite(app: App, call: Call<Request>) -> ApiResult<Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let Request { room_id, recipient, .. } = call.request;
    let InvitationRecipient::UserId(invited) = recipient else {
        let message = "This server asks no identity server: invite by `user_id`";
        return Err(Error::refused(ErrorKind::ServerNotTrusted, message).into());
    };
    app.rooms.invite(&room_id, &call.caller.user_id, &invited.user_id, invited.reason).await?;
    Ok(Response::new())
}
