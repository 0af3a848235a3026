//! Asking for a mail with which somebody proves that an address is theirs. Telephone numbers can't be proved here.
//!
//! The answer is the same whether or not an account has the address, and takes as long: a mail is sent either way.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken>

use std::net::IpAddr;

use ruma::{
    OwnedSessionId,
    api::{
        client::account::{
            request_3pid_management_token_via_email::v3 as to_add,
            request_3pid_management_token_via_msisdn::v3 as to_add_number,
            request_password_change_token_via_email::v3 as to_reset,
            request_password_change_token_via_msisdn::v3 as to_reset_by_number,
            request_registration_token_via_email::v3 as to_register,
            request_registration_token_via_msisdn::v3 as to_register_with_number,
        },
        error::ErrorKind,
    },
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
    people::{
        rate_limit::Limit,
        threepid::{Operation, TokenRequest},
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint(add)
        .endpoint(add_number)
        .endpoint(reset)
        .endpoint(reset_by_number)
        .endpoint(register)
        .endpoint(register_with_number)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidemailrequesttoken>
async fn add(app: App, call: Call<to_add::Request>) -> ApiResult<to_add::Response> {
    let to_add::Request { client_secret, email, send_attempt, next_link, .. } = &call.request;
    let (operation, next_link, send_attempt) = (Operation::AddThreepid, next_link.as_deref(), *send_attempt);
    let request = TokenRequest { operation, email, client_secret, send_attempt, next_link };
    let mut response = to_add::Response::new(send(&app, call.address, &request).await?);
    response.submit_url = Some(app.threepids.submit_url());
    Ok(response)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpasswordemailrequesttoken>
async fn reset(app: App, call: Call<to_reset::Request>) -> ApiResult<to_reset::Response> {
    let to_reset::Request { client_secret, email, send_attempt, next_link, .. } = &call.request;
    let (operation, next_link, send_attempt) = (Operation::ResetPassword, next_link.as_deref(), *send_attempt);
    let request = TokenRequest { operation, email, client_secret, send_attempt, next_link };
    let mut response = to_reset::Response::new(send(&app, call.address, &request).await?);
    response.submit_url = Some(app.threepids.submit_url());
    Ok(response)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken>
async fn register(app: App, call: Call<to_register::Request>) -> ApiResult<to_register::Response> {
    app.accounts.check_registration_enabled()?;
    let to_register::Request { client_secret, email, send_attempt, next_link, .. } = &call.request;
    let (operation, next_link, send_attempt) = (Operation::Register, next_link.as_deref(), *send_attempt);
    let request = TokenRequest { operation, email, client_secret, send_attempt, next_link };
    let mut response = to_register::Response::new(send(&app, call.address, &request).await?);
    response.submit_url = Some(app.threepids.submit_url());
    Ok(response)
}

/// Anybody may ask, so it is their address that is limited, beside the one that is written to.
///
/// Counted as a login attempt, since a mail to a stranger costs more than a message does.
async fn send(app: &App, address: IpAddr, request: &TokenRequest<'_>) -> ApiResult<OwnedSessionId> {
    app.rate_limits.check_address(Limit::Login, 1, address).await?;
    let sid = app.threepids.request_token(request).await?;
    Ok(OwnedSessionId::try_from(sid).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidmsisdnrequesttoken>
async fn add_number(_: App, _: Call<to_add_number::Request>) -> ApiResult<to_add_number::Response> {
    Err(sends_no_messages(ErrorKind::ThreepidMediumNotSupported).into())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpasswordmsisdnrequesttoken>
async fn reset_by_number(_: App, _: Call<to_reset_by_number::Request>) -> ApiResult<to_reset_by_number::Response> {
    Err(sends_no_messages(ErrorKind::ThreepidDenied).into())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registermsisdnrequesttoken>
async fn register_with_number(
    _: App,
    _: Call<to_register_with_number::Request>,
) -> ApiResult<to_register_with_number::Response> {
    Err(sends_no_messages(ErrorKind::ThreepidDenied).into())
}

/// Each endpoint has its own code for it.
fn sends_no_messages(kind: ErrorKind) -> Error {
    Error::refused(kind, "This server sends no text messages, so telephone numbers are of no use on it")
}
