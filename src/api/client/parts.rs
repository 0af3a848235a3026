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
    error::Result,
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
        Err(error) => {
            let (what, user_id) = (P::WHAT, parts.user_id());
            tracing::warn!(%error, %user_id, "{what} was broken off half-way: the client has to repeat it");
            Err(io::Error::other("the rest can't be read"))
        }
    }
}
