//! Who is calling, as a type: an endpoint that needs a token can't be reached without one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-authentication>

use std::{convert::Infallible, future::Future, net::IpAddr};

use http::request::Parts;
use ruma::api::{
    auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme, NoAccessToken,
        NoAuthentication, extract_bearer_or_query_token,
    },
    error::ErrorKind,
};

use super::{error::ApiResult, guest, restriction::OpenTo};
use crate::{account::Caller, app::App, error::Error, telemetry::Visitor};

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
        app.admit(parts, &token, address).await
    }
}

impl Authenticate for AccessTokenOptional {
    type Caller = Option<Caller>;

    async fn authenticate(app: &App, parts: &Parts, address: IpAddr) -> ApiResult<Option<Caller>> {
        match find_token(parts)? {
            Some(token) => app.admit(parts, &token, address).await.map(Some),
            None => Ok(None),
        }
    }
}

/// There are no application services yet: whoever comes with a token is somebody else.
impl Authenticate for AppserviceToken {
    type Caller = Infallible;

    async fn authenticate(app: &App, parts: &Parts, address: IpAddr) -> ApiResult<Infallible> {
        let caller = AccessToken::authenticate(app, parts, address).await?;
        let message = format!("Only application services can do this, and {} is none", caller.user_id);
        Err(Error::forbidden(message).into())
    }
}

/// There are no application services yet: whoever comes is nobody in particular.
impl Authenticate for AppserviceTokenOptional {
    type Caller = ();

    async fn authenticate(_: &App, _: &Parts, _: IpAddr) -> ApiResult<()> {
        Ok(())
    }
}

impl App {
    /// The holder of a token, if the endpoint is open to their account as it stands.
    async fn admit(&self, parts: &Parts, token: &str, address: IpAddr) -> ApiResult<Caller> {
        self.present(parts).await?;
        let caller = self.accounts.caller(token, address).await?;
        if let Some(visitor) = parts.extensions.get::<Visitor>() {
            visitor.is(&caller.user_id);
        }
        guest::check(&caller, &parts.method, parts.uri.path())?;
        OpenTo::check(parts, &caller)?;
        Ok(caller)
    }

    /// Makes sure that this node knows what its caller knows: another node may have answered them a moment ago.
    ///
    /// A sync that waits for news is told of everything as it comes, and is to cost the database nothing.
    async fn present(&self, parts: &Parts) -> ApiResult<()> {
        let waits = || parts.uri.path().ends_with("/sync") && parts.uri.query().is_some_and(waits_for_news);
        if waits() { Ok(()) } else { self.catch_up().await }
    }

    /// The same for what anybody may ask, and is answered from memory.
    pub(crate) async fn catch_up(&self) -> ApiResult<()> {
        if !self.nodes.is_alone() {
            self.log.refresh().await?;
        }
        Ok(())
    }
}

/// Whether these are the parameters of a `/sync` that goes on from a token and does not want an answer at once.
fn waits_for_news(query: &str) -> bool {
    let is_set = |name: &str, at_once: &str| {
        let mut values = query.split('&').filter_map(|part| part.split_once('=')).filter(|(key, _)| *key == name);
        values.next().is_some_and(|(_, value)| value != at_once)
    };
    is_set("since", "") && is_set("timeout", "0") && !is_set("full_state", "false")
}

/// For endpoints that take a token or something in its place, which this server does not know yet.
pub(crate) fn required(caller: Option<Caller>) -> ApiResult<Caller> {
    Ok(caller.ok_or_else(missing_token)?)
}

fn missing_token() -> Error {
    Error::refused(ErrorKind::MissingToken, "This needs an access token: log in and send it as Bearer token")
}

/// The token in the header or, as old clients send it, in the query.
pub(super) fn find_token(parts: &Parts) -> ApiResult<Option<String>> {
    let mut request = http::Request::builder().uri(parts.uri.clone()).body(()).map_err(Error::broken)?;
    request.headers_mut().clone_from(&parts.headers);
    extract_bearer_or_query_token(&request).map_err(|e| {
        Error::refused(ErrorKind::MissingToken, format!("The Authorization header can't be read: {e}")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_waits_if_it_has_something_to_go_on_from_and_time() {
        for query in ["since=s7&timeout=30000", "timeout=1&since=s7&filter=0", "since=s7&timeout=1&full_state=false"] {
            assert!(waits_for_news(query), "{query}");
        }
        for query in ["", "since=s7", "since=s7&timeout=0", "timeout=30000", "since=s7&timeout=30000&full_state=true"] {
            assert!(!waits_for_news(query), "{query}");
        }
    }
}
