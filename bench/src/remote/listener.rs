//! What a homeserver of the generator answers.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::RemoteServer;

const NOT_FOUND: &str = r#"{"errcode":"M_NOT_FOUND","error":"There is nothing of the kind here"}"#;

/// Answers for as long as the scenario lasts.
pub(super) async fn serve(
    server: Arc<RemoteServer>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
) -> Result<Infallible> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.context("a homeserver of the generator can't accept connections")?;
        connections.spawn(serve_one(Arc::clone(&server), stream, acceptor.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers on one connection. If it breaks off, that is up to who opened it.
async fn serve_one(server: Arc<RemoteServer>, stream: TcpStream, acceptor: TlsAcceptor) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| server.answer(request));
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        eprintln!("  {}: a connection broke: {error}", server.identity.name);
    }
}

impl RemoteServer {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let answer = self.find_answer(&head.method, head.uri.path(), &body)?;
        let status = if answer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let body = Full::new(answer.unwrap_or(Bytes::from_static(NOT_FOUND.as_bytes())));
        Ok(Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(body)?)
    }

    fn find_answer(&self, method: &Method, path: &str, body: &[u8]) -> Result<Option<Bytes>> {
        let path: Vec<&str> = path.split('/').skip(2).collect();
        Ok(match (method, path.as_slice()) {
            (&Method::GET, ["key", "v2", "server", ..]) => Some(self.identity.key_document()?.into()),
            (&Method::PUT, ["federation", "v1", "send", _]) => {
                self.inbox.take(body);
                Some(Bytes::from_static(br#"{"pdus":{}}"#))
            }
            (&Method::GET, ["federation", "v1", "make_join", _, user_id]) => {
                self.room().map(|room| room.template(user_id)).transpose()?
            }
            (&Method::PUT, ["federation", "v2", "send_join", _, _]) => self.room().map(|room| room.answer()),
            _ => None,
        })
    }
}
