//! Taking what a client sends, bounded in size, in time and in memory: whoever sends the head of a request and leaves its
//! body unfinished would else hold a connection, a file descriptor and what has come, for as long as they like.
//!
//! Time is counted by what comes: within the patience of the configuration a good piece of the body, or what is left of
//! it. A byte every few seconds is not enough, and a slow line has as long as it needs.

use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::FutureExt as _;
use http::{StatusCode, request::Parts};
use http_body_util::BodyExt as _;
use ruma::api::error::ErrorKind;
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, ApiResult, no_room};
use crate::{
    app::App,
    edge::{
        metrics::{Metrics, Strike},
        serve::budget::{Budget, Holder, Share},
    },
    error::Error,
};

/// How much of a body has to come within the patience, in bytes.
const PROGRESS: usize = 16 * 1024;

/// How a body comes on.
struct Progress {
    patience: Duration,
    /// How many bytes have come since there was last enough of it, in bytes, and until when there has to be more.
    came: usize,
    until: Instant,
}

impl Progress {
    fn new(patience: Duration, now: Instant) -> Self {
        Self { patience, came: 0, until: now + patience }
    }

    fn note(&mut self, bytes: usize, now: Instant) {
        self.came = self.came.saturating_add(bytes);
        if self.came >= PROGRESS {
            (self.came, self.until) = (0, now + self.patience);
        }
    }
}

/// What a request takes in memory that waits for its body, beside its head and what has come, in bytes and about.
const WAITING: usize = 32 * 1024;

/// What a body may take of the server.
#[derive(Clone)]
pub(crate) struct BodyLimits {
    /// In bytes.
    size: usize,
    /// For [`PROGRESS`], or the rest.
    patience: Duration,
    /// Of which it takes what is in memory, in the name of whoever sends it.
    budget: Budget,
    sender: Holder,
    /// How large the head of the request is, in bytes.
    head: usize,
    metrics: Metrics,
}

impl BodyLimits {
    /// `size`: how many bytes it has at most.
    pub(crate) fn new(app: &App, parts: &Parts, size: usize, sender: Holder) -> Self {
        let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let head = parts.uri.path().len() + parts.uri.query().map_or(0, str::len) + headers.sum::<usize>();
        let (budget, metrics) = (app.budget.clone(), app.metrics.clone());
        Self { size, patience: app.config.patience(), budget, sender, head, metrics }
    }
}

/// A body that was read whole.
pub(crate) struct WholeBody(pub(crate) Bytes);

/// A body that is read part by part, no longer than its limit: memory holds one part of it.
pub(crate) struct BodyStream {
    body: Body,
    limits: BodyLimits,
    /// How many bytes have come.
    size: usize,
    progress: Progress,
    /// Whether what has come stays in memory until the rest is there.
    keeps: bool,
    /// Room for what is in memory, and how much it is. None as long as nothing had to be waited for.
    share: Option<Share>,
    held: usize,
}

impl BodyStream {
    pub(crate) fn new(body: Body, limits: BodyLimits) -> Self {
        let progress = Progress::new(limits.patience, Instant::now());
        Self { body, limits, size: 0, progress, keeps: false, share: None, held: 0 }
    }

    /// The next part, none at the end. Refused where the body is too large or does not come in time.
    pub(crate) async fn next(&mut self) -> ApiResult<Option<Bytes>> {
        let Some(part) = self.receive().await? else { return Ok(None) };
        self.size = self.size.saturating_add(part.len());
        if self.size > self.limits.size {
            let message = format!("The request body is larger than {} bytes", self.limits.size);
            return Err(Error::refused(ErrorKind::TooLarge, message).into());
        }
        self.progress.note(part.len(), Instant::now());
        Ok(Some(part))
    }

    /// All that is left of it.
    ///
    /// Memory holds its limit at most, and twice that for a moment where it came in parts.
    pub(crate) async fn collect(mut self) -> ApiResult<Bytes> {
        self.keeps = true;
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        // Nearly every body comes in one part, which is not copied.
        let Some(second) = self.next().await? else { return Ok(first) };
        // Parts are not kept as they come: the smallest may keep a large buffer of the connection in memory.
        let mut whole = BytesMut::from(&*first);
        drop(first);
        self.hold()?;
        whole.extend_from_slice(&second);
        while let Some(part) = self.next().await? {
            self.hold()?;
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// Takes room for what has come by now.
    fn hold(&mut self) -> ApiResult<()> {
        let needed = WAITING + self.limits.head + if self.keeps { self.size } else { 0 };
        let more = needed.saturating_sub(self.held);
        let taken = match &mut self.share {
            Some(share) => share.grow(more),
            None => self.limits.budget.take(self.limits.sender.clone(), more).map(|share| self.share = Some(share)),
        };
        taken.map_err(no_room)?;
        self.held = needed;
        Ok(())
    }

    /// The next part, however many have come.
    async fn receive(&mut self) -> ApiResult<Option<Bytes>> {
        loop {
            let frame = if let Some(frame) = self.body.frame().now_or_never() {
                Ok(frame)
            } else {
                self.hold()?;
                timeout_at(self.progress.until, self.body.frame()).await
            };
            match frame {
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
                    self.limits.metrics.limit_struck(Strike::SlowBody, &self.limits.sender);
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

    const PATIENCE: Duration = Duration::from_secs(30);
    const AT_ONCE: Duration = Duration::from_millis(20);

    fn body_of(parts: impl Stream<Item = &'static str> + Send + 'static) -> Body {
        Body::from_stream(parts.map(Ok::<_, Infallible>))
    }

    fn limits(size: usize) -> BodyLimits {
        let metrics = Metrics::new();
        let sender = Holder::at("192.0.2.1".parse().unwrap());
        BodyLimits { size, patience: PATIENCE, budget: Budget::new(1, 1, metrics.clone()), sender, head: 0, metrics }
    }

    async fn status_of(body: Body, limits: BodyLimits) -> StatusCode {
        BodyStream::new(body, limits).collect().await.unwrap_err().into_response().status()
    }

    #[tokio::test]
    async fn parts_become_one_body() {
        let body = body_of(stream::iter(["{\"a\"", ":", "1}"]));
        assert_eq!(BodyStream::new(body, limits(7)).collect().await.unwrap(), "{\"a\":1}");
        assert_eq!(BodyStream::new(Body::empty(), limits(0)).collect().await.unwrap(), "");
        let body = body_of(stream::iter(["1234", "5678"]));
        assert_eq!(status_of(body, limits(7)).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn parts_can_be_had_as_they_come() {
        let mut body = BodyStream::new(body_of(stream::iter(["12", "345"]).chain(stream::repeat("6"))), limits(5));
        assert_eq!(body.next().await.unwrap().unwrap(), "12");
        assert_eq!(body.next().await.unwrap().unwrap(), "345");
        let refused = body.next().await.unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    /// Trap: unfinished bodies hold connections.
    #[tokio::test]
    async fn a_body_of_which_no_more_comes_is_given_up() {
        let unfinished = || body_of(stream::iter(["{"]).chain(stream::pending()));
        let impatient = || BodyLimits { patience: AT_ONCE, ..limits(100) };
        assert_eq!(status_of(unfinished(), impatient()).await, StatusCode::REQUEST_TIMEOUT);
        // What is too large is not waited for.
        assert_eq!(status_of(unfinished(), limits(0)).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_drips_is_given_up() {
        let drips = stream::repeat(" ").then(|part| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            part
        });
        let limits = BodyLimits { patience: AT_ONCE, ..limits(usize::MAX) };
        let metrics = limits.metrics.clone();
        assert_eq!(status_of(body_of(drips), limits).await, StatusCode::REQUEST_TIMEOUT);
        let counted = "hearth_limits_struck_total{limit=\"slow_body\"} 1";
        assert!(metrics.render().unwrap().contains(counted), "the operator sees it");
    }

    /// After how many seconds a body is given up that comes with so many bytes a second. None if not within a day.
    fn is_cut_after(bytes_a_second: usize) -> Option<u64> {
        let begun = Instant::now();
        let mut progress = Progress::new(PATIENCE, begun);
        (1..86_400).find(|seconds| {
            let now = begun + Duration::from_secs(*seconds);
            let is_late = now >= progress.until;
            progress.note(bytes_a_second, now);
            is_late
        })
    }

    #[test]
    fn what_is_slow_but_steady_is_taken() {
        assert_eq!(is_cut_after(1), Some(30));
        assert_eq!(is_cut_after(500), Some(30));
        assert_eq!(is_cut_after(600), None);
        // Much at the beginning buys no time later.
        let begun = Instant::now();
        let mut progress = Progress::new(PATIENCE, begun);
        progress.note(1_000_000, begun + Duration::from_secs(1));
        assert_eq!(progress.until, begun + Duration::from_secs(31));
    }

    #[tokio::test]
    async fn unfinished_bodies_hold_no_more_than_there_is_room() {
        let part: &'static str = Box::leak(" ".repeat(100_000).into_boxed_str());
        let limits = limits(usize::MAX);
        let budget = limits.budget.clone();
        let other = budget.take(limits.sender.clone(), 900_000).unwrap();
        let parts = || body_of(stream::repeat(part).take(9));
        let refused = BodyStream::new(parts(), limits.clone()).collect().await.unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(budget.held(), 900_000, "what was refused is not held");
        drop(other);
        assert_eq!(BodyStream::new(parts(), limits.clone()).collect().await.unwrap().len(), 900_000);
        assert_eq!(budget.held(), 0);
        // What is waited for takes room before anything has come.
        let mut waiting = BodyStream::new(body_of(stream::pending()), limits);
        assert!(waiting.next().now_or_never().is_none());
        assert_eq!(budget.held(), WAITING);
    }
}
