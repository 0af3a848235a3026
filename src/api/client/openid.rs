//! Proving to others who one is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#openid>

use axum::Router;
use ruma::{
    api::client::account::request_openid_token::v3::{Request, Response},
    authentication::TokenType,
};

use crate::{
    account::OPENID_TOKEN_LIFETIME,
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    error::Error,
    rate_limit::Limit,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(request_token)
}

async fn request_token(app: App, call: Call<Request>) -> ApiResult<Response> {
    if call.request.user_id != call.caller.user_id {
        return Err(Error::forbidden("You can't prove to be somebody else").into());
    }
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let token = app.accounts.create_openid_token(&call.caller.user_id).await?;
    Ok(Response::new(token, TokenType::Bearer, app.server_name.clone(), OPENID_TOKEN_LIFETIME))
}
