//! One's own account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#current-account-information>

use axum::Router;
use ruma::{
    UserId,
    api::client::account::{ThirdPartyIdRemovalStatus, change_password, deactivate, get_3pids, whoami},
};
use serde_json::json;

use crate::{
    api::{
        auth::required,
        error::ApiResult,
        extract::Call,
        interactive::Interactive,
        json::{Json, Written},
        route::Routes as _,
    },
    app::App,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<whoami::v3::Request, _, _>(whoami)
        .endpoint::<Interactive<change_password::v3::Request>, _, _>(change_password)
        .endpoint::<Interactive<deactivate::v3::Request>, _, _>(deactivate)
        .endpoint::<Written<get_3pids::v3::Request>, _, _>(threepids)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami>
async fn whoami(_: App, call: Call<whoami::v3::Request>) -> ApiResult<whoami::v3::Response> {
    let mut response = whoami::v3::Response::new(call.caller.user_id, call.caller.guest);
    response.device_id = Some(call.caller.device_id);
    Ok(response)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword>
async fn change_password(
    app: App,
    call: Call<Interactive<change_password::v3::Request>>,
) -> ApiResult<change_password::v3::Response> {
    let caller = required(call.caller)?;
    let request = &call.request.request;
    app.accounts.check_password(&request.new_password)?;
    call.request.confirm_password(&app, "change_password", &caller).await?;
    app.accounts.change_password(&caller, &request.new_password, request.logout_devices).await?;
    Ok(change_password::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>
async fn deactivate(app: App, call: Call<Interactive<deactivate::v3::Request>>) -> ApiResult<deactivate::v3::Response> {
    let caller = required(call.caller)?;
    call.request.confirm_password(&app, "deactivate", &caller).await?;
    app.accounts.deactivate(&caller.user_id, call.request.request.erase).await?;
    leave_rooms(&app, &caller.user_id).await?;
    // There was nothing to unbind.
    Ok(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::Success))
}

/// Takes a user out of every room, invitations included.
async fn leave_rooms(app: &App, user_id: &UserId) -> ApiResult<()> {
    Ok(app.rooms.leave_all(user_id, Some("The account was deactivated")).await?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid>
///
/// Nobody can add any yet. Ruma leaves out an empty list, in which clients look for its length.
async fn threepids(_: App, _: Call<Written<get_3pids::v3::Request>>) -> ApiResult<Json> {
    Ok(Json::from(json!({ "threepids": [] })))
}
