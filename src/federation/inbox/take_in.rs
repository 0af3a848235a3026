//! Taking in one event whose signatures have been verified: first what is missing of its past is fetched, then the room
//! has the word on how it stands.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-missing-events>

use ruma::{OwnedServerName, api::error::ErrorKind};

use super::Inbox;
use crate::{
    error::Error,
    event::{Pdu, Standing},
    federation::fetcher::FetchError,
    room::Resident,
};

/// For how many of the events before one a state is fetched. Where history has not forked, it is needed for one at most.
const MOST_STATES: usize = 3;

/// What became of an event.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is in its room; how it stands there, as metrics call it.
    Done(&'static str),
    /// It will never be.
    Dropped(String),
    /// Other servers did not return what it takes.
    Later(String),
    /// This server could not do it now.
    Again(String),
}

impl Inbox {
    /// Takes in an event that `origin` has sent.
    pub(super) async fn take_in(&self, room: &Resident, pdu: Pdu, origin: &OwnedServerName) -> Outcome {
        // Nearly always everything is here that it follows and cites.
        match self.0.rooms.append_remote(room, pdu.clone()).await {
            Err(Error::Refused { kind: ErrorKind::NotFound, .. }) => {}
            appended => return Outcome::of(appended.map_err(FetchError::Own)),
        }
        Outcome::of(Box::pin(self.take_in_after_fetching(room, pdu, origin)).await)
    }

    /// Takes in an event of whose past something is not here.
    async fn take_in_after_fetching(
        &self,
        room: &Resident,
        pdu: Pdu,
        origin: &OwnedServerName,
    ) -> Result<Standing, FetchError> {
        let servers = [origin.clone()];
        let mut states = 0;
        for earlier in self.0.fetcher.list_missing_before(room, &pdu, origin).await? {
            let event_id = earlier.event_id().to_owned();
            match self.place(room, earlier, &servers, states < MOST_STATES).await {
                Ok((_, with_state)) => states += usize::from(with_state),
                Err(FetchError::Own(error)) if !matches!(error, Error::Refused { .. }) => return Err(error.into()),
                // What follows it has a gap before it then.
                Err(error) => tracing::debug!(%event_id, %error, "an event that was missing could not be taken in"),
            }
        }
        self.place(room, pdu, &servers, true).await.map(|(standing, _)| standing)
    }

    /// Gives an event its place: after what it follows, if all of that is here by now, or with a gap before it and the
    /// state that another server says was there. Returns whether such a state was fetched.
    async fn place(
        &self,
        room: &Resident,
        pdu: Pdu,
        servers: &[OwnedServerName],
        may_fetch_state: bool,
    ) -> Result<(Standing, bool), FetchError> {
        let fetcher = &self.0.fetcher;
        fetcher.keep_cited(room, &pdu, servers).await?;
        let missing = fetcher.list_unplaced(pdu.prev_events()).await?;
        let Some(first) = missing.first() else {
            return Ok((self.0.rooms.append_remote(room, pdu).await?, false));
        };
        if !may_fetch_state {
            return Err(FetchError::Missing(format!("it follows {first}, and more states than a few would be needed")));
        }
        let state = fetcher.fetch_state(room, pdu.event_id(), servers).await?;
        Ok((self.0.rooms.append_after_gap(room, pdu, &state).await?, true))
    }
}

impl Outcome {
    fn of(taken: Result<Standing, FetchError>) -> Self {
        match taken {
            Ok(Standing::Accepted | Standing::Outlier) => Self::Done("accepted"),
            Ok(Standing::SoftFailed) => Self::Done("soft_failed"),
            Ok(Standing::Rejected) => Self::Done("rejected"),
            Err(FetchError::Own(Error::Refused { message, .. })) => Self::Dropped(message),
            Err(FetchError::Own(error @ (Error::Db(_) | Error::Unavailable(_)))) => Self::Again(error.to_string()),
            Err(error) => Self::Later(error.to_string()),
        }
    }
}
