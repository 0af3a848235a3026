//! Proving to others who one is.
//!
//! Identity servers and widgets are such others; they ask `api/federation/openid.rs` about the token.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#openid>

use ruma::{
    api::client::account::request_openid_token::v3::{Request, Response},
    authentication::TokenType,
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
    people::account::OPENID_TOKEN_LIFETIME,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(request_token)
}

async fn request_token(app: App, call: Call<Request>) -> ApiResult<Response> {
    if call.request.user_id != call.caller.user_id {
        return Err(Error::forbidden("You can't prove to be somebody else").into());
    }
    let token = app.accounts.create_openid_token(&call.caller.user_id, &call.caller.device_id).await?;
    Ok(Response::new(token, TokenType::Bearer, app.server_name.clone(), OPENID_TOKEN_LIFETIME))
}
