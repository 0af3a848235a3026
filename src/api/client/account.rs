//! One's own account.
//!
//! Changing a password and deactivating are answered again to whoever sends them again: the first by the password that
//! is set by then, the second by the error of an unknown token, which shows that it is done.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#current-account-information>

use std::net::IpAddr;

use ruma::{
    OwnedUserId,
    api::client::{
        account::{change_password, deactivate, whoami},
        uiaa::{AuthData, AuthType, ThirdpartyIdCredentials},
    },
};

use super::{login::count_guess, threepid::unbind_result};
use crate::{
    api::{
        auth::required,
        error::{ApiError, ApiResult},
        extract::Call,
        interactive::Interactive,
        route::Endpoints,
    },
    app::App,
    error::Error,
    people::{
        account::{Caller, LoginIdentifier, User},
        rate_limit::Limit,
        threepid::{Operation, unproved},
    },
    worker::errand::DEPARTURE,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<whoami::v3::Request, _, _>(whoami)
        .endpoint::<Interactive<change_password::v3::Request>, _, _>(change_password)
        .endpoint::<Interactive<deactivate::v3::Request>, _, _>(deactivate)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami>
async fn whoami(_: App, call: Call<whoami::v3::Request>) -> ApiResult<whoami::v3::Response> {
    let caller = &call.caller;
    let mut response = whoami::v3::Response::new(caller.user_id().to_owned(), matches!(caller, Caller::Guest(_)));
    response.device_id = Some(caller.device_id().to_owned());
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
    app.rate_limits.check(Limit::Message, 1, &caller.user_id, caller.pace).await?;
    app.accounts.check_password(&request.new_password)?;
    match call.request.confirm_password(&app, "change_password", &caller, call.address).await {
        // The password is what it is to be: the answer was lost, and whoever knows it shows by that who they are.
        Err(ApiError::Interactive(_)) if is_changed(&app, &call.request, &caller).await? => {}
        confirmed => confirmed?,
    }
    app.accounts.change_password(&caller, &request.new_password, request.logout_devices, call.address).await?;
    Ok(change_password::v3::Response::new())
}

/// Whether the password that somebody asks for is the one that they have. Only those learn it who show one that it is
/// not; it would be a second guess for the price of one, so it is counted as another.
async fn is_changed(app: &App, asked: &Interactive<change_password::v3::Request>, user: &User) -> ApiResult<bool> {
    let new_password = &asked.request.new_password;
    match &asked.auth {
        Some(AuthData::Password(shown)) if shown.password != *new_password => {
            app.rate_limits.check_confirmation(&user.user_id, &user.device_id).await?;
            Ok(app.accounts.has_password(LoginIdentifier::User(user.user_id.as_str()), new_password).await?)
        }
        _ => Ok(false),
    }
}

/// Gives a new password to somebody who has forgotten the old one and is known by their e-mail address.
async fn reset_password(
    app: &App,
    interactive: &Interactive<change_password::v3::Request>,
    address: IpAddr,
) -> ApiResult<change_password::v3::Response> {
    // Clients ask again and again whether the link in the mail has been followed.
    app.rate_limits.check_address(Limit::Challenge, 1, address).await?;
    let request = &interactive.request;
    app.accounts.check_password(&request.new_password)?;
    if let Some(AuthData::EmailIdentity(given)) = &interactive.auth
        && is_reset(app, &given.thirdparty_id_creds, &request.new_password, address).await?
    {
        return Ok(change_password::v3::Response::new());
    }
    let operation = Operation::ResetPassword.as_str();
    let passed = interactive.complete_for_this(app, operation, &[vec![AuthType::EmailIdentity]], address).await?;
    let proof = passed.proof.ok_or_else(unproved)?;
    app.accounts.reset_password(&proof, &request.new_password, request.logout_devices, address).await?;
    Ok(change_password::v3::Response::new())
}

/// Whether the password was reset already, with this proof and to this password: the answer was lost.
async fn is_reset(app: &App, proof: &ThirdpartyIdCredentials, new_password: &str, address: IpAddr) -> ApiResult<bool> {
    let shown = app.threepids.find_shown(Operation::ResetPassword, &proof.sid, &proof.client_secret).await?;
    let Some(email) = shown else { return Ok(false) };
    let name = LoginIdentifier::Email(&email);
    let guess = count_guess(app, name, address).await?;
    let is_theirs = app.accounts.has_password(name, new_password).await?;
    if is_theirs {
        app.rate_limits.was_right(guess).await;
    }
    Ok(is_theirs)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>
///
/// Whoever sends it again is answered that their access token is not known: they are logged out, and so is everybody
/// else.
async fn deactivate(app: App, call: Call<Interactive<deactivate::v3::Request>>) -> ApiResult<deactivate::v3::Response> {
    call.request.confirm_password(&app, "deactivate", &call.caller, call.address).await?;
    let deactivate::v3::Request { id_server, erase, .. } = call.request.request;
    let withdrawn = withdraw(app.clone(), call.caller.user_id, id_server, erase);
    // Nobody can ask for the rest again whose client has hung up: they are logged out by then.
    let all = app.tasks.see_through("deactivating an account", withdrawn).await;
    let all = all.ok_or_else(|| Error::broken("an account was not deactivated to the end"))??;
    Ok(deactivate::v3::Response::new(unbind_result(all)))
}

/// Ends an account and takes its user out of every room, invitations included. Returns whether every identity server
/// has forgotten their addresses.
async fn withdraw(app: App, user_id: OwnedUserId, id_server: Option<String>, erase: bool) -> ApiResult<bool> {
    let published = app.threepids.list_published(&user_id, id_server.as_deref()).await?;
    let departure = app.accounts.deactivate(&user_id, erase).await?;
    // What fails here is tried again, by whichever node does errands.
    let left = app.entrance.leave_all(&user_id, Some(DEPARTURE)).await;
    // Whether or not a room could not be left.
    let all = app.threepids.unbind_all(&user_id, published).await;
    left?;
    app.accounts.has_left_rooms(&departure).await?;
    Ok(all)
}
