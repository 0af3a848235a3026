//! Clients for HTTP servers elsewhere, all built alike: they wait for a bounded time and are sent on to nowhere.
//!
//! Redirects are not followed: the address that was checked is the one that is asked. A client without a bound would be
//! a way to hold up whoever waits for it.
//!
//! A client keeps connections open for its servers, so one is made for each purpose and shared, not one for each
//! request.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, redirect::Policy};

/// How one client differs from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientOptions {
    /// Whom it asks, for the log.
    pub(crate) whom: &'static str,
    /// How long a connection may take, and how long the whole answer.
    pub(crate) connect: Duration,
    pub(crate) answer: Duration,
    /// Whether it goes through the proxy that the environment names. Only for what lies outside: nodes reach each other
    /// directly.
    pub(crate) proxy: bool,
    pub(crate) certificates: Certificates,
}

/// What a client does with the certificates of authorities that a machine has. Small images have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificates {
    /// It only speaks plain HTTP, and does not look for them. For addresses that are all `http://`, where reading the
    /// machine's certificates would cost time and memory for nothing.
    Unused,
    /// Without them it only speaks plain HTTP, and says so in the log.
    Welcome,
    /// Without them there is no client: the addresses that it is for need TLS.
    Required,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpClientError {
    /// The machine has none, or none that can be read; plain HTTP would work.
    #[error(
        "this machine has no certificates of authorities (the package is often called ca-certificates), without which \
         {whom} are reached by http:// only: {reason}"
    )]
    NoCertificates { whom: &'static str, reason: reqwest::Error },
    /// Not even a client without certificates could be made.
    #[error("no HTTP client could be made: {0}")]
    Other(#[from] reqwest::Error),
}

/// Reads the certificates of the machine, so clients are made once, at start.
pub(crate) fn new(needs: ClientOptions) -> Result<Client, HttpClientError> {
    new_with(needs, |http| http)
}

/// As [`new`], with what one client has for itself.
pub(crate) fn new_with(
    needs: ClientOptions,
    own: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, HttpClientError> {
    let builder = |needs| own(builder(needs));
    // Whoever comes second finds the same one in its place.
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap_or_else(drop);
    // An empty list of authorities keeps the library from looking for the machine's own.
    let plain = || builder(needs).tls_certs_only([]).build();
    if needs.certificates == Certificates::Unused {
        return Ok(plain()?);
    }
    builder(needs).build().or_else(|reason| {
        // If this fails as well, certificates are not the reason.
        let http = plain()?;
        let missing = HttpClientError::NoCertificates { whom: needs.whom, reason };
        if needs.certificates == Certificates::Required {
            return Err(missing);
        }
        tracing::warn!("{missing}");
        Ok(http)
    })
}

/// What this program calls itself.
pub(crate) fn user_agent() -> String {
    format!("Hearth/{}", env!("CARGO_PKG_VERSION"))
}

fn builder(needs: ClientOptions) -> ClientBuilder {
    let http = Client::builder().connect_timeout(needs.connect).timeout(needs.answer).redirect(Policy::none());
    if needs.proxy { http } else { http.no_proxy() }
}
