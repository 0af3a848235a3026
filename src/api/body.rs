//! Reading what a client sends, bounded in size and in time: whoever sends the head of a request and leaves its body
//! unfinished would else hold a connection, and a file descriptor, for as long as they like.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::StatusCode;
use http_body_util::BodyExt as _;
use ruma::api::error::ErrorKind;
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, ApiResult};
use crate::error::Error;

/// How much of a body that is too large is thrown away, in bytes.
const DRAINED: usize = 16 * 1024 * 1024;

/// How long a body is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// From one part to the next.
    between: Duration,
    /// For all of it.
    whole: Duration,
}

impl Patience {
    /// For a body of at most `limit` bytes: half a minute, and 4 KiB a second from then on. A phone at the edge of its
    /// network is faster.
    fn for_at_most(limit: usize) -> Self {
        let sending = u64::try_from(limit / 4096).unwrap_or(u64::MAX);
        Self {
            between: Duration::from_secs(20),
            whole: Duration::from_secs(30).saturating_add(Duration::from_secs(sending)),
        }
    }
}

/// The whole body, if it is no longer than `limit` bytes and comes in time.
pub(super) async fn collect(body: Body, limit: usize) -> ApiResult<Bytes> {
    collect_in(Patience::for_at_most(limit), body, limit).await
}

async fn collect_in(patience: Patience, mut body: Body, limit: usize) -> ApiResult<Bytes> {
    let end = Instant::now() + patience.whole;
    let (mut parts, mut size) = (Vec::new(), 0_usize);
    while let Some(part) = next(&mut body, patience, end).await? {
        size = size.saturating_add(part.len());
        if size > limit {
            drain(body, patience, end).await?;
            let message = format!("The request body is larger than {limit} bytes");
            return Err(Error::refused(ErrorKind::TooLarge, message).into());
        }
        parts.push(part);
    }
    // Nearly every body comes in one part, which is not copied.
    match <[Bytes; 1]>::try_from(parts) {
        Ok([whole]) => Ok(whole),
        Err(parts) => Ok(parts.concat().into()),
    }
}

/// The next part, none at the end.
async fn next(body: &mut Body, patience: Patience, end: Instant) -> ApiResult<Option<Bytes>> {
    loop {
        let soon = end.min(Instant::now() + patience.between);
        match timeout_at(soon, body.frame()).await {
            Ok(None) => return Ok(None),
            // What is no data are trailers, which say nothing here.
            Ok(Some(Ok(frame))) => {
                if let Ok(part) = frame.into_data() {
                    return Ok(Some(part));
                }
            }
            Ok(Some(Err(_))) => return Err(Error::refused(ErrorKind::NotJson, "The request body ended early").into()),
            Err(_) => {
                let message = "The request body did not come in time".to_owned();
                return Err(ApiError::Status(StatusCode::REQUEST_TIMEOUT, ErrorKind::Unknown, message));
            }
        }
    }
}

/// Reads the rest of a body for nothing. Whoever is answered while they send may not hear it, and the connection is
/// closed then, on which they may have sent their next request.
async fn drain(mut body: Body, patience: Patience, end: Instant) -> ApiResult<()> {
    let mut drained = 0;
    while let Some(part) = next(&mut body, patience, end).await? {
        drained += part.len();
        if drained > DRAINED {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::response::IntoResponse as _;
    use futures_util::{StreamExt as _, stream};

    use super::*;

    const NEVER: Duration = Duration::from_hours(1);
    const AT_ONCE: Duration = Duration::from_millis(20);

    fn part(text: &'static str) -> Result<Bytes, Infallible> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    async fn status_of(patience: Patience, body: Body, limit: usize) -> StatusCode {
        collect_in(patience, body, limit).await.unwrap_err().into_response().status()
    }

    #[tokio::test]
    async fn parts_become_one_body() {
        let body = Body::from_stream(stream::iter([part("{\"a\""), part(":"), part("1}")]));
        assert_eq!(collect(body, 7).await.unwrap(), "{\"a\":1}");
        assert_eq!(collect(Body::empty(), 0).await.unwrap(), "");
        let body = Body::from_stream(stream::iter([part("1234"), part("5678")]));
        let patience = Patience { between: NEVER, whole: NEVER };
        assert_eq!(status_of(patience, body, 7).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

    /// Trap: unfinished bodies hold connections.
    #[tokio::test]
    async fn a_body_of_which_no_more_comes_is_given_up() {
        let unfinished = || Body::from_stream(stream::iter([part("{")]).chain(stream::pending()));
        let patience = Patience { between: AT_ONCE, whole: NEVER };
        assert_eq!(status_of(patience, unfinished(), 100).await, StatusCode::REQUEST_TIMEOUT);
        // Also where it is too large already and the rest is read for nothing.
        assert_eq!(status_of(patience, unfinished(), 0).await, StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_body_that_drips_is_given_up() {
        let drips = stream::repeat_with(|| part(" ")).then(|part| async {
            tokio::task::yield_now().await;
            part
        });
        let patience = Patience { between: NEVER, whole: AT_ONCE };
        assert_eq!(status_of(patience, Body::from_stream(drips), usize::MAX).await, StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn patience_ends_within_two_minutes() {
        let patience = Patience::for_at_most(crate::api::route::BODY_LIMIT);
        assert!(patience.whole < Duration::from_mins(2), "{patience:?}");
    }
}
