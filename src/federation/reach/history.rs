//! Reading on where events of a room are missing here: what is before this server came, and what is in gaps.
//!
//! Whoever reads comes to a place before which something is missing, has it fetched, and reads the stretch again. It is
//! fetched once however many wait for it, and to its end although all go away. Nobody waits for longer than [`Wait`] says:
//! what is not here by then is for whoever reads next. What no server has is not asked for again for a while.
//!
//! A room of which nothing is missing costs no request and no statement.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use std::time::Duration;

use futures_util::{FutureExt as _, future::BoxFuture};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, api::Direction};
use tokio::time::{Instant, timeout_at};

use super::{
    Dug, Reach,
    answers::{Question, Remembered},
};
use crate::{
    error::Result,
    event::Stored,
    federation::fetcher::{FetchError, OfRoom},
    ground::{flights::Flight, position::Order},
    room::{Resident, Room},
    store::history::Gap,
};

/// How long a request waits in all, and how often it has something fetched.
const PATIENCE: Duration = Duration::from_secs(10);
const ROUNDS: u32 = 4;
/// How many events are fetched at once, and how often on the way to an event that is asked for.
const CHUNK: u32 = 100;
const STEPS: u32 = 20;
/// How many servers are asked which event is closest to a time.
const MOST_SERVERS: usize = 3;
/// For how long it is remembered that nothing is to be had: where servers say so, and where they did not answer.
const EXHAUSTED: Duration = Duration::from_mins(10);
const UNANSWERED: Duration = Duration::from_mins(1);

/// How long one request waits for history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    deadline: Instant,
    rounds: u32,
}

impl Wait {
    pub(crate) fn begin() -> Self {
        Self { deadline: Instant::now() + PATIENCE, rounds: ROUNDS }
    }

    #[cfg(test)]
    pub(super) fn for_no_time() -> Self {
        Self { deadline: Instant::now(), rounds: ROUNDS }
    }
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Read again: there is more.
    More,
    /// What is here is all that there is to read at present.
    Nothing,
    /// More is on its way, or may be had by another request.
    Later,
}

impl Reach {
    /// Where somebody who has read a stretch of a room, after one place and up to another, came first to something that is
    /// missing and can be asked for. In a walk forwards it is the lowest such place.
    pub(crate) async fn find_gap(
        &self,
        room: &Room,
        direction: Direction,
        (after, until): (Order, Order),
    ) -> Result<Option<Gap>> {
        let room_id = room.view(|view| view.room_id.clone());
        let is_met = |gap: &Gap| {
            let question = gap.missing.first().map(|first| Question::History(room_id.clone(), first.clone()));
            after < gap.order && gap.order <= until && question.is_some_and(|asked| !self.is_exhausted(&asked))
        };
        let mut met = self.0.rooms.list_gaps(room).await?.into_iter().filter(is_met);
        Ok(match direction {
            Direction::Backward => met.next_back(),
            Direction::Forward => met.next(),
        })
    }

    /// Whether an event that is not here may be in what is missing of a room.
    pub(crate) async fn may_be_missing(&self, room: &Room, event_id: &EventId) -> Result<bool> {
        let question = Question::History(room.view(|view| view.room_id.clone()), event_id.to_owned());
        Ok(!self.0.rooms.list_gaps(room).await?.is_empty() && !self.is_exhausted(&question))
    }

    /// Fetches what is missing at a gap, as much as is fetched at once.
    pub(crate) async fn fill(&self, wait: &mut Wait, room_id: &RoomId, gap: &Gap) -> Result<Filled> {
        let Some(first) = gap.missing.first() else { return Ok(Filled::Nothing) };
        let (reach, missing) = (self.clone(), gap.missing.clone());
        self.wait_for(wait, room_id, first, |room| async move { reach.fetch_before(&room, &missing).await }.boxed())
            .await
    }

    /// Fetches history until an event is among it.
    pub(crate) async fn fetch_event(&self, wait: &mut Wait, room_id: &RoomId, event_id: &EventId) -> Result<Filled> {
        let (reach, wanted) = (self.clone(), event_id.to_owned());
        self.wait_for(wait, room_id, event_id, |room| async move { reach.dig_for(&room, &wanted).await }.boxed()).await
    }

    /// Has history fetched, unless somebody does already, and waits for it.
    async fn wait_for(
        &self,
        wait: &mut Wait,
        room_id: &RoomId,
        what: &EventId,
        dig: impl FnOnce(Resident) -> BoxFuture<'static, Dug>,
    ) -> Result<Filled> {
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(Filled::Nothing) };
        if self.0.fetcher.list_servers(&room).is_empty() {
            return Ok(Filled::Nothing);
        }
        if wait.rounds == 0 {
            return Ok(Filled::Later);
        }
        wait.rounds -= 1;
        let flight = self.join(room_id, what, || dig(room));
        Ok(match timeout_at(wait.deadline, flight).await {
            Ok(Dug::More) => Filled::More,
            Ok(Dug::Nothing) => Filled::Nothing,
            Err(_elapsed) => Filled::Later,
        })
    }

    fn join(&self, room_id: &RoomId, what: &EventId, dig: impl FnOnce() -> BoxFuture<'static, Dug>) -> Flight<Dug> {
        self.0.digs.join((room_id.to_owned(), what.to_owned()), |landing| {
            let (reach, digging) = (self.clone(), dig());
            let tasks = self.0.tasks.clone();
            let work = async move {
                // Never closed.
                let place = reach.0.places.acquire().await;
                let dug = digging.await;
                drop((place, landing));
                dug
            };
            async move { tasks.see_through("fetching history", work).await.unwrap_or(Dug::Nothing) }
        })
    }

    /// Fetches what is before a gap. `missing` are the events of which it is known that they are missing.
    async fn fetch_before(&self, room: &Resident, missing: &[OwnedEventId]) -> Dug {
        let servers = self.0.fetcher.list_servers(room);
        let fetched = Box::pin(self.0.fetcher.backfill(room, missing, CHUNK, &servers)).await;
        let room_id = room.view(|view| view.room_id.clone());
        let question = missing.first().map(|first| Question::History(room_id.clone(), first.clone()));
        match (fetched, question) {
            (Ok(0), Some(question)) => self.0.answers.remember(question, Remembered::NoHistory, EXHAUSTED),
            (Err(error), Some(question)) => self.note_failure(&room_id, question, &error),
            (Ok(_), _) => return Dug::More,
            (Err(_), None) => {}
        }
        Dug::Nothing
    }

    /// Fetches history on the way to an event. Where that is further than [`STEPS`], whoever asks next goes on from there.
    async fn dig_for(&self, room: &Resident, wanted: &EventId) -> Dug {
        let room_id = room.view(|view| view.room_id.clone());
        let question = Question::History(room_id.clone(), wanted.to_owned());
        match Box::pin(self.try_to_dig_for(room, wanted)).await {
            Ok(true) => return Dug::More,
            Ok(false) => self.0.answers.remember(question, Remembered::NoHistory, UNANSWERED),
            Err(error) => self.note_failure(&room_id, question, &error),
        }
        Dug::Nothing
    }

    /// Whether the event has its place now, or is closer at least.
    async fn try_to_dig_for(&self, room: &Resident, wanted: &EventId) -> Result<bool, FetchError> {
        let (of, servers) =
            (room.view(|view| OfRoom::new(&view.room_id, view.rules)), self.0.fetcher.list_servers(room));
        let found = self.0.fetcher.fetch_events(&of, &servers, &[wanted.to_owned()], 1).await.pop();
        let Some(found) = found else { return Ok(false) };
        for _ in 0..STEPS {
            let gaps = self.0.rooms.list_gaps(room).await?;
            let followed = self.0.rooms.list_after_gaps(&gaps).await?;
            // How deep an event lies its server claims: it is as good a guess as there is.
            let above = followed.iter().filter(|event| event.pdu.depth() > found.depth());
            let nearest = above.min_by_key(|event| event.pdu.depth()).or(followed.first());
            let gap = nearest.and_then(|event| gaps.iter().find(|gap| gap.key == event.key));
            let Some(gap) = gap else { return Ok(false) };
            if self.0.fetcher.backfill(room, &gap.missing, CHUNK, &servers).await? == 0 {
                return Ok(false);
            }
            if self.0.rooms.has_place(wanted).await? {
                break;
            }
        }
        Ok(true)
    }

    /// Whether an event may be missing here that is closer to a time than the one that was found.
    pub(crate) async fn may_be_closer(
        &self,
        room: &Room,
        (ts, direction): (MilliSecondsSinceUnixEpoch, Direction),
        found: Option<&Stored>,
    ) -> Result<bool> {
        let gaps = self.0.rooms.list_gaps(room).await?;
        if gaps.is_empty() {
            return Ok(false);
        }
        let followed = self.0.rooms.list_after_gaps(&gaps).await?;
        Ok(followed.iter().any(|event| match direction {
            Direction::Backward => found.is_none_or(|found| found.order < event.order),
            // What is missing before an event that was sent earlier was sent earlier still.
            Direction::Forward => {
                event.pdu.origin_server_ts() >= ts && found.is_none_or(|found| event.order <= found.order)
            }
        }))
    }

    /// The event that other servers in a room say is closest to a time, of those that answer in time.
    pub(crate) async fn find_closest(
        &self,
        wait: &Wait,
        room_id: &RoomId,
        (ts, direction): (MilliSecondsSinceUnixEpoch, Direction),
    ) -> Result<Option<OwnedEventId>> {
        let Some(room) = self.0.rooms.find(room_id).await? else { return Ok(None) };
        let mut closest: Option<(MilliSecondsSinceUnixEpoch, OwnedEventId)> = None;
        for server in self.0.fetcher.list_servers(&room).iter().take(MOST_SERVERS) {
            let answer = self.0.asked.event_by_timestamp(server, room_id, (ts, direction));
            let (event_id, sent) = match timeout_at(wait.deadline, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    tracing::debug!(%room_id, %server, %error, "a server knows no event that is close to a time");
                    continue;
                }
                Err(_elapsed) => break,
            };
            let is_on_that_side = if direction == Direction::Backward { sent <= ts } else { sent >= ts };
            let is_closer = closest.as_ref().is_none_or(|(best, _)| match direction {
                Direction::Backward => sent > *best,
                Direction::Forward => sent < *best,
            });
            if is_on_that_side && is_closer {
                closest = Some((sent, event_id));
            }
        }
        Ok(closest.map(|(_, event_id)| event_id))
    }

    fn is_exhausted(&self, question: &Question) -> bool {
        self.0.answers.find(question).is_some()
    }

    fn note_failure(&self, room_id: &RoomId, question: Question, error: &FetchError) {
        tracing::info!(%room_id, %error, "history of a room could not be fetched");
        self.0.answers.remember(question, Remembered::NoHistory, UNANSWERED);
    }
}
