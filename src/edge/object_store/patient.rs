//! The HTTP client of S3 stores: patient as long as something moves, and not longer.
//!
//! A bound on a whole request would have to suit a file of a hundred megabytes on a slow line, so it would be no bound for
//! a server that is silent. What counts is how long nothing has moved, in either direction.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ::object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use reqwest::{Client, Request, Url};
use tokio::time::{Sleep, sleep, timeout};

/// Hands the project's own client to the library, which would build one without a provider for TLS.
#[derive(Clone, Debug)]
pub(super) struct PatientClient {
    client: Client,
    /// For how long nothing may move.
    stall: Duration,
}

impl PatientClient {
    pub(super) fn new(client: Client, stall: Duration) -> Self {
        Self { client, stall }
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            Some(bytes) => bytes.clone().into(),
            None => reqwest::Body::wrap(Counted { body, sent: Arc::clone(&sent) }),
        });
        let response = self.wait(self.client.execute(request), &sent).await?;
        let response: http::Response<reqwest::Body> = response.into();
        let (parts, body) = response.into_parts();
        let body = HttpResponseBody::new(Stalling { body, stall: self.stall, waiting: None });
        Ok(HttpResponse::from_parts(parts, body))
    }

    /// For the head of the answer. What is sent meanwhile counts as a move.
    async fn wait(
        &self,
        answer: impl Future<Output = reqwest::Result<reqwest::Response>>,
        sent: &AtomicU64,
    ) -> Result<reqwest::Response, HttpError> {
        let mut answer = std::pin::pin!(answer);
        let mut before = sent.load(Ordering::Relaxed);
        loop {
            if let Ok(answer) = timeout(self.stall, &mut answer).await {
                return answer.map_err(of_client);
            }
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return Err(stalled(self.stall));
            }
            before = now;
        }
    }
}

impl HttpConnector for PatientClient {
    fn connect(&self, _options: &ClientOptions) -> ::object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for PatientClient {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> BoxFuture<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.ask(request))
    }
}

fn stalled(stall: Duration) -> HttpError {
    let silence = format!("nothing has moved for {} s", stall.as_secs_f32());
    HttpError::new(HttpErrorKind::Timeout, io::Error::new(io::ErrorKind::TimedOut, silence))
}

/// Whatever else breaks is tried again only where that does no harm, which the library knows. The address is left out: the
/// library names it where it is no secret.
fn of_client(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

/// A body that counts what the connection has taken of it.
struct Counted {
    body: HttpRequestBody,
    sent: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that ends with an error when nothing has come of it for a while. The time in which nobody reads does not count.
struct Stalling {
    body: reqwest::Body,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Body for Stalling {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(of_client)));
        }
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(this.stall)));
        ready!(waiting.as_mut().poll(context));
        this.waiting = None;
        Poll::Ready(Some(Err(stalled(this.stall))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
