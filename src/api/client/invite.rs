//! `POST /rooms/{roomId}/invite`.
//!
//! Whether an invitation is wanted by whom it is for is checked where it is written, so that no other way in leads
//! around that.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite> and, for people who are
//! known by an address only,
//! <https://spec.matrix.org/v1.19/client-server-api/#thirdparty_post_matrixclientv3roomsroomidinvite>

use ruma::api::client::membership::invite_user::v3::{InvitationRecipient, Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(invite)
}

async fn invite(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Request { room_id, recipient, .. } = call.request;
    match recipient {
        InvitationRecipient::UserId(invited) => {
            app.entrance.invite(&room_id, &call.caller.user_id, &invited.user_id, invited.reason).await?;
        }
        InvitationRecipient::ThirdPartyId(invite) => {
            let elsewhere = app.third_party_invites.invite(&room_id, &call.caller.user_id, &invite).await?;
            if let Some(user_id) = elsewhere {
                app.entrance.invite(&room_id, &call.caller.user_id, &user_id, None).await?;
            }
        }
        _ => return Err(Error::bad_json("An invitation names a `user_id`, or an `address`").into()),
    }
    Ok(Response::new())
}
