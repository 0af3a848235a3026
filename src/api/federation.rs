//! What others than clients ask this server. It does not federate yet: only that it confirms who somebody is.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#openid>

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{StatusCode, header::CONTENT_TYPE};
use ruma::api::error::{ErrorKind, UnknownTokenErrorData};
use serde_json::json;

use super::{
    auth::find_token,
    error::{ApiError, ApiResult},
};
use crate::{app::App, error::Error};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.route("/_matrix/federation/v1/openid/userinfo", get(openid_userinfo))
}

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo>
async fn openid_userinfo(State(app): State<App>, request: Request) -> Response {
    match userinfo(&app, request).await {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn userinfo(app: &App, request: Request) -> ApiResult<String> {
    let missing = || Error::refused(ErrorKind::MissingToken, "The parameter `access_token` is missing");
    let token = find_token(&request.into_parts().0)?.ok_or_else(missing)?;
    let user_id = app.accounts.find_openid_user(&token).await?.ok_or_else(|| {
        let message = "The token is not one of this server, or has expired".to_owned();
        ApiError::Status(StatusCode::UNAUTHORIZED, ErrorKind::UnknownToken(UnknownTokenErrorData::new()), message)
    })?;
    Ok(json!({ "sub": user_id }).to_string())
}
