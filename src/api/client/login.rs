//! Logging in and out, and refreshing.
//!
//! Attempts are counted by the address that they come from (`policy.rs`) and by the name that they are for
//! (`people/rate_limit/guess.rs`), so neither one address for many accounts nor many addresses for one get far, and no
//! stranger keeps an account's owner out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#login>

use std::net::IpAddr;

use ruma::{
    api::{
        IncomingRequest,
        client::session::{
            get_login_token,
            get_login_types::{
                self,
                v3::{LoginType, PasswordLoginType, TokenLoginType},
            },
            login::{
                self,
                v3::{DiscoveryInfo, HomeserverInfo, LoginInfo, Password},
            },
            logout, logout_all, refresh_token,
        },
        error::{DeserializationError, ErrorKind},
    },
    serde::JsonObject,
};
use serde::de::Error as _;

use crate::{
    api::{error::ApiResult, extract::Call, interactive::Interactive, own::metadata_of, route::Endpoints},
    app::App,
    error::{Error, Result},
    people::{
        account::{LOGIN_TOKEN_LIFETIME, LoginIdentifier, NewSession, Session},
        rate_limit::{Guess, GuessedName, Limit},
        threepid::EmailAddress,
    },
};

/// What a refresh costs of an account's `lookup`: it writes, and clients do it every few minutes.
const REFRESH: u32 = 10;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<get_login_types::v3::Request, _, _>(flows)
        .endpoint::<Login, _, _>(login)
        .endpoint::<Interactive<get_login_token::v1::Request>, _, _>(create_login_token)
        .endpoint::<refresh_token::v3::Request, _, _>(refresh)
        .endpoint::<logout::v3::Request, _, _>(logout)
        .endpoint::<logout_all::v3::Request, _, _>(logout_all)
}

/// Ruma's request, once it is certain that there is a `type`: without one, ruma panics.
struct Login(login::v3::Request);

metadata_of!(Login: login::v3::Request);

impl IncomingRequest for Login {
    type EndpointError = <login::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = login::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let body: JsonObject = serde_json::from_slice(request.body())?;
        if !body.contains_key("type") {
            return Err(serde_json::Error::missing_field("type").into());
        }
        login::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login>
///
/// `m.login.token` with `get_login_token` is for logging in on one more device, and not for single sign-on.
async fn flows(_: App, _: Call<get_login_types::v3::Request>) -> ApiResult<get_login_types::v3::Response> {
    let mut token = TokenLoginType::new();
    token.get_login_token = true;
    let flows = vec![LoginType::Password(PasswordLoginType::new()), LoginType::Token(token)];
    Ok(get_login_types::v3::Response::new(flows))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login>
///
/// `M_FORBIDDEN` alike for a user who does not exist and a password that is wrong. A locked account is refused only
/// after its password was right.
async fn login(app: App, call: Call<Login>) -> ApiResult<login::v3::Response> {
    let request = call.request.0;
    let new = NewSession {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refreshable: request.refresh_token,
        address: call.address,
    };
    let session = match request.login_info {
        LoginInfo::Password(password) => {
            let name = name_of(&password)?;
            // Before the password is verified, which costs far more than to count.
            let guess = count_guess(&app, name, call.address).await?;
            let session = app.accounts.login_with_password(name, &password.password, new).await?;
            app.rate_limits.was_right(guess).await;
            session
        }
        LoginInfo::Token(token) => app.accounts.login_with_token(&token.token, new).await?,
        LoginInfo::ApplicationService(_) => {
            return Err(Error::forbidden("This server knows no application service with this token").into());
        }
        _ => {
            let message = "This server has no such way to log in: GET /login lists those that it has";
            return Err(Error::refused(ErrorKind::Unknown, message).into());
        }
    };
    let mut response = login::v3::Response::new(session.user_id, session.access_token, session.device_id);
    response.refresh_token = session.refresh_token;
    response.expires_in = session.expires_in;
    // Comes with every login, because a client may have been started with another address than the operator's.
    let base_url = app.discovery.client_base_url.clone();
    response.well_known = base_url.map(|base_url| DiscoveryInfo::new(HomeserverInfo::new(base_url)));
    Ok(response)
}

/// Counts a guess at somebody's password, whether there is an account with their name or not.
pub(super) async fn count_guess(app: &App, name: LoginIdentifier<'_>, address: IpAddr) -> Result<Guess> {
    let guessed = match name {
        LoginIdentifier::User(name) => app.accounts.meant(name).map(GuessedName::User),
        LoginIdentifier::Email(email) => EmailAddress::parse(email).ok().map(GuessedName::Email),
    };
    // Nobody has what is no name.
    let Some(guessed) = guessed else { return Ok(Guess::default()) };
    let seen_at = app.accounts.list_seen_addresses(name).await?;
    app.rate_limits.check_guess(&guessed, address, &seen_at).await
}

/// Whom the client names, today's way or that of old.
#[expect(deprecated, reason = "old clients send the name as `user`, or as `medium` and `address`")]
fn name_of(password: &Password) -> Result<LoginIdentifier<'_>> {
    if let Some(identifier) = &password.identifier {
        let unknown = || Error::forbidden("No account has such an address: log in with the user name");
        return LoginIdentifier::of(identifier).ok_or_else(unknown);
    }
    match (&password.user, password.medium.as_deref(), &password.address) {
        (Some(user), ..) => Ok(LoginIdentifier::User(user)),
        (None, Some("email"), Some(address)) => Ok(LoginIdentifier::Email(address)),
        _ => Err(Error::refused(ErrorKind::MissingParam, "Who logs in? There is no identifier")),
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token>
///
/// The password is asked for again: whoever finds an unlocked phone could otherwise log in for good.
async fn create_login_token(
    app: App,
    call: Call<Interactive<get_login_token::v1::Request>>,
) -> ApiResult<get_login_token::v1::Response> {
    call.request.confirm_password(&app, "get_login_token", &call.caller, call.address).await?;
    let token = app.accounts.create_login_token(&call.caller.user_id, &call.caller.device_id).await?;
    Ok(get_login_token::v1::Response::new(LOGIN_TOKEN_LIFETIME, token))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh>
///
/// The old refresh token is good until the new access token is used, so that a lost answer locks nobody out.
async fn refresh(app: App, call: Call<refresh_token::v3::Request>) -> ApiResult<refresh_token::v3::Response> {
    match app.accounts.find_refreshing(&call.request.refresh_token).await? {
        Some(user_id) => app.rate_limits.check_user(Limit::Lookup, REFRESH, &user_id).await?,
        None => app.rate_limits.check_address(Limit::Lookup, 1, call.address).await?,
    }
    let Session { access_token, refresh_token, expires_in, .. } =
        app.accounts.refresh(&call.request.refresh_token).await?;
    let mut response = refresh_token::v3::Response::new(access_token);
    response.refresh_token = refresh_token;
    response.expires_in_ms = expires_in;
    Ok(response)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout>
///
/// The device goes with its tokens.
async fn logout(app: App, call: Call<logout::v3::Request>) -> ApiResult<logout::v3::Response> {
    app.accounts.logout(&call.caller).await?;
    Ok(logout::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall>
async fn logout_all(app: App, call: Call<logout_all::v3::Request>) -> ApiResult<logout_all::v3::Response> {
    app.accounts.logout_all(&call.caller.user_id).await?;
    Ok(logout_all::v3::Response::new())
}
