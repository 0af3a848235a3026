//! Registration.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-registration-and-management>

use axum::Router;
use ruma::{
    UserId,
    api::{
        client::{
            account::{
                check_registration_token_validity, get_username_availability,
                register::{self, RegistrationKind},
            },
            uiaa::AuthType,
        },
        error::ErrorKind,
    },
    serde::JsonObject,
};
use serde_json::json;

use crate::{
    account::{NewSession, Registration, Session, check_password},
    api::{
        error::ApiResult,
        extract::Call,
        interactive::Interactive,
        json::{Json, Written},
        route::Routes as _,
    },
    app::App,
    config::RegistrationMode,
    error::Error,
    rate_limit::Limit,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<Written<Interactive<register::v3::Request>>, _, _>(register)
        .endpoint::<get_username_availability::v3::Request, _, _>(available)
        .endpoint::<check_registration_token_validity::v1::Request, _, _>(token_validity)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>
async fn register(app: App, call: Call<Written<Interactive<register::v3::Request>>>) -> ApiResult<Json> {
    let interactive = call.request.0;
    let request = &interactive.request;
    if request.kind == RegistrationKind::Guest {
        return Err(Error::refused(ErrorKind::GuestAccessForbidden, "This server has no guests: register").into());
    }
    app.accounts.check_registration_enabled()?;
    let limit = if interactive.auth.is_some() { Limit::Registration } else { Limit::Challenge };
    app.rate_limits.check_address(limit, call.address).await?;
    let user_id = match &request.username {
        Some(username) => app.accounts.check_username(username).await?,
        None => app.accounts.generate_user_id()?,
    };
    // Looked at before a stage is completed, so that nobody has to complete it twice for this.
    if interactive.auth.is_some() {
        let password = request.password.as_deref();
        check_password(
            password.ok_or_else(|| Error::refused(ErrorKind::MissingParam, "An account needs a password"))?,
        )?;
    }
    let passed = interactive.complete(&app, "register", stages(app.accounts.registration_mode())).await?;
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
        session,
    };
    let session = app.accounts.register(registration).await?;
    Ok(Json::from(serde_json::Value::from(answer(&user_id, session))))
}

fn stages(mode: RegistrationMode) -> &'static [AuthType] {
    match mode {
        RegistrationMode::Token => &[AuthType::RegistrationToken],
        RegistrationMode::Open | RegistrationMode::Closed => &[AuthType::Dummy],
    }
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
