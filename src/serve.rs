//! The listeners: HTTP/1.1 and HTTP/2 on TCP, TLS and unix sockets, until shutdown has drained them.
//!
//! Binding and serving are two steps, so that an address in use is told before anything else starts,
//! and a server on port 0 knows its port. Until it is served, a TCP address refuses connections: a load balancer then
//! goes on to the next node, where one that kept it waiting would slow everybody down. What is answered is the router's
//! business.

mod panic;
mod peer;
mod signal;
mod tcp;
mod tls;
mod unix;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, middleware};
use axum_server::{
    Address, Handle, Server,
    accept::{Accept, DefaultAcceptor, NoDelayAcceptor},
    service::SendService,
    tls_rustls::RustlsAcceptor,
};
use futures_util::future::{BoxFuture, FutureExt as _, join_all, ready};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, UnixListener},
};

pub use self::{peer::ClientAddress, signal::stop_on_signals};
use self::{
    peer::{Addressed, Peer},
    tls::Certificate,
    unix::SocketFile,
};
use crate::{
    cause,
    config::{Config, Listen, Network},
    metrics::{self, Metrics},
    random::Random,
    tasks::{Shutdown, Tasks},
    telemetry,
};

/// From the first byte of a connection to the end of its first request's headers.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// For the headers of every later request, the idle time before it included: longer than the minute for
/// which reverse proxies commonly keep a connection, so that it is they who close it.
const NEXT_REQUEST_TIMEOUT: Duration = Duration::from_secs(75);
/// Headers and the request line together. A `/sync` filter may come in the query.
const HEADER_BYTES: u32 = 64 * 1024;
/// How often HTTP/2 connections are asked whether somebody is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_mins(1);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("address {0} is in use: is another hearth running? Stop it, or change `listen`")]
    InUse(Listen),
    #[error("address {0} is not one of this machine's; change `listen`, for instance to 0.0.0.0 for all of them")]
    NotHere(Listen),
    #[error("listening on {0} is not permitted; ports below 1024 and folders of others need more rights")]
    NotPermitted(Listen),
    #[error("{0} names a file that is not a socket; move it away, or change `listen`")]
    NotASocket(Listen),
    #[error("the folder of {0} does not exist; make it, or change `listen`")]
    NoFolder(Listen),
    #[error(transparent)]
    Certificate(#[from] tls::CertificateError),
    #[error("cannot listen on {address}: {}", cause::in_words(error))]
    Other { address: Listen, error: io::Error },
}

impl BindError {
    fn new(address: &Listen, error: io::Error) -> Self {
        let address = address.clone();
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(address),
            io::ErrorKind::PermissionDenied => Self::NotPermitted(address),
            io::ErrorKind::NotFound => Self::NoFolder(address),
            _ => Self::Other { address, error },
        }
    }
}

/// Bound addresses, ready to be served.
pub struct Listeners {
    bound: Vec<Bound>,
    certificate: Option<Certificate>,
    trusted: Arc<[Network]>,
    grace: Duration,
}

enum Bound {
    Tcp(TcpSocket, SocketAddr),
    Tls(TcpSocket, SocketAddr),
    Unix(SocketFile, UnixListener),
}

impl Listeners {
    /// Binds every address of `addresses`; certificate, trusted proxies and patience are `config`'s.
    pub fn bind<'a>(addresses: impl IntoIterator<Item = &'a Listen>, config: &Config) -> Result<Self, BindError> {
        let bound = addresses.into_iter().map(Bound::bind).collect::<Result<Vec<_>, _>>()?;
        let certificate = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) if bound.iter().any(|bound| matches!(bound, Bound::Tls(..))) => {
                Some(Certificate::load(certificate, key)?)
            }
            _ => None,
        };
        let trusted = config.trusted_proxies.as_slice().into();
        Ok(Self { bound, certificate, trusted, grace: config.shutdown_grace() })
    }

    /// Where each listener is reached: `http://127.0.0.1:8008`, `https://…` or `unix:/path`.
    pub fn urls(&self) -> Vec<String> {
        self.bound.iter().map(Bound::url).collect()
    }

    /// Where other nodes reach the first plain TCP listener: its address, or where it listens on all of them, the one
    /// that leads `towards` the machine of the database. Whoever listens to this machine alone is reached by nodes
    /// of this machine, which they all are if the database is here; it has no `towards` then.
    pub fn find_reachable(&self, towards: Option<(&str, u16)>) -> Option<String> {
        let local = self.bound.iter().find_map(|bound| match bound {
            Bound::Tcp(_, local) => Some(*local),
            Bound::Tls(..) | Bound::Unix(..) => None,
        })?;
        let ip = match (local.ip(), towards.and_then(tcp::find_own_address)) {
            (ip, None) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (ip, Some(own)) if ip.is_unspecified() => own,
            (ip, Some(own)) if ip.is_loopback() && !own.is_loopback() => return None,
            (ip, _) => ip,
        };
        Some(format!("http://{}", SocketAddr::new(ip, local.port())))
    }

    /// Serves `router` until shutdown has started and the last request has been answered, or has used
    /// up its grace. [`ClientAddress`] is in the extensions of every request.
    ///
    /// Connections are taken from this call on, also before what it returns is first polled.
    pub fn serve(self, router: Router, tasks: &Tasks) -> impl Future<Output = ()> + use<> {
        if let Some(certificate) = &self.certificate {
            tasks.spawn("certificate", certificate.clone().keep_fresh(tls::CHECK_INTERVAL, tasks.shutdown().clone()));
        }
        let connections = Connections { router, trusted: self.trusted };
        let shutdown = tasks.shutdown().clone();
        let listeners = self.bound.into_iter().map(|bound| {
            let url = bound.url();
            let ending = Ending { shutdown: shutdown.clone(), grace: self.grace, socket: None };
            let serving = bound.serve(self.certificate.as_ref(), connections.clone(), ending);
            serving.map(move |ended| (url, ended))
        });
        let listeners: Vec<_> = listeners.collect();
        async move {
            for (url, ended) in join_all(listeners).await {
                if let Err(error) = ended {
                    tracing::error!(%url, error = cause::in_words(&error), "a listener has failed");
                    shutdown.fail(format!("the listener {url} has failed"));
                }
            }
        }
    }
}

/// Puts what every request passes around `router`: the request id and its span outermost, then the
/// count, then the net that catches a panic.
pub fn layer(router: Router, metrics: &Metrics, random: &Random) -> Router {
    router
        .layer(middleware::from_fn(panic::catch))
        .layer(middleware::from_fn_with_state(metrics.clone(), metrics::track))
        .layer(middleware::from_fn_with_state(random.clone(), telemetry::trace))
}

impl Bound {
    fn bind(address: &Listen) -> Result<Self, BindError> {
        match address {
            Listen::Tcp(socket) => {
                let (socket, local) = tcp::bind(*socket).map_err(|error| BindError::new(address, error))?;
                Ok(Self::Tcp(socket, local))
            }
            Listen::Tls(socket) => {
                let (socket, local) = tcp::bind(*socket).map_err(|error| BindError::new(address, error))?;
                Ok(Self::Tls(socket, local))
            }
            Listen::Unix(path) => {
                let (file, listener) = unix::bind(path)?;
                Ok(Self::Unix(file, listener))
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Tcp(_, address) => format!("http://{address}"),
            Self::Tls(_, address) => format!("https://{address}"),
            Self::Unix(file, _) => format!("unix:{}", file.path().display()),
        }
    }

    /// Takes connections from this call on.
    fn serve(
        self,
        certificate: Option<&Certificate>,
        connections: Connections,
        ending: Ending,
    ) -> BoxFuture<'static, io::Result<()>> {
        let peer = |address: &SocketAddr| Peer::Address(address.ip());
        match (self, certificate) {
            (Self::Unix(file, listener), _) => {
                let server = Server::from_listener(listener).acceptor(DefaultAcceptor::new());
                let ending = Ending { socket: Some(file), ..ending };
                serve(server, connections, ending, |_: &unix::Address| Peer::SameMachine).boxed()
            }
            (Self::Tls(socket, _), Some(certificate)) => {
                let acceptor = RustlsAcceptor::new(certificate.tls_config()).acceptor(NoDelayAcceptor::new());
                match tcp::listen(socket) {
                    Ok(listener) => {
                        let server = Server::from_listener(listener).acceptor(acceptor);
                        serve(server, connections, ending, peer).boxed()
                    }
                    Err(error) => ready(Err(error)).boxed(),
                }
            }
            (Self::Tls(..), None) => {
                ready(Err(io::Error::other("a `tls:` address without `tls.certificate` and `tls.key`"))).boxed()
            }
            (Self::Tcp(socket, _), _) => match tcp::listen(socket) {
                Ok(listener) => {
                    let server = Server::from_listener(listener).acceptor(NoDelayAcceptor::new());
                    serve(server, connections, ending, peer).boxed()
                }
                Err(error) => ready(Err(error)).boxed(),
            },
        }
    }
}

/// What every new connection gets.
#[derive(Clone)]
struct Connections {
    router: Router,
    trusted: Arc<[Network]>,
}

/// When to end, how long to wait then, and what goes first.
struct Ending {
    shutdown: Shutdown,
    grace: Duration,
    socket: Option<SocketFile>,
}

async fn serve<A, Acc>(
    server: Server<A, Acc>,
    connections: Connections,
    ending: Ending,
    peer: impl Fn(&A) -> Peer,
) -> io::Result<()>
where
    A: Address + Send + Sync + 'static,
    A::Stream: Send,
    Acc: Accept<A::Stream, Addressed<Router>> + Clone + Send + Sync + 'static,
    Acc::Stream: AsyncRead + AsyncWrite + Unpin + Send,
    Acc::Service: SendService<Request<hyper::body::Incoming>> + Send,
    Acc::Future: Send,
{
    let Connections { router, trusted } = connections;
    let make_service = tower::service_fn(|address: A| {
        ready(Ok::<_, Infallible>(Addressed::new(router.clone(), peer(&address), trusted.clone())))
    });
    let handle = Handle::new();
    let serving = limited(server).handle(handle.clone()).serve(make_service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => ended,
        () = ending.shutdown.started() => {
            drop(ending.socket);
            handle.graceful_shutdown(Some(ending.grace));
            serving.await
        }
    }
}

fn limited<A: Address + 'static, Acc>(server: Server<A, Acc>) -> Server<A, Acc> {
    let mut server = server.first_request_timeout(FIRST_REQUEST_TIMEOUT).accept_error_handler(log_refused_connection);
    let http = server.http_builder();
    http.http1().header_read_timeout(NEXT_REQUEST_TIMEOUT).max_buf_size(HEADER_BYTES as usize);
    http.http2().max_header_list_size(HEADER_BYTES).keep_alive_interval(HTTP2_PING_INTERVAL);
    server
}

/// With an address it is one client's failed handshake; without, the machine is out of something.
fn log_refused_connection<A>(client: Option<&A>, error: &io::Error) {
    if client.is_some() {
        tracing::debug!(%error, "a connection has failed before its first request");
    } else {
        tracing::warn!(%error, "cannot accept connections; are there too few file descriptors (`ulimit -n`)?");
    }
}
