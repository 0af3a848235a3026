//! The client for addresses that a stranger names: it reaches what lies outside, on the public internet, and nothing
//! that only this machine or its network can reach.
//!
//! An address that is written as a number is checked before anything is sent, a name's addresses when a connection is
//! made, and it is made to what was checked. So a name that means another address the second time, as in DNS rebinding,
//! leads nowhere. Redirects are not followed here: whoever follows one asks anew, and each step is checked.
//!
//! Nor is anything sent to ports behind which something else than HTTP is expected, such as a mail server.
//!
//! There is no proxy in between: it would look names up itself. The networks of `allowed` may be asked all the same.

mod address;
mod border;
mod port;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    error::Error as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::{
    Certificate, Client, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

pub(crate) use self::border::{Border, CheckedNames, NothingOutside};
use crate::{
    config::IpBlock,
    edge::http_client::{self, Certificates, ClientOptions, HttpClientError},
};

/// How long a connection is kept that nothing goes over.
const IDLE: Duration = Duration::from_secs(10);

/// What one client asks with.
pub(crate) struct OutsideOptions {
    /// Whom it asks, for the log.
    pub(crate) whom: &'static str,
    pub(crate) user_agent: String,
    /// How long a connection may take, and how long the whole answer with its body.
    pub(crate) connect: Duration,
    pub(crate) answer: Duration,
    /// Networks that may be asked although they are not public.
    pub(crate) allowed: Vec<IpBlock>,
    /// Authorities whose certificates are believed beside those that the machine knows.
    pub(crate) authorities: Vec<Certificate>,
}

/// Asks servers outside. Cheap to clone.
#[derive(Clone)]
pub(crate) struct OutsideClient {
    http: Client,
    border: Arc<Border>,
}

/// One request, to one address.
pub(crate) struct OutsideRequest {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

impl OutsideRequest {
    pub(crate) fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None }
    }
}

/// An answer whose body is still to be read.
pub(crate) struct OutsideResponse {
    url: Url,
    response: Response,
}

/// Why there is no answer, or not all of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutsideError {
    /// Not to be told to whoever named the address: they would learn what there is in a network that they are not in.
    #[error("it has no address on the public internet")]
    Inside,
    #[error("it is no http: or https: address without a name and a password in it")]
    NotAnAddress,
    #[error("no HTTP is spoken on port {0}")]
    Port(u16),
    #[error("its answer took too long")]
    Slow,
    #[error("its answer is longer than {0} bytes")]
    TooLong(u64),
    #[error("{0}")]
    Failed(String),
}

impl OutsideClient {
    /// `names` says which addresses a name has: [`SystemNames`] but for tests.
    pub(crate) fn new(options: OutsideOptions, names: Arc<dyn Resolve>) -> Result<Self, HttpClientError> {
        let border = Border::new(options.allowed);
        let names = CheckedNames::new(names, Arc::clone(&border));
        let needs = ClientOptions {
            whom: options.whom,
            connect: options.connect,
            answer: options.answer,
            proxy: false,
            certificates: Certificates::Welcome,
        };
        let http = http_client::new_with(needs, |http| {
            let http = http.dns_resolver(Arc::clone(&names)).user_agent(options.user_agent.as_str());
            http.referer(false).pool_idle_timeout(IDLE).tls_certs_merge(options.authorities.iter().cloned())
        })?;
        Ok(Self { http, border })
    }

    /// Asks, and waits for the head of the answer. A redirect is an answer as well.
    pub(crate) async fn send(&self, request: OutsideRequest) -> Result<OutsideResponse, OutsideError> {
        let OutsideRequest { method, url, headers, body } = request;
        self.check(&url)?;
        let mut asking = self.http.request(method, url.clone()).headers(headers);
        if let Some(body) = body {
            asking = asking.body(body);
        }
        let response = asking.send().await.map_err(|error| OutsideError::of(&error))?;
        Ok(OutsideResponse { url, response })
    }

    /// An address that is a number is never looked up, so it is checked here, in whichever way it is written: the URL
    /// has been read by the rules of browsers, and `0x7f.1` is `127.0.0.1` in it.
    fn check(&self, url: &Url) -> Result<(), OutsideError> {
        let is_http = matches!(url.scheme(), "http" | "https");
        if !is_http || !url.username().is_empty() || url.password().is_some() {
            return Err(OutsideError::NotAnAddress);
        }
        if let Some(port) = url.port().filter(|port| !Border::lets_port(*port)) {
            return Err(OutsideError::Port(port));
        }
        let host = url.host_str().ok_or(OutsideError::NotAnAddress)?;
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !self.border.lets(address) => Err(OutsideError::Inside),
            _ => Ok(()),
        }
    }
}

impl OutsideResponse {
    /// Which address has answered.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Where it sends whoever asks. None where it does not, or to nowhere.
    pub(crate) fn redirect(&self) -> Option<Url> {
        let leads_on = matches!(
            self.status(),
            StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT
        );
        let location = self.headers().get(header::LOCATION).filter(|_| leads_on)?;
        self.url.join(std::str::from_utf8(location.as_bytes()).ok()?).ok()
    }

    /// The next piece of the body, None at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, OutsideError> {
        self.response.chunk().await.map_err(|error| OutsideError::of(&error))
    }

    /// All of the body, whatever length it is announced with.
    pub(crate) async fn whole(mut self, limit: usize) -> Result<Vec<u8>, OutsideError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len().saturating_add(chunk.len()) > limit {
                return Err(OutsideError::TooLong(u64::try_from(limit).unwrap_or(u64::MAX)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// As much of the body as comes within `limit` bytes. What comes after them is not read.
    pub(crate) async fn beginning(mut self, limit: usize) -> Result<Vec<u8>, OutsideError> {
        let mut body = Vec::new();
        while body.len() < limit
            && let Some(chunk) = self.chunk().await?
        {
            let wanted = chunk.len().min(limit - body.len());
            body.extend(chunk.iter().take(wanted));
        }
        Ok(body)
    }
}

impl OutsideError {
    fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Slow;
        }
        // The outermost names the address, which is nobody's business in a log.
        let mut reason = None;
        let mut cause = error.source();
        while let Some(inner) = cause {
            if inner.is::<NothingOutside>() {
                return Self::Inside;
            }
            reason = Some(inner.to_string());
            cause = inner.source();
        }
        Self::Failed(reason.unwrap_or_else(|| "it can't be reached".to_owned()))
    }
}

/// Names as the machine knows them.
pub(crate) struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
