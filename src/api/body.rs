//! Taking what a client sends, bounded in size and in time: whoever sends the head of a request and leaves its body
//! unfinished would else hold a connection, and a file descriptor, for as long as they like.
//!
//! Both bounds are there because either alone can be played with: a byte every few seconds passes a bound between
//! parts, and one large body on a slow line needs more than a fixed time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::StatusCode;
use http_body_util::BodyExt as _;
use ruma::api::error::ErrorKind;
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, ApiResult};
use crate::error::Error;

/// How long a body is waited for.
#[derive(Clone, Copy, Debug)]
struct BodyTimeouts {
    /// From one part to the next.
    between: Duration,
    /// For all of it.
    whole: Duration,
}

impl BodyTimeouts {
    /// For a body of at most `limit` bytes: half a minute, and 4 KiB a second from then on. A phone at the edge of its
    /// network is faster.
    ///
    /// It follows from the endpoint's limit and not from `Content-Length`, which may say anything.
    fn for_at_most(limit: usize) -> Self {
        let sending = u64::try_from(limit / 4096).unwrap_or(u64::MAX);
        Self {
            between: Duration::from_secs(20),
            whole: Duration::from_secs(30).saturating_add(Duration::from_secs(sending)),
        }
    }
}

/// A body that was read whole.
pub(crate) struct WholeBody(pub(crate) Bytes);

/// A body that is read part by part, no longer than its limit: memory holds one part of it.
pub(crate) struct BodyStream {
    body: Body,
    patience: BodyTimeouts,
    /// When all of it must have come.
    end: Instant,
    /// In bytes.
    limit: usize,
    /// How many bytes have come.
    size: usize,
}

impl BodyStream {
    /// `limit`: how many bytes it has at most.
    pub(crate) fn new(body: Body, limit: usize) -> Self {
        Self::with(BodyTimeouts::for_at_most(limit), body, limit)
    }

    fn with(patience: BodyTimeouts, body: Body, limit: usize) -> Self {
        Self { body, patience, end: Instant::now() + patience.whole, limit, size: 0 }
    }

    /// The next part, none at the end. Refused where the body is too large or does not come in time.
    pub(crate) async fn next(&mut self) -> ApiResult<Option<Bytes>> {
        let Some(part) = self.receive().await? else { return Ok(None) };
        self.size = self.size.saturating_add(part.len());
        if self.size > self.limit {
            let message = format!("The request body is larger than {} bytes", self.limit);
            return Err(Error::refused(ErrorKind::TooLarge, message).into());
        }
        Ok(Some(part))
    }

    /// All that is left of it.
    ///
    /// Memory holds its limit at most, and twice that for a moment where it came in parts.
    pub(crate) async fn collect(mut self) -> ApiResult<Bytes> {
        let mut parts = Vec::new();
        while let Some(part) = self.next().await? {
            parts.push(part);
        }
        // Nearly every body comes in one part, which is not copied.
        match <[Bytes; 1]>::try_from(parts) {
            Ok([whole]) => Ok(whole),
            Err(parts) => Ok(parts.concat().into()),
        }
    }

    /// The next part, however many have come.
    async fn receive(&mut self) -> ApiResult<Option<Bytes>> {
        loop {
            let soon = self.end.min(Instant::now() + self.patience.between);
            match timeout_at(soon, self.body.frame()).await {
                Ok(None) => return Ok(None),
                // What is no data are trailers, which say nothing here.
                Ok(Some(Ok(frame))) => {
                    if let Ok(part) = frame.into_data() {
                        return Ok(Some(part));
                    }
                }
                Ok(Some(Err(_))) => {
                    return Err(Error::refused(ErrorKind::NotJson, "The request body ended early").into());
                }
                Err(_) => {
                    let message = "The request body did not come in time".to_owned();
                    return Err(ApiError::Status(StatusCode::REQUEST_TIMEOUT, ErrorKind::Unknown, message));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::response::IntoResponse as _;
    use futures_util::{Stream, StreamExt as _, stream};

    use super::*;

    const NEVER: Duration = Duration::from_hours(1);
    const AT_ONCE: Duration = Duration::from_millis(20);

    fn body_of(parts: impl Stream<Item = &'static str> + Send + 'static) -> Body {
        Body::from_stream(parts.map(Ok::<_, Infallible>))
    }

    async fn status_of(patience: BodyTimeouts, body: Body, limit: usize) -> StatusCode {
        BodyStream::with(patience, body, limit).collect().await.unwrap_err().into_response().status()
    }

    #[tokio::test]
    async fn parts_become_one_body() {
        let body = body_of(stream::iter(["{\"a\"", ":", "1}"]));
        assert_eq!(BodyStream::new(body, 7).collect().await.unwrap(), "{\"a\":1}");
        assert_eq!(BodyStream::new(Body::empty(), 0).collect().await.unwrap(), "");
        let body = body_of(stream::iter(["1234", "5678"]));
        let patience = BodyTimeouts { between: NEVER, whole: NEVER };
        assert_eq!(status_of(patience, body, 7).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn parts_can_be_had_as_they_come() {
        let mut body = BodyStream::new(body_of(stream::iter(["12", "345"]).chain(stream::repeat("6"))), 5);
        assert_eq!(body.next().await.unwrap().unwrap(), "12");
        assert_eq!(body.next().await.unwrap().unwrap(), "345");
        let refused = body.next().await.unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    /// Trap: unfinished bodies hold connections.
    #[tokio::test]
    async fn a_body_of_which_no_more_comes_is_given_up() {
        let unfinished = || body_of(stream::iter(["{"]).chain(stream::pending()));
        let patience = BodyTimeouts { between: AT_ONCE, whole: NEVER };
        assert_eq!(status_of(patience, unfinished(), 100).await, StatusCode::REQUEST_TIMEOUT);
        // What is too large is not waited for.
        assert_eq!(status_of(patience, unfinished(), 0).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_drips_is_given_up() {
        let drips = stream::repeat(" ").then(|part| async move {
            tokio::task::yield_now().await;
            part
        });
        let patience = BodyTimeouts { between: NEVER, whole: AT_ONCE };
        assert_eq!(status_of(patience, body_of(drips), usize::MAX).await, StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn patience_ends_within_two_minutes() {
        let patience = BodyTimeouts::for_at_most(256 * 1024);
        assert!(patience.whole < Duration::from_mins(2), "{patience:?}");
    }
}
