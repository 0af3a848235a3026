//! Registration.
//!
//! Everything is sent to one endpoint several times: first to learn the flows, then with each stage, last with the
//! stage that completes one. What was asked for is kept with the session, because many clients say it only once. The
//! account is made by the last request alone, in one transaction.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-registration-and-management>

use std::net::IpAddr;

use ruma::{
    OwnedDeviceId, OwnedUserId, UserId,
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

use super::login::count_guess;
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        interactive::Interactive,
        json::{AsJson, Json},
        own::metadata_of,
        route::Endpoints,
    },
    app::App,
    config::{RegistrationMode, terms::Terms},
    error::Error,
    people::{
        account::{
            Confirmation, LoginIdentifier, NewSession, Registration, RegistrationRequest, Repetition, RequestedDevice,
            Session,
        },
        rate_limit::{Guess, Limit},
        threepid::Operation,
        uia::Flow,
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<Register>, _, _>(register)
        .endpoint::<get_username_availability::v3::Request, _, _>(available)
        .endpoint::<check_registration_token_validity::v1::Request, _, _>(token_validity)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>
async fn register(app: App, call: Call<AsJson<Register>>) -> ApiResult<Json> {
    let interactive = match call.request.0 {
        Register::User(interactive) => interactive,
        Register::Guest(guest) => return register_guest(&app, guest, call.address).await,
    };
    app.accounts.check_registration_enabled()?;
    // Asking for the flows is allowed more often than trying to complete one.
    let limit = if interactive.auth.is_some() { Limit::Registration } else { Limit::Challenge };
    app.rate_limits.check_address(limit, 1, call.address).await?;
    // Before the request is judged: the name that it asks for is in use by then, by the account that it made.
    if let Some(answer) = answer_again(&app, &interactive, call.address).await? {
        return Ok(answer);
    }
    match register_anew(&app, &interactive, call.address).await {
        // Of requests that end a session at once, the slower ones are answered like one that comes later.
        Err(refused) => answer_again(&app, &interactive, call.address).await?.ok_or(refused),
        made => made,
    }
}

async fn register_anew(app: &App, interactive: &Interactive<RegisterBody>, address: IpAddr) -> ApiResult<Json> {
    // Judged before a stage is completed, and again by the database: the name may be taken in between.
    let (asked, user_id) = read(app, interactive).await?;
    let flows = flows(app.accounts.registration_mode(), &app.terms, app.config.registration.require_email);
    let passed = interactive.complete(app, Operation::Register.as_str(), &flows, &asked.to_json()?, address).await?;
    let with_password = interactive.request.password.is_some();
    // None where the first request completed a flow: nothing is noted then by which it could be sent again.
    let session_id = passed.session_id.as_deref();
    let registration = Registration {
        user_id: user_id.clone(),
        password_hash: asked.password_hash.clone().ok_or_else(no_password)?,
        admin: false,
        token: passed.registration_token.as_deref(),
        terms: Some(&app.terms),
        proof: passed.proof.as_ref(),
        session: asked.session(address),
        confirmed_in: session_id.map(|session_id| Confirmation { session_id, with_password }),
    };
    let session = match &asked.guest {
        Some(token) => app.accounts.upgrade_guest(token, registration).await?,
        None => app.accounts.register(registration).await?,
    };
    Ok(Json::from(Value::from(answer(&user_id, session))))
}

/// What somebody asks for, now or earlier in this session, and how they will be called. It is looked at before a stage
/// is completed, so that nobody has to complete it twice for this.
async fn read(app: &App, interactive: &Interactive<RegisterBody>) -> ApiResult<(RegistrationRequest, OwnedUserId)> {
    let Interactive { request: body, .. } = interactive;
    let device = RequestedDevice {
        device_id: body.device_id.clone(),
        display_name: body.initial_device_display_name.clone(),
        inhibit_login: body.inhibit_login,
        refreshable: body.refresh_token,
    };
    let mut asked = RegistrationRequest::new(body.username.clone(), body.guest_access_token.as_deref(), device)?;
    let earlier = match interactive.session_id() {
        Some(session_id) => app.uia.find_request(Operation::Register.as_str(), session_id).await?,
        None => None,
    };
    // Whoever goes on with a session that is over begins again.
    let begins = earlier.is_none() && interactive.session_id().is_some();
    if let Some(earlier) = earlier {
        asked = asked.or(RegistrationRequest::from_json(&earlier)?);
    }
    let user_id = match (&asked.username, &asked.guest) {
        (Some(username), Some(token)) => app.accounts.check_guest(username, token).await?,
        (None, Some(_)) => {
            let message = "A guest who registers says in `username` how they are called already";
            return Err(Error::refused(ErrorKind::MissingParam, message).into());
        }
        (Some(username), None) => app.accounts.check_username(username).await?,
        (None, None) => app.accounts.generate_user_id()?,
    };
    if let Some(password) = &body.password {
        // To hash takes long by intent. Kept with the session, the hash is only compared when the password comes again.
        let known = asked.password_hash.take();
        asked.password_hash = Some(app.accounts.hash_password_once(password, known).await?);
    }
    if interactive.auth.is_some() && !begins && asked.password_hash.is_none() {
        return Err(no_password().into());
    }
    Ok((asked, user_id))
}

fn no_password() -> Error {
    Error::refused(ErrorKind::MissingParam, "An account needs a password")
}

/// The answer to a request that was finished before and is sent again, if it is the same by somebody who is the same.
async fn answer_again(app: &App, interactive: &Interactive<RegisterBody>, address: IpAddr) -> ApiResult<Option<Json>> {
    let Some(session_id) = interactive.session_id() else { return Ok(None) };
    let Some(user_id) = app.accounts.find_registered(session_id).await? else { return Ok(None) };
    let body = &interactive.request;
    // Whoever guesses at the session of a stranger guesses at their password here.
    let guess = match &body.password {
        Some(_) => count_guess(app, LoginIdentifier::User(user_id.as_str()), address).await?,
        None => Guess::default(),
    };
    let again = Repetition {
        session_id,
        username: body.username.as_deref(),
        password: body.password.as_deref(),
        device_id: body.device_id.as_deref(),
        inhibit_login: body.inhibit_login,
        address,
    };
    let made = app.accounts.register_again(&again).await?;
    if made.is_some() {
        app.rate_limits.was_right(guess).await;
    }
    Ok(made.map(|(user_id, session)| Json::from(Value::from(answer(&user_id, session)))))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#guest-access>
async fn register_guest(app: &App, guest: GuestBody, address: IpAddr) -> ApiResult<Json> {
    app.accounts.check_guests_welcome()?;
    app.rate_limits.check_address(Limit::Registration, 1, address).await?;
    let session =
        NewSession { device_id: None, display_name: guest.initial_device_display_name, refreshable: false, address };
    let session = app.accounts.register_guest(session).await?;
    let user_id = session.user_id.clone();
    Ok(Json::from(Value::from(answer(&user_id, Some(session)))))
}

/// A registration of either kind.
enum Register {
    /// `kind=user`, with a password and whatever stages the operator wants.
    User(Box<Interactive<RegisterBody>>),
    /// `kind=guest`, with neither.
    Guest(GuestBody),
}

/// Ruma's request, but with a difference between what is not said and what is refused.
///
/// `None` is what the request does not say: what an earlier request of the session has said holds then.
#[derive(Deserialize)]
struct RegisterBody {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    inhibit_login: Option<bool>,
    refresh_token: Option<bool>,
    guest_access_token: Option<String>,
}

metadata_of!(RegisterBody: register::v3::Request);

impl IncomingRequest for RegisterBody {
    type EndpointError = <register::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = register::v3::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(serde_json::from_slice(request.body())?)
    }
}

/// All that is read of a guest's registration: the rest is ignored, whatever it is.
#[derive(Deserialize)]
struct GuestBody {
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

/// The only way there is to register on this server. A stage at which nothing has to be shown is only for those who
/// have nothing else to do.
///
/// The order of the stages is the one in which clients show them: whoever lacks a token need not prove an address.
fn flows(mode: RegistrationMode, terms: &Terms, require_email: bool) -> [Flow; 1] {
    let token = (mode == RegistrationMode::Token).then_some(AuthType::RegistrationToken);
    let terms = (!terms.is_empty()).then_some(AuthType::Terms);
    let email = require_email.then_some(AuthType::EmailIdentity);
    let stages: Flow = token.into_iter().chain(terms).chain(email).collect();
    [if stages.is_empty() { vec![AuthType::Dummy] } else { stages }]
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
///
/// A name may be taken between this answer and the registration, which is refused then.
async fn available(
    app: App,
    call: Call<get_username_availability::v3::Request>,
) -> ApiResult<get_username_availability::v3::Response> {
    app.accounts.check_registration_enabled()?;
    app.rate_limits.check_address(Limit::Challenge, 1, call.address).await?;
    app.accounts.check_username(&call.request.username).await?;
    Ok(get_username_availability::v3::Response::new(true))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity>
///
/// Each question counts as a registration, because it is a guess at a token. The token is not used up.
async fn token_validity(
    app: App,
    call: Call<check_registration_token_validity::v1::Request>,
) -> ApiResult<check_registration_token_validity::v1::Response> {
    app.accounts.check_registration_enabled()?;
    app.rate_limits.check_address(Limit::Registration, 1, call.address).await?;
    let valid = app.accounts.is_registration_token_usable(&call.request.token).await?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}
