//! Proving to others than clients who somebody is: whoever has got a token of theirs asks about it here.
//!
//! Nobody has to be a server for that, and it goes on where this server does not federate.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#openid>

use http::StatusCode;
use ruma::api::{
    auth_scheme::{NoAuthentication, extract_bearer_or_query_token},
    error::{ErrorKind, UnknownTokenErrorData},
};
use serde_json::json;

use crate::{
    api::{
        error::{ApiError, ApiResult},
        extract::Call,
        json::Json,
        own::own_request,
        route::Endpoints,
    },
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(openid_userinfo)
}

own_request!(
    /// Who is it that has this token? It proves who somebody is, and not who asks.
    OpenIdUserInfo { token: Option<String> }: GET NoAuthentication path "/_matrix/federation/v1/openid/userinfo" -> Json,
    |request, _path| Ok(Self { token: extract_bearer_or_query_token(&request).unwrap_or_default() })
);

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo>
async fn openid_userinfo(app: App, call: Call<OpenIdUserInfo>) -> ApiResult<Json> {
    let missing = || Error::refused(ErrorKind::MissingToken, "The parameter `access_token` is missing");
    let token = call.request.token.ok_or_else(missing)?;
    let user_id = app.accounts.find_openid_user(&token).await?.ok_or_else(|| {
        let message = "The token is not one of this server, or has expired".to_owned();
        ApiError::Status(StatusCode::UNAUTHORIZED, ErrorKind::UnknownToken(UnknownTokenErrorData::new()), message)
    })?;
    Ok(Json::from(json!({ "sub": user_id })))
}
