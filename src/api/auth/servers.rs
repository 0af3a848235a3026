//! Other servers, known by the signature of what they send.
//!
//! The head of a request says which server sends it and with which key it is signed. The signature covers the body too, so
//! until that is there it is only a claim. The key is had before the body is read: whoever has none here has nothing read.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

#[cfg(test)]
mod tests;
mod x_matrix;

use std::net::IpAddr;

use http::{Method, request::Parts, uri::PathAndQuery};
use ruma::{
    OwnedServerName, ServerName, SigningKeyAlgorithm, UserId, api::error::ErrorKind, serde::Base64,
    signatures::verify_canonical_json_bytes,
};
use serde_json::{Value, json};

use self::x_matrix::Credentials;
use crate::{
    api::{
        endpoint::{Callers, Rules},
        error::ApiResult,
    },
    app::App,
    error::Error,
    federation::{check::CALLS_ITSELF, server_keys::VerifyError},
    people::{account::Pace, rate_limit::Limit},
};

/// Other servers.
pub(crate) struct Servers;

/// Another server, which has signed its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteServer {
    pub(crate) name: OwnedServerName,
}

/// What the head of a request says, which the body has to prove.
#[derive(Debug)]
pub(crate) struct SignedHead {
    origin: OwnedServerName,
    /// Of those that there may be, each with the key that it is to be checked with.
    signatures: Vec<(Base64, Base64)>,
    method: Method,
    /// Path and query as they were sent.
    uri: String,
    /// This server.
    destination: OwnedServerName,
}

impl Callers for Servers {
    type Claim = SignedHead;
    type Caller = RemoteServer;

    async fn judge_head(app: &App, parts: &Parts, address: IpAddr, _: &Rules) -> ApiResult<SignedHead> {
        check_federates(app)?;
        let credentials = x_matrix::read(&parts.headers).map_err(unauthorized)?;
        let origin = check_parties(&credentials, &app.server_name)?.clone();
        if !app.config.federation.allows(&origin) {
            return Err(Error::forbidden(format!("This server has nothing to do with {origin}")).into());
        }
        app.catch_up().await?;
        let signatures = app.find_keys(&origin, credentials, address).await?;
        let uri = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let (method, destination) = (parts.method.clone(), app.server_name.clone());
        Ok(SignedHead { origin, signatures, method, uri, destination })
    }

    fn judge_body(claim: SignedHead, body: &[u8]) -> ApiResult<RemoteServer> {
        let signed = claim.signed_json(body)?;
        let is_good = |(key, signature): &(Base64, Base64)| {
            let (key, signature) = (key.as_bytes(), signature.as_bytes());
            verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, key, signature, &signed).is_ok()
        };
        // One is enough, as for events.
        if claim.signatures.iter().any(is_good) {
            return Ok(RemoteServer { name: claim.origin });
        }
        Err(unauthorized(format!("The request is not signed by {}", claim.origin)).into())
    }

    fn has_changed(_: &SignedHead) -> bool {
        false
    }

    fn sender(_: &SignedHead) -> Option<&UserId> {
        None
    }

    fn account(_: &RemoteServer) -> Option<(&UserId, Pace)> {
        None
    }

    fn server(caller: &RemoteServer) -> Option<&ServerName> {
        Some(&caller.name)
    }

    fn rules(method: &Method) -> Rules {
        Rules::of(method).per_server(Limit::Server)
    }
}

impl SignedHead {
    /// What the signature is of: canonical JSON, but for numbers in the body, which are written as JSON allows. Somebody may
    /// send what is not canonical to a device, and a server that has signed it must not be shut out for that.
    fn signed_json(&self, body: &[u8]) -> ApiResult<Vec<u8>> {
        let mut signed = json!({
            "method": self.method.as_str(),
            "uri": self.uri,
            "origin": self.origin,
            "destination": self.destination,
        });
        let has_body = !body.is_empty() && ![Method::GET, Method::HEAD].contains(&self.method);
        if let Some(signed) = signed.as_object_mut().filter(|_| has_body) {
            let content: Value = serde_json::from_slice(body)
                .map_err(|e| Error::refused(ErrorKind::NotJson, format!("The request body is not JSON: {e}")))?;
            signed.insert("content".to_owned(), content);
        }
        // Objects are written in the order of their keys.
        Ok(serde_json::to_vec(&signed).map_err(Error::broken)?)
    }
}

impl App {
    /// The signatures that can be checked, each behind its key. A key that is not known here is fetched, which a stranger
    /// pays for: they may claim to be whom they like.
    async fn find_keys(
        &self,
        origin: &ServerName,
        credentials: Vec<Credentials>,
        address: IpAddr,
    ) -> ApiResult<Vec<(Base64, Base64)>> {
        let mut found = Vec::new();
        for one in &credentials {
            let key = self.server_keys.find_request_key(origin, &one.key_id).await?;
            found.extend(key.map(|key| (key, one.signature.clone())));
        }
        if !found.is_empty() {
            return Ok(found);
        }
        self.rate_limits.check_address(Limit::Lookup, 1, address).await?;
        let mut refusal = None;
        for one in credentials {
            match self.server_keys.request_key(origin, &one.key_id).await {
                Ok(key) => found.push((key, one.signature)),
                Err(VerifyError::Invalid(reason)) => refusal = Some(reason),
                Err(VerifyError::KeysUnavailable(reason)) => {
                    tracing::info!(%origin, reason, "a server's request could not be verified");
                    // Why that is concerns the operator of this server alone.
                    refusal = Some(format!("The keys of {origin} can't be fetched at present"));
                }
            }
        }
        match refusal {
            Some(refusal) if found.is_empty() => Err(unauthorized(refusal).into()),
            _ => Ok(found),
        }
    }
}

/// 403 where this server has nothing to do with any other.
pub(crate) fn check_federates(app: &App) -> ApiResult<()> {
    if app.config.federation.enabled {
        return Ok(());
    }
    Err(Error::forbidden("This server does not federate").into())
}

/// Who sends it, if it is for this server. All headers of a request name one sender.
fn check_parties<'a>(credentials: &'a [Credentials], here: &ServerName) -> ApiResult<&'a OwnedServerName> {
    let no_header = "This needs an Authorization header of a server, with the scheme X-Matrix";
    let first = credentials.first().ok_or_else(|| unauthorized(no_header))?;
    for one in credentials {
        if one.origin != first.origin {
            return Err(unauthorized("The Authorization headers are of several servers").into());
        }
        if one.destination.as_deref().is_some_and(|destination| destination != here.as_str()) {
            return Err(unauthorized(format!("The request is not for {here}")).into());
        }
    }
    if *first.origin == *here {
        return Err(unauthorized(CALLS_ITSELF).into());
    }
    Ok(&first.origin)
}

/// 401 with `M_UNAUTHORIZED`.
fn unauthorized(message: impl Into<String>) -> Error {
    Error::refused(ErrorKind::Unauthorized, message)
}
