//! The body of another server's answer, as it comes: bounded in length, in time, and in silence.

use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::{bounds::Bounds, remote_error::RemoteError};

/// The longest error that is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// An answer whose body is still to be read.
pub(crate) struct RemoteBody {
    response: Response,
    bounds: Bounds,
    /// For the last byte.
    deadline: Instant,
    /// How many bytes have come.
    read: usize,
}

impl RemoteBody {
    pub(super) fn new(response: Response, bounds: Bounds, deadline: Instant) -> Self {
        Self { response, bounds, deadline, read: 0 }
    }

    /// The answer itself if it is one of success, else what the other server says went wrong.
    pub(super) async fn unless_refused(self) -> Result<Self, RemoteError> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        if status.is_redirection() || status.is_informational() {
            return Err(RemoteError::Malformed(format!("it answers with the status {status}")));
        }
        let bounds = Bounds { max_bytes: MAX_ERROR, ..self.bounds };
        // What can't be read of an error leaves its status, which says enough.
        let body = Self { bounds, ..self }.whole().await.map(http::Response::into_body).unwrap_or_default();
        Err(RemoteError::refused(status, &body))
    }

    /// The next piece, None at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let until = self.deadline.min(Instant::now() + self.bounds.idle);
        let chunk = match timeout_at(until, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| RemoteError::of(&error))?,
            Err(_) => return Err(RemoteError::slow()),
        };
        self.read = self.read.saturating_add(chunk.as_ref().map_or(0, Bytes::len));
        if self.read > self.bounds.max_bytes {
            return Err(self.too_long());
        }
        Ok(chunk)
    }

    /// All of it, whatever length it is announced with.
    pub(crate) async fn whole(mut self) -> Result<http::Response<Vec<u8>>, RemoteError> {
        let announced = self.response.content_length().unwrap_or(0);
        if announced > u64::try_from(self.bounds.max_bytes).unwrap_or(u64::MAX) {
            return Err(self.too_long());
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        let mut whole = http::Response::new(body);
        *whole.status_mut() = self.response.status();
        *whole.headers_mut() = self.response.headers().clone();
        Ok(whole)
    }

    fn too_long(&self) -> RemoteError {
        RemoteError::Malformed(format!("its answer is longer than {} bytes", self.bounds.max_bytes))
    }
}
