//! What others than clients ask this server. It does not federate yet, and only confirms who somebody is.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#openid>

mod backfill;
mod event;
mod invite;
pub(super) mod join;
mod knock;
pub(super) mod leave;
mod missing_events;
mod pdus;
mod sent;
mod state;
mod third_party_invite;
mod timestamp;

use http::StatusCode;
use ruma::api::{
    auth_scheme::{NoAuthentication, extract_bearer_or_query_token},
    error::{ErrorKind, UnknownTokenErrorData},
};
use serde_json::json;

use super::{
    error::{ApiError, ApiResult},
    extract::Call,
    json::Json,
    own::own_request,
    route::Endpoints,
};
use crate::{app::App, error::Error};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    let endpoints = endpoints.endpoint(openid_userinfo);
    let endpoints = backfill::routes(endpoints);
    let endpoints = event::routes(endpoints);
    let endpoints = invite::routes(endpoints);
    let endpoints = join::routes(endpoints);
    let endpoints = knock::routes(endpoints);
    let endpoints = leave::routes(endpoints);
    let endpoints = missing_events::routes(endpoints);
    let endpoints = state::routes(endpoints);
    let endpoints = third_party_invite::routes(endpoints);
    timestamp::routes(endpoints)
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
