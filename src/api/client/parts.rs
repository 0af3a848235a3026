//! Answers that may be more than should be in memory at once.
//!
//! What is too much for one part is made and written while the client reads it. Where that fails half-way, the answer is
//! broken off, and the client asks again.

use std::{future::ready, io};

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use ruma::UserId;

use crate::{
    api::{
        endpoint::{AnswerBody, RawAnswer},
        error::ApiResult,
    },
    error::{Error, Result},
};

/// An answer that is made part by part.
pub(super) trait Parts: Send + Sized + 'static {
    /// What it is, for the log.
    const WHAT: &'static str;

    /// Writes the next part, and returns whether it was the last.
    fn write(&mut self) -> impl Future<Output = Result<bool>> + Send;
    /// What has been written since this was last called.
    fn take(&mut self) -> Vec<u8>;
    /// The last of it.
    fn end(self) -> Vec<u8>;
    /// Who asked for it.
    fn user_id(&self) -> &UserId;
}

/// All of an answer where that is one part, else the first, and the others as they are read.
pub(super) async fn answer<P: Parts>(mut parts: P) -> ApiResult<RawAnswer> {
    if Box::pin(parts.write()).await? {
        return Ok(RawAnswer::json(AnswerBody::Whole(parts.end().into())));
    }
    let first = stream::once(ready(Ok(Bytes::from(parts.take()))));
    Ok(RawAnswer::json(AnswerBody::Parts(first.chain(stream::try_unfold(Some(parts), next)).boxed())))
}

/// The next part, and what is left then. None once it has ended.
async fn next<P: Parts>(parts: Option<P>) -> io::Result<Option<(Bytes, Option<P>)>> {
    let Some(mut parts) = parts else { return Ok(None) };
    match Box::pin(parts.write()).await {
        Ok(true) => Ok(Some((parts.end().into(), None))),
        Ok(false) => {
            let part = parts.take().into();
            Ok(Some((part, Some(parts))))
        }
        Err(error) => Err(broken_off(P::WHAT, parts.user_id(), &error)),
    }
}

/// What the reader of an answer is handed in place of the rest, after the log has a line of it. That is a warning only where
/// something failed: whoever is logged out while they read, or has deleted what they read, is to get no more of it.
pub(super) fn broken_off(what: &str, user_id: &UserId, error: &Error) -> io::Error {
    if matches!(error, Error::Refused { .. }) {
        tracing::debug!(%error, %user_id, "{what} was broken off half-way: its reader may not go on");
    } else {
        tracing::warn!(%error, %user_id, "{what} was broken off half-way: the client has to repeat it");
    }
    io::Error::other("the rest can't be read")
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use ruma::user_id;

    use super::*;
    use crate::people::account::unknown_access_token;

    /// Counts what is written into a log.
    #[derive(Clone, Default)]
    struct Writes(Arc<AtomicUsize>);

    impl Write for Writes {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_is_logged_out_is_no_warning() {
        let writes = Writes::default();
        let writer = writes.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(move || writer.clone());
        let warnings = |error: &Error| {
            let before = writes.0.load(Ordering::Relaxed);
            assert!(!broken_off("a sync", user_id!("@bob:here"), error).to_string().contains("bob"));
            writes.0.load(Ordering::Relaxed) - before
        };
        tracing::subscriber::with_default(subscriber.finish(), || {
            assert_eq!(warnings(&unknown_access_token()), 0);
            assert_ne!(warnings(&Error::broken("the disk is gone")), 0);
        });
    }
}
