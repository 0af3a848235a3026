//! The listeners: HTTP/1.1 and HTTP/2 on TCP, TLS and unix sockets, until shutdown has drained them.
//!
//! Binding and serving are two steps, so that an address in use is reported before anything else starts, and a server
//! on port 0 knows its port. Until it is served, a TCP address refuses connections: a load balancer then goes on to the
//! next node, where one that kept it waiting would slow everybody down. What is answered is the router's business.
//!
//! Timeouts bound what a client can hold without saying anything: a connection before its first request, and one
//! between two of them. How long a request may take is not bounded here, because `/sync` waits; how long its body may
//! take is `api/body.rs`'s. What is written has to be read (`connection.rs`, `answers.rs`), connections are counted
//! (`admission.rs`), and so is the memory of what is under way (`budget.rs`).

mod admission;
pub(crate) mod answers;
mod bind_error;
pub(crate) mod block;
pub(crate) mod budget;
mod connection;
mod drain;
mod limit;
mod panic;
mod peer;
mod signal;
mod tcp;
mod tls;
mod unix;

#[cfg(test)]
mod tests;

use std::{
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

use self::{
    admission::Admission,
    connection::Guarding,
    peer::{ConnectionPeer, WithClientAddress},
    tls::Certificate,
    unix::SocketFile,
};
pub use self::{
    bind_error::BindError, limit::raise_open_files, peer::ClientAddress, signal::stop_on_signals, tls::CertificateError,
};
use crate::{
    config::{Config, ConnectionsConfig, IpBlock, ListenAddress, ListenEntry, ServedApis},
    edge::{
        metrics::{self, Metrics},
        telemetry,
    },
    ground::{
        cause,
        random::Random,
        tasks::{Shutdown, Tasks},
    },
};

/// From the first byte of a connection to the end of its first request's headers.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// For the headers of every later request, the idle time before it included: longer than the minute for
/// which reverse proxies commonly keep a connection, so that it is they who close it.
const NEXT_REQUEST_TIMEOUT: Duration = Duration::from_secs(75);
/// Headers and the request line together. A `/sync` filter may come in the query. Of HTTP/1.1 and HTTP/2 alike.
const HEADER_BYTES: u32 = 64 * 1024;
/// How often HTTP/2 connections are asked whether somebody is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_mins(1);
/// How much of bodies may be on its way into one HTTP/2 connection, in bytes: as much as one body may have, beyond what
/// is read from it already.
const HTTP2_WINDOW: u32 = 256 * 1024;
/// How much of an answer one stream of HTTP/2 takes before the client reads it, in bytes.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// How many streams a client may have opened and reset before anybody has looked at them. Beyond it the connection is
/// closed, because nothing but an attack does that.
const HTTP2_RESET_STREAMS: usize = 20;

/// Bound addresses, ready to be served.
pub struct Listeners {
    /// In the order of the configuration. What they listen at is taken, but nobody is served yet.
    bound: Vec<(BoundListener, ServedApis)>,
    /// None unless there is a `tls:` listener.
    certificate: Option<Certificate>,
    trusted: Arc<[IpBlock]>,
    /// Whose connections are not limited by address.
    uncounted: Arc<[IpBlock]>,
    grace: Duration,
    limits: ConnectionsConfig,
    /// In all.
    most: usize,
}

/// An address that is taken, with its actual port.
enum BoundListener {
    Tcp(TcpSocket, SocketAddr),
    Tls(TcpSocket, SocketAddr),
    Unix(SocketFile, UnixListener),
}

impl Listeners {
    /// Binds every address of `entries`; certificate, trusted proxies and patience are `config`'s. Unix
    /// sockets are registered with the async runtime, so it must be running.
    pub fn bind<'a, E>(entries: impl IntoIterator<Item = &'a E>, config: &Config) -> Result<Self, BindError>
    where
        E: Clone + Into<ListenEntry> + 'a,
    {
        let bind = |entry: &'a E| {
            let ListenEntry { address, apis } = entry.clone().into();
            BoundListener::bind(&address).map(|bound| (bound, apis))
        };
        let bound = entries.into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let speaks_tls = bound.iter().any(|(bound, _)| matches!(bound, BoundListener::Tls(..)));
        let certificate = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) if speaks_tls => Some(Certificate::load(certificate, key)?),
            _ => None,
        };
        let trusted: Arc<[IpBlock]> = config.trusted_proxies.as_slice().into();
        let uncounted = peer::uncounted(&trusted);
        let limits = config.connections.clone();
        let most = limit::most_connections(config);
        Ok(Self { bound, certificate, trusted, uncounted, grace: config.shutdown_grace(), limits, most })
    }

    /// Where each listener is reached: `http://127.0.0.1:8008`, `https://…` or `unix:/path`.
    pub fn urls(&self) -> Vec<String> {
        self.bound.iter().map(|(bound, _)| bound.url()).collect()
    }

    /// Where other nodes reach the first plain TCP listener: its address, or where it listens on all of them, the one
    /// that leads `towards` the machine of the database. Whoever listens to this machine alone is reached by nodes
    /// of this machine, which they all are if the database is here; it has no `towards` then. None where no address can
    /// be said: other nodes forward no request here then.
    pub fn find_reachable(&self, towards: Option<(&str, u16)>) -> Option<String> {
        let local = self.bound.iter().find_map(|(bound, _)| match bound {
            BoundListener::Tcp(_, local) => Some(*local),
            BoundListener::Tls(..) | BoundListener::Unix(..) => None,
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
    /// up its grace. [`ClientAddress`] is in the extensions of every request, and so is [`ServedApis`] where it is not all
    /// of them.
    ///
    /// Connections are taken from this call on, also before what it returns is first polled. The future ends with the
    /// last listener. A listener that fails brings the process down ([`Shutdown::fail`]): a node that nobody reaches
    /// would look alive. Connections are counted in `metrics`, those of all listeners together.
    pub fn serve(self, router: Router, tasks: &Tasks, metrics: &Metrics) -> impl Future<Output = ()> + use<> {
        if let Some(certificate) = &self.certificate {
            tasks.spawn("certificate", certificate.clone().keep_fresh(tls::CHECK_INTERVAL, tasks.shutdown().clone()));
        }
        let most_of_address = usize::try_from(self.limits.max_per_address).unwrap_or(usize::MAX);
        let admission = Admission::new(self.most, most_of_address, metrics.clone());
        let (trusted, uncounted) = (self.trusted, self.uncounted);
        let connections =
            Connections { router, apis: ServedApis::All, trusted, uncounted, admission, limits: self.limits };
        let shutdown = tasks.shutdown().clone();
        let listeners = self.bound.into_iter().map(|(bound, apis)| {
            let (url, connections) = (bound.url(), Connections { apis, ..connections.clone() });
            let ending = ShutdownPlan { shutdown: shutdown.clone(), grace: self.grace, socket: None };
            let serving = bound.serve(self.certificate.as_ref(), connections, ending);
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

/// Opens the certificate and its key, if there are any, and tries them together: what [`Listeners::bind`] would do.
pub fn check_certificate(config: &Config) -> Result<(), CertificateError> {
    match (&config.tls.certificate, &config.tls.key) {
        (Some(certificate), Some(key)) => Certificate::load(certificate, key).map(drop),
        _ => Ok(()),
    }
}

/// Puts what every request passes around `router`: the request id and its span outermost, then the count, then what
/// notes the client's address for the log, then what reads bodies to their end, then the net that catches a panic.
///
/// The layer that is added last is the outermost. The panic is caught inside of all others, so that a request that
/// panicked is counted and logged like any other and its body is still drained.
pub fn layer(router: Router, metrics: &Metrics, random: &Random) -> Router {
    router
        .layer(middleware::from_fn(panic::catch))
        .layer(middleware::from_fn(drain::before_answering))
        .layer(middleware::from_fn(peer::note))
        .layer(middleware::from_fn_with_state(metrics.clone(), metrics::track))
        .layer(middleware::from_fn_with_state(random.clone(), telemetry::trace))
}

impl BoundListener {
    fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        match address {
            ListenAddress::Tcp(socket) => {
                let (socket, local) = tcp::bind(*socket).map_err(|error| BindError::new(address, error))?;
                Ok(Self::Tcp(socket, local))
            }
            ListenAddress::Tls(socket) => {
                let (socket, local) = tcp::bind(*socket).map_err(|error| BindError::new(address, error))?;
                Ok(Self::Tls(socket, local))
            }
            ListenAddress::Unix(path) => {
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
        ending: ShutdownPlan,
    ) -> BoxFuture<'static, io::Result<()>> {
        let peer = |address: &SocketAddr| ConnectionPeer::Address(address.ip());
        let patience = Duration::from_secs(connections.limits.patience_seconds);
        match (self, certificate) {
            (Self::Unix(file, listener), _) => {
                let acceptor = Guarding::new(DefaultAcceptor::new(), patience);
                let server = Server::from_listener(listener).acceptor(acceptor);
                let ending = ShutdownPlan { socket: Some(file), ..ending };
                serve(server, connections, ending, |_: &unix::Address| ConnectionPeer::SameMachine).boxed()
            }
            (Self::Tls(socket, _), Some(certificate)) => {
                let acceptor = Guarding::new(NoDelayAcceptor::new(), patience);
                let acceptor = RustlsAcceptor::new(certificate.tls_config()).acceptor(acceptor);
                match tcp::listen(socket) {
                    Ok(listener) => {
                        let server = Server::from_listener(listener).acceptor(acceptor);
                        serve(server, connections, ending, peer).boxed()
                    }
                    Err(error) => ready(Err(error)).boxed(),
                }
            }
            // The configuration is refused before, so nobody gets here.
            (Self::Tls(..), None) => {
                ready(Err(io::Error::other("a `tls:` address without `tls.certificate` and `tls.key`"))).boxed()
            }
            (Self::Tcp(socket, _), _) => match tcp::listen(socket) {
                Ok(listener) => {
                    let acceptor = Guarding::new(NoDelayAcceptor::new(), patience);
                    let server = Server::from_listener(listener).acceptor(acceptor);
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
    apis: ServedApis,
    trusted: Arc<[IpBlock]>,
    uncounted: Arc<[IpBlock]>,
    admission: Arc<Admission>,
    limits: ConnectionsConfig,
}

/// When to end, how long to wait then, and what goes first.
struct ShutdownPlan {
    shutdown: Shutdown,
    grace: Duration,
    socket: Option<SocketFile>,
}

/// Ends when the last connection has. From the start of shutdown on no connection is accepted, and those that are open
/// get `grace` to finish their request.
async fn serve<A, Acc>(
    server: Server<A, Acc>,
    connections: Connections,
    ending: ShutdownPlan,
    peer: impl Fn(&A) -> ConnectionPeer,
) -> io::Result<()>
where
    A: Address + Send + Sync + 'static,
    A::Stream: Send,
    Acc: Accept<A::Stream, WithClientAddress<Router>> + Clone + Send + Sync + 'static,
    Acc::Stream: AsyncRead + AsyncWrite + Unpin + Send,
    Acc::Service: SendService<Request<hyper::body::Incoming>> + Send,
    Acc::Future: Send,
{
    let Connections { router, apis, trusted, uncounted, admission, limits } = connections;
    // Whoever gets no place has their connection closed.
    let make_service = tower::service_fn(|address: A| {
        let peer = peer(&address);
        let place = admission.admit(peer.counted_by(&uncounted));
        ready(place.map(|place| WithClientAddress::new(router.clone(), (peer, apis), trusted.clone(), place)))
    });
    let handle = Handle::new();
    let serving = limited(server, &limits).handle(handle.clone()).serve(make_service);
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

/// The server with its limits on headers, on silence, and on what one connection of HTTP/2 carries.
fn limited<A: Address + 'static, Acc>(server: Server<A, Acc>, limits: &ConnectionsConfig) -> Server<A, Acc> {
    let mut server = server.first_request_timeout(FIRST_REQUEST_TIMEOUT).accept_error_handler(log_refused_connection);
    let http = server.http_builder();
    http.http1().header_read_timeout(NEXT_REQUEST_TIMEOUT).max_buf_size(HEADER_BYTES as usize);
    http.http2()
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(HTTP2_RESET_STREAMS)
        .initial_connection_window_size(HTTP2_WINDOW)
        .initial_stream_window_size(HTTP2_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
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
