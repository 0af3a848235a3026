//! Asks other servers: finds them, signs what they are asked, and reads what they answer, within bounds.
//!
//! There are two clients, because a connection is kept by the URL that it is for: one goes by the port that stands there,
//! the other finds the port out. Connections are kept and used again, by all requests at once where both sides speak
//! HTTP/2.
//!
//! Nothing is believed of an answer but that it came from whoever has a certificate for the name. What it says is for the
//! caller to check.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#authentication>

mod bounds;
mod complaints;
mod explain;
mod remote_body;
mod remote_error;
mod remote_request;
mod step;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use reqwest::{Certificate, Client, Url};
use ruma::{OwnedServerName, ServerName};
use tokio::time::{Instant, timeout_at};

pub use self::step::{Step, Went};
pub(crate) use self::{
    bounds::Bounds, remote_body::RemoteBody, remote_error::RemoteError, remote_request::RemoteRequest,
};
use self::{complaints::Complaints, remote_request::Signer};
use crate::{
    config::{Config, FederationConfig},
    edge::{
        authorities::{self, AuthorityError},
        discovery::{Names, NoNameServers, Ports, Route, ServerResolver, SystemNameServers, Way},
        http_client::{self, Certificates, ClientOptions, HttpClientError},
        metrics::Metrics,
        outside_client::CheckedNames,
    },
    event::SigningKeys,
    ground::{clock::Clock, random::Random, sizes::CacheSizes, weighed::Weighed},
};

/// For a connection, TLS and the looking up of names included.
const CONNECT: Duration = Duration::from_secs(10);
/// Longer than any [`Bounds`], which count.
const LONGEST: Duration = Duration::from_hours(1);
/// How long a connection is kept that nothing goes over, and how many to one server.
const IDLE: Duration = Duration::from_mins(1);
const MAX_IDLE: usize = 4;
/// How often who is silent on an HTTP/2 connection is asked whether they are still there, and how long they may take.
const PING: Duration = Duration::from_secs(15);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// From so many bytes on an answer is read by a thread of its own: it would hold up others.
const LARGE: usize = 512 * 1024;

/// Asks other servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FederationClient {
    inner: Arc<Inner>,
    /// Whether this server itself may be asked.
    asks_itself: bool,
}

struct Inner {
    server_name: OwnedServerName,
    keys: SigningKeys,
    config: FederationConfig,
    metrics: Metrics,
    complaints: Complaints,
    /// None where the server does not federate.
    network: Option<Network>,
}

/// The way to other servers.
struct Network {
    resolver: ServerResolver,
    authorities: Vec<Certificate>,
    by_port: Client,
    by_service: Client,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FederationClientError {
    #[error(transparent)]
    Http(#[from] HttpClientError),
    #[error(transparent)]
    Authorities(#[from] AuthorityError),
}

impl FederationClient {
    /// Reads the certificates of the machine and of the configuration, unless the server does not federate.
    pub(crate) fn new(
        config: &Config,
        sizes: &CacheSizes,
        server_name: OwnedServerName,
        keys: SigningKeys,
        (clock, random): (Clock, Random),
        metrics: Metrics,
    ) -> Result<Self, FederationClientError> {
        let names = || -> Arc<dyn Names> {
            match SystemNameServers::new(&config.federation.name_servers) {
                Ok(names) => Arc::new(names),
                Err(error) => {
                    tracing::warn!("no other server will be found: {error}");
                    Arc::new(NoNameServers(error))
                }
            }
        };
        Self::new_with((config, sizes), server_name, keys, (clock, random), metrics, (names, Ports::default()))
    }

    /// `names` and `ports` are parameters for tests. The names are asked for if the server federates.
    pub(crate) fn new_with(
        (config, sizes): (&Config, &CacheSizes),
        server_name: OwnedServerName,
        keys: SigningKeys,
        (clock, random): (Clock, Random),
        metrics: Metrics,
        (names, ports): (impl FnOnce() -> Arc<dyn Names>, Ports),
    ) -> Result<Self, FederationClientError> {
        let config = config.federation.clone();
        let network = if config.enabled {
            let authorities = authorities::read(&config.certificate_authorities)?;
            let resolver = ServerResolver::new(
                (names(), ports),
                config.allowed_networks.clone(),
                authorities.clone(),
                (clock, random),
                sizes.servers,
            )?;
            let by_port = client(&resolver.names_by_port(), &authorities)?;
            let by_service = client(&resolver.names_by_service(), &authorities)?;
            Some(Network { resolver, authorities, by_port, by_service })
        } else {
            None
        };
        let complaints = Complaints::default();
        let inner = Inner { server_name, keys, config, metrics, complaints, network };
        Ok(Self { inner: Arc::new(inner), asks_itself: false })
    }

    /// Asks this server as well, as others ask it: for who wants to know what they see.
    pub(crate) fn asking_itself(self) -> Self {
        Self { asks_itself: true, ..self }
    }

    /// Asks a server, and reads its answer whole.
    pub(crate) async fn send<R: RemoteRequest>(
        &self,
        to: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<R::Answer, RemoteError> {
        let started = Instant::now();
        let asking = async { read::<R>(self.ask(to, request, bounds).await?.whole().await?).await };
        // On the heap, so that who waits for another server does not keep what asking it took.
        let answer = Box::pin(asking).await;
        self.note(to, R::path(), started, answer.as_ref().err());
        answer
    }

    /// As [`Self::send`], and the body is the caller's to read. It is an answer of success: what is refused is an error.
    pub(crate) async fn open<R: RemoteRequest>(
        &self,
        to: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<RemoteBody, RemoteError> {
        let started = Instant::now();
        let answer = Box::pin(self.ask(to, request, bounds)).await;
        self.note(to, R::path(), started, answer.as_ref().err());
        answer
    }

    /// Each step of reaching a server, in words.
    pub(crate) async fn explain(&self, to: &ServerName) -> Vec<Step> {
        match self.network_for(to) {
            Ok(network) => explain::explain(&network.resolver, &network.authorities, to).await,
            Err(error) => {
                let step = Step::badly(format!("{to} is not asked: {error}"));
                vec![step.advise("`[federation]` in the configuration says with whom this server has to do")]
            }
        }
    }

    /// To whom a host leaves the answering, or why nobody is named. Whatever is remembered is not looked at.
    pub(crate) async fn find_delegate(&self, host: &ServerName) -> Result<OwnedServerName, String> {
        let network = self.network_for(host).map_err(|error| error.to_string())?;
        network.resolver.look_at_well_known(host.host()).await.map_err(|error| error.to_string())
    }

    /// What is remembered of where servers are. None where the server does not federate.
    pub(crate) fn cache(&self) -> Option<Arc<dyn Weighed>> {
        self.inner.network.as_ref().map(|network| network.resolver.cache())
    }

    async fn ask<R: RemoteRequest>(
        &self,
        to: &ServerName,
        request: R,
        bounds: Bounds,
    ) -> Result<RemoteBody, RemoteError> {
        let network = self.network_for(to)?;
        let deadline = Instant::now() + bounds.timeout;
        let opening = async {
            let route = network.resolver.find(to).await?;
            let key = self.inner.keys.current();
            let signer = Signer { origin: &self.inner.server_name, destination: to, key: &key };
            let request = request.into_http(route.url().as_str(), &signer)?;
            network.send(&route, request).await
        };
        let response = timeout_at(deadline, opening).await.unwrap_or_else(|_| Err(RemoteError::slow()))?;
        RemoteBody::new(response, bounds, deadline).unless_refused().await
    }

    /// The way there, if it may be taken.
    fn network_for(&self, to: &ServerName) -> Result<&Network, RemoteError> {
        let network = self.inner.network.as_ref().ok_or(RemoteError::Off)?;
        if !self.inner.config.allows(to) {
            return Err(RemoteError::NotAllowed);
        }
        if *to == *self.inner.server_name && !self.asks_itself {
            return Err(RemoteError::Unreachable("it is this server itself".to_owned()));
        }
        Ok(network)
    }

    /// Counts a request, and logs what has gone wrong: once a minute for each server, or the log would be full of those
    /// that are gone.
    fn note(&self, to: &ServerName, path: &'static str, started: Instant, failed: Option<&RemoteError>) {
        self.inner.metrics.server_asked(failed.map_or("ok", RemoteError::outcome), started.elapsed());
        match failed {
            None => {}
            Some(error @ (RemoteError::Unreachable(_) | RemoteError::Malformed(_)))
                if self.inner.complaints.is_due(to) =>
            {
                tracing::info!(server = %to, path, %error, "another server has not answered as it should");
            }
            Some(error) => tracing::debug!(server = %to, path, %error, "another server has not done as asked"),
        }
    }
}

impl Network {
    /// Sends what is signed, as it is signed.
    async fn send(&self, route: &Route, request: http::Request<Bytes>) -> Result<reqwest::Response, RemoteError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string());
        let url = url.or(Err(RemoteError::Malformed("the request's address makes no URL".to_owned())))?;
        // URLs are tidied up, as where a part of the path is `..`: it would be another request then.
        if url.path() != parts.uri.path() || url.query() != parts.uri.query() {
            return Err(RemoteError::Malformed("an identifier in the request can't be part of a URL".to_owned()));
        }
        let mut sent = reqwest::Request::new(parts.method, url);
        *sent.headers_mut() = parts.headers;
        if let Some(proof) = sent.headers_mut().get_mut(AUTHORIZATION) {
            proof.set_sensitive(true);
        }
        if !body.is_empty() {
            *sent.body_mut() = Some(body.into());
        }
        let client = match route.way() {
            Way::ByPort => &self.by_port,
            Way::ByService => &self.by_service,
        };
        client.execute(sent).await.map_err(|error| RemoteError::of(&error))
    }
}

/// Follows no redirect: a request is signed for one server and one path.
fn client(names: &Arc<CheckedNames>, authorities: &[Certificate]) -> Result<Client, HttpClientError> {
    let needs = ClientOptions {
        whom: "other servers",
        connect: CONNECT,
        answer: LONGEST,
        // It would look names up itself.
        proxy: false,
        certificates: Certificates::Welcome,
    };
    http_client::new_with(needs, |http| {
        let http = http.dns_resolver(Arc::clone(names)).user_agent(http_client::user_agent());
        let http = http.https_only(true).referer(false).tls_certs_merge(authorities.iter().cloned());
        let http = http.pool_idle_timeout(IDLE).pool_max_idle_per_host(MAX_IDLE);
        http.http2_keep_alive_interval(PING).http2_keep_alive_timeout(PING_PATIENCE)
    })
}

async fn read<R: RemoteRequest>(answer: http::Response<Vec<u8>>) -> Result<R::Answer, RemoteError> {
    let parse = |answer: http::Response<Vec<u8>>| {
        let (parts, body) = answer.into_parts();
        R::read(http::Response::from_parts(parts, body.as_slice()))
    };
    if answer.body().len() < LARGE {
        return parse(answer);
    }
    let reading = tokio::task::spawn_blocking(move || parse(answer));
    reading.await.unwrap_or_else(|_| Err(RemoteError::Malformed("its answer could not be read".to_owned())))
}
