//! Reads what is left of a request's body once the answer to it is known, and only then answers.
//!
//! Whoever is refused by their headers alone is often still sending. If the answer went out before their body has
//! come, the connection would have to be closed under what they send: they may never hear the answer, and their next
//! request may be on its way on that connection
//! (<https://www.rfc-editor.org/rfc/rfc9112.html#section-9.6>).
//!
//! HTTP/1.1 alone needs it. It costs nothing where the handler has read the body, which is nearly always.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http::{StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::{sync::oneshot, time::timeout};

/// How much of a body is read for nothing, in bytes. After that the connection is closed.
const MOST: usize = 16 * 1024 * 1024;

/// How long an answer waits for that. A client that sends slower has its connection closed after the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Middleware: answers once all of the body has come, or more than is read for nothing.
pub(super) async fn before_answering(request: Request, next: Next) -> Response {
    // By the announced length; a body that is sent in chunks is found out while it is read.
    let is_too_much = request.body().size_hint().lower() > MOST as u64;
    // A stream of HTTP/2 ends without its connection.
    if request.body().is_end_stream() || is_too_much || request.version() == Version::HTTP_2 {
        return next.run(request).await;
    }
    let (owner, mut returned) = oneshot::channel();
    // Who expects to be asked for the body sends it only then: whoever does not read it does not ask.
    let is_on_its_way = !request.headers().contains_key(header::EXPECT);
    let request = request.map(|body| Body::new(Lent { body, owner: Some(owner), is_on_its_way }));
    let response = next.run(request).await;
    // What did not come in time is not waited for once more.
    if response.status() == StatusCode::REQUEST_TIMEOUT {
        return response;
    }
    // Nothing is there if the handler has read all of it, or still holds it, as one that hands it on does.
    if let Ok(body) = returned.try_recv() {
        drop(timeout(PATIENCE, drain(body)).await);
    }
    response
}

/// Its content is thrown away as it comes, so no more than one frame is in memory.
async fn drain(mut body: Body) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > MOST {
            break;
        }
    }
}

/// A body that goes back to its owner when nobody reads on.
struct Lent {
    body: Body,
    /// None once the body has gone back.
    owner: Option<oneshot::Sender<Body>>,
    /// Whether the client sends it without being asked, or has been asked by a first read.
    is_on_its_way: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take()
            && self.is_on_its_way
            && !self.body.is_end_stream()
        {
            // An owner that has answered already, while somebody still read, wants it no more.
            drop(owner.send(std::mem::take(&mut self.body)));
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Reading is what has the server send `100 Continue`.
        self.is_on_its_way = true;
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
