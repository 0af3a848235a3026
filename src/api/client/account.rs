//! One's own account.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#current-account-information>

use std::net::IpAddr;

use axum::Router;
use ruma::{
    OwnedUserId,
    api::client::{
        account::{change_password, deactivate, whoami},
        uiaa::{AuthData, AuthType, ThirdpartyIdCredentials},
    },
};

use super::threepid::unbind_result;
use crate::{
    account::Caller,
    api::{
        auth::required,
        error::{ApiError, ApiResult},
        extract::Call,
        interactive::Interactive,
        route::Routes as _,
    },
    app::{App, DEPARTURE},
    error::Error,
    rate_limit::Limit,
    threepid::{EmailAddress, Operation, unproved},
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<whoami::v3::Request, _, _>(whoami)
        .endpoint::<Interactive<change_password::v3::Request>, _, _>(change_password)
        .endpoint::<Interactive<deactivate::v3::Request>, _, _>(deactivate)
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
    let request = &call.request.request;
    if call.caller.is_none() && app.threepids.are_mailed() {
        return reset_password(&app, &call.request, call.address).await;
    }
    let caller = required(call.caller)?;
    app.accounts.check_password(&request.new_password)?;
    match call.request.confirm_password(&app, "change_password", &caller).await {
        // The password is what it is to be: the answer was lost, and whoever knows it shows by that who they are.
        Err(ApiError::Interactive(_)) if is_changed(&app, &call.request, &caller).await? => {}
        confirmed => confirmed?,
    }
    app.accounts.change_password(&caller, &request.new_password, request.logout_devices).await?;
    Ok(change_password::v3::Response::new())
}

/// Whether the password that somebody asks for is the one that they have. Only told to those who show one, which is
/// counted.
async fn is_changed(app: &App, asked: &Interactive<change_password::v3::Request>, caller: &Caller) -> ApiResult<bool> {
    let (user_id, password) = (&caller.user_id, &asked.request.new_password);
    let shows = matches!(asked.auth, Some(AuthData::Password(_)));
    Ok(shows && app.accounts.is_password_of(user_id, user_id.as_str(), password).await?)
}

/// The same for somebody who has forgotten the old one and is known by their e-mail address.
async fn reset_password(
    app: &App,
    interactive: &Interactive<change_password::v3::Request>,
    address: IpAddr,
) -> ApiResult<change_password::v3::Response> {
    // Clients ask again and again whether the link in the mail has been followed.
    app.rate_limits.check_address(Limit::Challenge, address).await?;
    let request = &interactive.request;
    app.accounts.check_password(&request.new_password)?;
    if let Some(AuthData::EmailIdentity(given)) = &interactive.auth
        && is_reset(app, &given.thirdparty_id_creds, &request.new_password).await?
    {
        return Ok(change_password::v3::Response::new());
    }
    let operation = Operation::ResetPassword.as_str();
    let passed = interactive.complete_for_this(app, operation, &[AuthType::EmailIdentity]).await?;
    let proof = passed.proof.ok_or_else(unproved)?;
    app.accounts.reset_password(&proof, &request.new_password, request.logout_devices).await?;
    Ok(change_password::v3::Response::new())
}

/// Whether the password was reset already, with this proof and to this password: the answer was lost.
async fn is_reset(app: &App, proof: &ThirdpartyIdCredentials, new_password: &str) -> ApiResult<bool> {
    let shown = app.threepids.find_shown(Operation::ResetPassword, &proof.sid, &proof.client_secret).await?;
    let Some(address) = shown else { return Ok(false) };
    app.rate_limits.check_email(Limit::Login, &EmailAddress::parse(&address)?).await?;
    Ok(app.accounts.is_password_at(&address, new_password).await?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>
///
/// Whoever sends it again is told that their access token is not known: they are logged out, and so is everybody else.
async fn deactivate(app: App, call: Call<Interactive<deactivate::v3::Request>>) -> ApiResult<deactivate::v3::Response> {
    let caller = required(call.caller)?;
    call.request.confirm_password(&app, "deactivate", &caller).await?;
    let deactivate::v3::Request { id_server, erase, .. } = call.request.request;
    let withdrawn = withdraw(app.clone(), caller.user_id, id_server, erase);
    // Nobody can ask for the rest again whose client has hung up: they are logged out by then.
    let all = app.tasks.see_through("deactivating an account", withdrawn).await;
    let all = all.ok_or_else(|| Error::broken("an account was not deactivated to the end"))??;
    Ok(deactivate::v3::Response::new(unbind_result(all)))
}

/// Ends an account and takes its user out of every room, invitations included. Tells whether every identity server has
/// forgotten their addresses.
async fn withdraw(app: App, user_id: OwnedUserId, id_server: Option<String>, erase: bool) -> ApiResult<bool> {
    let published = app.threepids.list_published(&user_id, id_server.as_deref()).await?;
    app.accounts.deactivate(&user_id, erase).await?;
    // What fails here is tried again: the account says that it is to be done.
    let erased = if erase { app.rooms.tell_erasures().await } else { Ok(()) };
    let left = app.rooms.leave_all(&user_id, Some(DEPARTURE)).await;
    // Whether or not a room could not be left.
    let all = app.threepids.unbind_all(&user_id, published).await;
    erased?;
    left?;
    Ok(all)
}
