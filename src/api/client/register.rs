//! Registration.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-registration-and-management>

use std::net::IpAddr;

use axum::Router;
use ruma::{
    UserId,
    api::{
        IncomingRequest,
        client::{
            account::{
                check_registration_token_validity, get_username_availability,
                register::{self, RegistrationKind},
            },
            uiaa::AuthType,
        },
        error::{DeserializationError, ErrorKind},
    },
    serde::JsonObject,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    account::{NewSession, Registration, Session},
    api::{
        error::ApiResult,
        extract::Call,
        interactive::Interactive,
        json::{Json, Written},
        own::metadata_of,
        route::Routes as _,
    },
    app::App,
    config::RegistrationMode,
    error::Error,
    rate_limit::Limit,
    terms::Terms,
    threepid::Operation,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<Written<Register>, _, _>(register)
        .endpoint::<get_username_availability::v3::Request, _, _>(available)
        .endpoint::<check_registration_token_validity::v1::Request, _, _>(token_validity)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>
async fn register(app: App, call: Call<Written<Register>>) -> ApiResult<Json> {
    let interactive = match call.request.0 {
        Register::User(interactive) => interactive,
        Register::Guest(guest) => return register_guest(&app, guest, call.address).await,
    };
    let request = &interactive.request;
    app.accounts.check_registration_enabled()?;
    let limit = if interactive.auth.is_some() { Limit::Registration } else { Limit::Challenge };
    app.rate_limits.check_address(limit, call.address).await?;
    let user_id = match (&request.username, &request.guest_access_token) {
        (Some(username), Some(token)) => app.accounts.check_guest(username, token).await?,
        (None, Some(_)) => {
            let message = "A guest who registers says in `username` how they are called already";
            return Err(Error::refused(ErrorKind::MissingParam, message).into());
        }
        (Some(username), None) => app.accounts.check_username(username).await?,
        (None, None) => app.accounts.generate_user_id()?,
    };
    // Looked at before a stage is completed, so that nobody has to complete it twice for this.
    if interactive.auth.is_some() {
        let password = request.password.as_deref();
        let missing = || Error::refused(ErrorKind::MissingParam, "An account needs a password");
        app.accounts.check_password(password.ok_or_else(missing)?)?;
    }
    let stages = stages(app.accounts.registration_mode(), &app.terms, app.config.registration.require_email);
    let passed = interactive.complete(&app, Operation::Register.as_str(), &stages).await?;
    let session = (!request.inhibit_login).then(|| NewSession {
        device_id: request.device_id.clone(),
        display_name: request.initial_device_display_name.clone(),
        refreshable: request.refresh_token,
        address: call.address,
    });
    let registration = Registration {
        user_id: user_id.clone(),
        password: request.password.as_deref().unwrap_or_default(),
        admin: false,
        token: passed.registration_token.as_deref(),
        terms: Some(&app.terms),
        proof: passed.proof.as_ref(),
        session,
    };
    let session = match &request.guest_access_token {
        Some(token) => app.accounts.upgrade_guest(token, registration).await?,
        None => app.accounts.register(registration).await?,
    };
    Ok(Json::from(Value::from(answer(&user_id, session))))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#guest-access>
async fn register_guest(app: &App, guest: Guest, address: IpAddr) -> ApiResult<Json> {
    app.accounts.check_guests_welcome()?;
    app.rate_limits.check_address(Limit::Registration, address).await?;
    let session =
        NewSession { device_id: None, display_name: guest.initial_device_display_name, refreshable: false, address };
    let session = app.accounts.register_guest(session).await?;
    let user_id = session.user_id.clone();
    Ok(Json::from(Value::from(answer(&user_id, Some(session)))))
}

/// A registration of either kind.
enum Register {
    User(Box<Interactive<register::v3::Request>>),
    Guest(Guest),
}

/// All that is read of a guest's registration: the rest is ignored, whatever it is.
#[derive(Deserialize)]
struct Guest {
    initial_device_display_name: Option<String>,
}

metadata_of!(Register: register::v3::Request);

impl IncomingRequest for Register {
    type EndpointError = <register::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = register::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        // Without the body, since of a guest's hardly anything is to be read.
        let (parts, body) = request.into_parts();
        let query = http::Request::from_parts(parts.clone(), b"{}".as_slice());
        match register::v3::Request::try_from_http_request_inner(query, path_args)?.kind {
            RegistrationKind::Guest => Ok(Self::Guest(serde_json::from_slice(body)?)),
            _ => Interactive::try_from_http_request_inner(http::Request::from_parts(parts, body), path_args)
                .map(|user| Self::User(Box::new(user))),
        }
    }
}

/// A stage at which nothing has to be shown is only for those who have nothing else to do.
fn stages(mode: RegistrationMode, terms: &Terms, require_email: bool) -> Vec<AuthType> {
    let token = (mode == RegistrationMode::Token).then_some(AuthType::RegistrationToken);
    let terms = (!terms.is_empty()).then_some(AuthType::Terms);
    let email = require_email.then_some(AuthType::EmailIdentity);
    let stages: Vec<_> = token.into_iter().chain(terms).chain(email).collect();
    if stages.is_empty() { vec![AuthType::Dummy] } else { stages }
}

/// Ruma's type would say `null` for a device that was not asked for.
pub(super) fn answer(user_id: &UserId, session: Option<Session>) -> JsonObject {
    let mut answer = JsonObject::from_iter([("user_id".to_owned(), json!(user_id))]);
    if let Some(session) = session {
        answer.insert("device_id".to_owned(), json!(session.device_id));
        answer.insert("access_token".to_owned(), json!(session.access_token));
        if let (Some(token), Some(expires_in)) = (session.refresh_token, session.expires_in) {
            answer.insert("refresh_token".to_owned(), json!(token));
            answer.insert("expires_in_ms".to_owned(), json!(expires_in.as_millis()));
        }
    }
    answer
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable>
async fn available(
    app: App,
    call: Call<get_username_availability::v3::Request>,
) -> ApiResult<get_username_availability::v3::Response> {
    app.accounts.check_registration_enabled()?;
    app.rate_limits.check_address(Limit::Challenge, call.address).await?;
    app.accounts.check_username(&call.request.username).await?;
    Ok(get_username_availability::v3::Response::new(true))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity>
async fn token_validity(
    app: App,
    call: Call<check_registration_token_validity::v1::Request>,
) -> ApiResult<check_registration_token_validity::v1::Response> {
    app.accounts.check_registration_enabled()?;
    app.rate_limits.check_address(Limit::Registration, call.address).await?;
    let valid = app.accounts.is_registration_token_usable(&call.request.token).await?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}
