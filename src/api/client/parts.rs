//! Answers that say what is new in all rooms of a user, and may be more than should be in memory at once.
//!
//! What is too much for one part is gathered and written while the client reads it, so that a user with thousands of
//! rooms takes no more memory than one with a hundred. Where that fails half-way, the answer is broken off, and the
//! client asks again.

use std::{future::ready, io, mem};

use axum::body::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::{
    api::{
        endpoint::{AnswerBody, RawAnswer},
        error::ApiResult,
    },
    app::App,
    error::Result,
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
            Err(error) => {
                let user_id = self.caller.user_id();
                tracing::warn!(%error, %user_id, "a sync was broken off half-way: the client has to repeat it");
                Err(io::Error::other("the rest can't be read"))
            }
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
