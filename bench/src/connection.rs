//! One kept-alive HTTP/1.1 connection, driven by the task that uses it.
//!
//! hyper hands out a sender and a connection that wants a task of its own. Here both are polled by the one task
//! that waits for the answer, which saves a task switch each way. Files are sent from memory that all uploads share, and
//! what is downloaded is counted and let go of: nothing of either is copied here.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

use crate::pieces::Pieces;

type Wire = http1::Connection<TokioIo<TcpStream>, Pieces>;

/// The server under test, resolved once: its nodes, of which each new connection gets the next.
#[derive(Debug)]
pub(crate) struct Target {
    nodes: Vec<Arc<Node>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Node {
    address: SocketAddr,
    host: HeaderValue,
    /// What the base URL has before `/_matrix`; mostly nothing.
    prefix: String,
}

impl Target {
    /// Reads and resolves base URLs such as `http://127.0.0.1:8008`.
    pub(crate) async fn resolve(urls: &[String]) -> Result<Self> {
        let mut nodes = Vec::new();
        for url in urls {
            nodes.push(Arc::new(Node::resolve(url).await?));
        }
        Ok(Self { nodes, next: AtomicUsize::new(0) })
    }

    /// Whether the server listens on this machine's loopback, where every 127.0.0.0/8 address may be a source.
    pub(crate) fn is_loopback(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.address.ip(), IpAddr::V4(address) if address.is_loopback()))
    }

    /// A connection on which nobody speaks HTTP yet, and what is to be called the host.
    pub(crate) async fn dial(&self, source: Option<Ipv4Addr>) -> Result<(TcpStream, String)> {
        let node = self.next_node().context("there is no server: give a --url")?;
        let host = node.host.to_str().unwrap_or_default().to_owned();
        Ok((dial(&node, source).await?, host))
    }

    fn next_node(&self) -> Option<Arc<Node>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.nodes.get(next.checked_rem(self.nodes.len())?).map(Arc::clone)
    }
}

impl Node {
    async fn resolve(url: &str) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("--url {url:?} is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            bail!("--url {url:?} must start with http:// (the generator does not speak TLS)");
        }
        let authority = uri.authority().with_context(|| format!("--url {url:?} names no host"))?;
        let address = tokio::net::lookup_host((authority.host(), authority.port_u16().unwrap_or(80)))
            .await
            .with_context(|| format!("{} does not resolve", authority.host()))?
            .next()
            .with_context(|| format!("{} has no address", authority.host()))?;
        let host = HeaderValue::from_str(authority.as_str()).context("the host does not fit into a header")?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { address, host, prefix })
    }
}

/// What the server answered, whatever the status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// What came of a download.
#[derive(Debug)]
pub(crate) struct Skimmed {
    /// Without the body of a success.
    pub(crate) answer: Answer,
    /// Of the body.
    pub(crate) bytes: u64,
}

/// A connection that opens itself when it is first used, and again when the server closed it while idle.
#[derive(Debug)]
pub(crate) struct Connection {
    node: Option<Arc<Node>>,
    source: Option<Ipv4Addr>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Pieces>,
    wire: Wire,
    finished: bool,
    used: bool,
}

/// Why an exchange on an open connection came to nothing.
#[derive(Debug)]
enum Broken {
    Http(hyper::Error),
    Closed,
}

impl Connection {
    pub(crate) fn new(target: &Target) -> Self {
        Self { node: target.next_node(), source: None, open: None }
    }

    /// A connection from a chosen local address: each has its own 28 thousand ports.
    pub(crate) fn with_source(target: &Target, source: Ipv4Addr) -> Self {
        Self { node: target.next_node(), source: Some(source), open: None }
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn request(
        &mut self,
        method: &Method,
        path: &str,
        authorization: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Answer> {
        self.send(method, path, authorization, (json(), body.into()), whole).await
    }

    /// Sends a file and reads the whole answer.
    pub(crate) async fn upload(
        &mut self,
        path: &str,
        authorization: Option<&HeaderValue>,
        content_type: HeaderValue,
        file: Pieces,
    ) -> Result<Answer> {
        self.send(&Method::POST, path, authorization, (content_type, file), whole).await
    }

    /// Asks for something large, of which only the length is wanted.
    pub(crate) async fn skim(&mut self, path: &str, authorization: Option<&HeaderValue>) -> Result<Skimmed> {
        self.send(&Method::GET, path, authorization, (json(), Pieces::default()), skimmed).await
    }

    /// Sends one request and reads its answer with `read`.
    async fn send<T, R>(
        &mut self,
        method: &Method,
        path: &str,
        authorization: Option<&HeaderValue>,
        (content_type, body): (HeaderValue, Pieces),
        read: fn(Response<Incoming>) -> R,
    ) -> Result<T>
    where
        R: Future<Output = hyper::Result<T>>,
    {
        let node = self.node.clone().context("there is no server: give a --url")?;
        let uri: Uri = format!("{}{path}", node.prefix).parse().with_context(|| format!("bad path {path:?}"))?;
        let mut request = Request::builder().method(method).uri(uri).header(HOST, &node.host);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(body).context("the request cannot be built")?;

        let open = self.ready(&node).await?;
        let reused = std::mem::replace(&mut open.used, true);
        match open.exchange(request.clone(), read).await {
            Ok(answer) => Ok(answer),
            Err(broken) if reused && broken.may_repeat(method) => {
                self.open = None;
                let answer = self.ready(&node).await?.exchange(request, read).await;
                answer.map_err(|broken| broken.into_error(method, path))
            }
            Err(broken) => {
                self.open = None;
                Err(broken.into_error(method, path))
            }
        }
    }

    /// The open connection, opened now if need be.
    async fn ready(&mut self, node: &Node) -> Result<&mut Open> {
        if self.open.as_ref().is_some_and(|open| open.finished || open.sender.is_closed()) {
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(open(node, self.source).await?);
        }
        self.open.as_mut().context("the connection was just opened")
    }
}

async fn dial(target: &Node, source: Option<Ipv4Addr>) -> Result<TcpStream> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.context("no socket: is `ulimit -n` high enough?")?;
    if let Some(source) = source {
        socket.bind((source, 0).into()).with_context(|| format!("no port left on {source}"))?;
    }
    let stream =
        socket.connect(target.address).await.with_context(|| format!("cannot connect to {}", target.address))?;
    stream.set_nodelay(true).context("TCP_NODELAY is refused")?;
    Ok(stream)
}

async fn open(target: &Node, source: Option<Ipv4Addr>) -> Result<Open> {
    let stream = dial(target, source).await?;
    let (sender, wire) = http1::handshake(TokioIo::new(stream)).await.context("the HTTP connection does not start")?;
    Ok(Open { sender, wire, finished: false, used: false })
}

fn json() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

async fn whole(response: Response<Incoming>) -> hyper::Result<Answer> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, body })
}

/// Counts what comes. What is no success is read whole, for it says why.
async fn skimmed(response: Response<Incoming>) -> hyper::Result<Skimmed> {
    let status = response.status();
    if !status.is_success() {
        return Ok(Skimmed { answer: whole(response).await?, bytes: 0 });
    }
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |part| u64::try_from(part.len()).unwrap_or(u64::MAX));
    }
    Ok(Skimmed { answer: Answer { status, body: Bytes::new() }, bytes })
}

impl Open {
    async fn exchange<T, R>(&mut self, request: Request<Pieces>, read: fn(Response<Incoming>) -> R) -> Result<T, Broken>
    where
        R: Future<Output = hyper::Result<T>>,
    {
        let Self { sender, wire, finished, .. } = self;
        let mut exchange = pin!(async move {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            read(response).await
        });
        poll_fn(|context| {
            if let Poll::Ready(answer) = exchange.as_mut().poll(context) {
                return Poll::Ready(answer.map_err(Broken::Http));
            }
            if !*finished && Pin::new(&mut *wire).poll(context).is_ready() {
                *finished = true;
            }
            match exchange.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(answer.map_err(Broken::Http)),
                Poll::Pending if *finished => Poll::Ready(Err(Broken::Closed)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl Broken {
    /// A server may close an idle connection just as it is used again; what never left, or does no harm twice
    /// (every PUT here carries a transaction id), is sent once more.
    fn may_repeat(&self, method: &Method) -> bool {
        let never_left = matches!(self, Self::Http(error) if error.is_canceled());
        never_left || method == Method::GET || method == Method::PUT
    }

    fn into_error(self, method: &Method, path: &str) -> anyhow::Error {
        let what = format!("{method} {path} got no answer");
        match self {
            Self::Http(error) => anyhow::Error::new(error).context(what),
            Self::Closed => anyhow::anyhow!("{what}: the server closed the connection"),
        }
    }
}
