//! Answers that say what is new in all rooms of a user, and may be more than should be in memory at once.
//!
//! What is too much for one part is gathered and written while the client reads it, so that a user with thousands of
//! rooms takes no more memory than one with a hundred. Where that fails half-way, the answer is broken off, and the
//! client asks again.

use std::{future::ready, io, mem};

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};
use ruma::UserId;

use crate::{
    api::{
        endpoint::{AnswerBody, RawAnswer},
        error::ApiResult,
    },
    app::App,
    error::{Error, Result},
    ground::position::Position,
    people::account::Caller,
    reader::sync::{Gathered, Rest, SyncRequest},
};

/// What an answer is made of, as an endpoint shapes it.
pub(super) trait Shape: Send + 'static {
    /// Writes the next part of what was gathered, in the order in which it was.
    fn write(&mut self, app: &App, gathered: Gathered) -> impl Future<Output = Result<()>> + Send;
    /// What has been written since this was last called.
    fn take(&mut self) -> Vec<u8>;
    /// The last of it.
    fn end(self) -> Vec<u8>;
}

/// The answer to a caller, of whose rooms the first part has been gathered: whole where that is all.
pub(super) async fn answer<S: Shape>(
    (app, caller): (App, Caller),
    request: SyncRequest,
    mut gathered: Gathered,
    mut shape: S,
) -> ApiResult<RawAnswer> {
    let (until, rest) = (gathered.until, mem::take(&mut gathered.rest));
    Box::pin(shape.write(&app, gathered)).await?;
    if rest.is_empty() {
        return Ok(RawAnswer::json(AnswerBody::Whole(shape.end().into())));
    }
    let first = stream::once(ready(Ok(Bytes::from(shape.take()))));
    let others = Others { app, caller, request, until, rest, shape: Some(shape) };
    Ok(RawAnswer::json(AnswerBody::Parts(first.chain(stream::try_unfold(others, Others::next)).boxed())))
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

/// The parts after the first.
struct Others<S> {
    app: App,
    caller: Caller,
    request: SyncRequest,
    until: Position,
    rest: Rest,
    /// None once it has ended.
    shape: Option<S>,
}

impl<S: Shape> Others<S> {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let Some(mut shape) = self.shape.take() else { return Ok(None) };
        match Box::pin(self.write_part(&mut shape)).await {
            Ok(()) if self.rest.is_empty() => Ok(Some((shape.end().into(), self))),
            Ok(()) => {
                let part = shape.take().into();
                self.shape = Some(shape);
                Ok(Some((part, self)))
            }
            Err(error) => Err(broken_off("a sync", self.caller.user_id(), &error)),
        }
    }

    async fn write_part(&mut self, shape: &mut S) -> Result<()> {
        let Self { app, caller, request, until, rest, .. } = self;
        let turn = app.syncs.watcher(caller.user_id()).await?.turn().await?;
        let mut gathered = app.syncs.gather_more(request, (*until, mem::take(rest)), turn).await?;
        // Whoever reads slowly may be logged out meanwhile.
        app.accounts.check_still_logged_in(caller).await?;
        *rest = mem::take(&mut gathered.rest);
        shape.write(app, gathered).await
    }
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
