//! Answers that say what is new in all rooms of a user: so many rooms are gathered and written at once that somebody with
//! thousands of them takes no more memory than somebody with a hundred.

use std::mem;

use ruma::UserId;

use super::parts::{self, Parts};
use crate::{
    api::{endpoint::RawAnswer, error::ApiResult},
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

/// The answer to a caller, of whose rooms the first part has been gathered.
pub(super) async fn answer<S: Shape>(
    (app, caller): (App, Caller),
    request: SyncRequest,
    first: Gathered,
    shape: S,
) -> ApiResult<RawAnswer> {
    let until = first.until;
    parts::answer(News { app, caller, request, until, first: Some(first), rest: Rest::default(), shape }).await
}

struct News<S> {
    app: App,
    caller: Caller,
    request: SyncRequest,
    /// All parts say what is new up to here.
    until: Position,
    /// None once it has been written.
    first: Option<Gathered>,
    /// The rooms that have not been gathered yet.
    rest: Rest,
    shape: S,
}

impl<S: Shape> Parts for News<S> {
    const WHAT: &'static str = "a sync";

    async fn write(&mut self) -> Result<bool> {
        let mut gathered = match self.first.take() {
            Some(first) => first,
            None => self.gather_more().await?,
        };
        self.rest = mem::take(&mut gathered.rest);
        self.shape.write(&self.app, gathered).await?;
        Ok(self.rest.is_empty())
    }

    fn take(&mut self) -> Vec<u8> {
        self.shape.take()
    }

    fn end(self) -> Vec<u8> {
        self.shape.end()
    }

    fn user_id(&self) -> &UserId {
        self.caller.user_id()
    }
}

impl<S: Shape> News<S> {
    async fn gather_more(&mut self) -> Result<Gathered> {
        let Self { app, caller, request, until, rest, .. } = self;
        let turn = app.syncs.watcher(caller.user_id()).await?.turn().await?;
        let gathered = app.syncs.gather_more(request, (*until, mem::take(rest)), turn).await?;
        // Whoever reads slowly may be logged out meanwhile.
        app.accounts.check_still_logged_in(caller).await?;
        Ok(gathered)
    }
}
