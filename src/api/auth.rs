//! Who is calling, as a type: an endpoint that needs a token can't be reached without one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

use std::{future::Future, net::IpAddr};

use http::request::Parts;
use ruma::api::{
    auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken, NoAuthentication,
        extract_bearer_or_query_token,
    },
    error::ErrorKind,
};

use super::error::ApiResult;
use crate::{account::Caller, app::App, error::Error};

/// How an authentication scheme of the specification names its caller.
pub(crate) trait Authenticate: AuthScheme {
    type Caller: Send;

    fn authenticate(app: &App, parts: &Parts, address: IpAddr) -> impl Future<Output = ApiResult<Self::Caller>> + Send;
}

impl Authenticate for NoAuthentication {
    type Caller = ();

    async fn authenticate(_: &App, _: &Parts, _: IpAddr) -> ApiResult<()> {
        Ok(())
    }
}

impl Authenticate for NoAccessToken {
    type Caller = ();

    async fn authenticate(_: &App, _: &Parts, _: IpAddr) -> ApiResult<()> {
        Ok(())
    }
}

impl Authenticate for AccessToken {
    type Caller = Caller;

    async fn authenticate(app: &App, parts: &Parts, address: IpAddr) -> ApiResult<Caller> {
        let token = find_token(parts)?.ok_or_else(missing_token)?;
        Ok(app.accounts.caller(&token, address).await?)
    }
}

impl Authenticate for AccessTokenOptional {
    type Caller = Option<Caller>;

    async fn authenticate(app: &App, parts: &Parts, address: IpAddr) -> ApiResult<Option<Caller>> {
        match find_token(parts)? {
            Some(token) => Ok(Some(app.accounts.caller(&token, address).await?)),
            None => Ok(None),
        }
    }
}

/// There are no application services yet: whoever comes is nobody in particular.
impl Authenticate for AppserviceTokenOptional {
    type Caller = ();

    async fn authenticate(_: &App, _: &Parts, _: IpAddr) -> ApiResult<()> {
        Ok(())
    }
}

/// For endpoints that take a token or something in its place, which this server does not know yet.
pub(crate) fn required(caller: Option<Caller>) -> ApiResult<Caller> {
    Ok(caller.ok_or_else(missing_token)?)
}

fn missing_token() -> Error {
    Error::refused(ErrorKind::MissingToken, "This needs an access token: log in and send it as Bearer token")
}

/// The token in the header or, as old clients send it, in the query.
fn find_token(parts: &Parts) -> ApiResult<Option<String>> {
    let mut request = http::Request::builder().uri(parts.uri.clone()).body(()).map_err(Error::broken)?;
    request.headers_mut().clone_from(&parts.headers);
    extract_bearer_or_query_token(&request).map_err(|e| {
        Error::refused(ErrorKind::MissingToken, format!("The Authorization header can't be read: {e}")).into()
    })
}
