//! `GET /sync`: waits until something has happened for the user, or the client's patience ends.
//!
//! A client that comes with a token of a log that a restored backup has replaced gets everything that there is, like
//! one that comes with none. It goes on by itself: every timeline is `limited`, so that it replaces what it has by what
//! it gets, and rooms that its user is not in come as left. Rooms that the backup does not know can't come at all;
//! clients show them until they are started without what they have stored. Of everybody with whom its user shares a
//! room it is to fetch the devices again.
//!
//! A waiting client holds no connection to the database and costs no look into it: it is woken by the log
//! (`reader/sync/watch.rs`). Woken, it may still find that nothing is for it, by its filter or because it is ignored,
//! and waits on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::{sync::Arc, time::Duration};

use ruma::{
    UserId,
    api::{client::sync::sync_events::v3, error::DeserializationError},
    presence::PresenceState,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::time::{Instant, sleep_until};

use super::news::{self, Shape};
use crate::{
    api::{
        endpoint::RawAnswer,
        error::ApiResult,
        extract::Call,
        own::{Download, Extra, WithExtra, given, read_query},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    ground::position::{Position, Token},
    people::{
        account::{Caller, Pace},
        filter::StoredFilter,
        rate_limit::Limit,
    },
    reader::sync::{self, Effort, Gathered, StateAfter, SyncBody, SyncWriter},
};

/// A client may wait no longer than this, so that a connection that died without a word is noticed.
pub(super) const MAX_PATIENCE: Duration = Duration::from_mins(2);

/// What a sync that sends rooms whole costs beside the rooms, in units of one room.
const WHOLE_SYNC: u32 = 10;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Download<WithExtra<v3::Request, SyncQuery>>, _, _>(sync)
}

/// What ruma leaves out of a sync.
#[derive(Deserialize)]
struct SyncQuery {
    /// The filter, if the request brings one instead of naming it.
    #[serde(default, deserialize_with = "inline")]
    filter: Option<StoredFilter>,
    #[serde(rename = "org.matrix.msc4222.use_state_after", default)]
    unstable_state_after: bool,
}

impl Extra for SyncQuery {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        read_query(request)
    }
}

/// A filter in the request itself; none where it names one.
fn inline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StoredFilter>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let json = Some(text).filter(|text| text.starts_with('{'));
    json.map(|json| StoredFilter::from_json(&json).map_err(D::Error::custom)).transpose()
}

async fn sync(app: App, call: Call<Download<WithExtra<v3::Request, SyncQuery>>>) -> ApiResult<RawAnswer> {
    let Call { request: Download(WithExtra { request, extra }), caller, .. } = call;
    let SyncQuery { filter, unstable_state_after } = extra;
    let state_after = if request.use_state_after {
        Some(StateAfter::Stable)
    } else {
        unstable_state_after.then_some(StateAfter::Unstable)
    };
    let (user_id, device_id) = (caller.user_id(), caller.device_id());
    let filter = match (filter, request.filter) {
        (Some(definition), _) => Arc::new(definition),
        (None, Some(v3::Filter::FilterId(id))) => Box::pin(app.filters.definition(user_id, &id)).await?,
        _ => Arc::default(),
    };
    let token = given(request.since.as_deref()).map(str::parse::<Token>).transpose().map_err(Error::from)?;
    let since = match &token {
        Some(token) => Box::pin(app.log.place(token)).await?,
        None => None,
    };
    // A token of another log confirms nothing here: what waits is sent once more rather than never.
    let delivered = since.and(token.and_then(|token| token.delivered)).unwrap_or(Position::START);
    if since.is_some() {
        // Before it waits: what the client says it has is not kept for as long as nothing happens.
        Box::pin(app.to_device.confirm(user_id, device_id, delivered)).await?;
    }
    let begins_anew = token.is_some() && since.is_none();
    if begins_anew {
        // It may have asked to wait for news, for which no node looks up whether it knows the newest.
        Box::pin(app.catch_up()).await?;
    }
    let sends_whole = since.is_none() || request.full_state;
    if sends_whole {
        Box::pin(count_whole(&app, user_id, caller.pace())).await?;
    } else {
        Box::pin(app.rate_limits.check(Limit::Read, 1, user_id, caller.pace())).await?;
    }
    let _connected = app.presence.seen(user_id, device_id, &request.set_presence);
    let client = sync::Client::from(&caller);
    let asked = sync::SyncRequest {
        client: client.clone(),
        wanted: (&*filter).into(),
        since,
        delivered: Some(delivered),
        begins_anew,
        full_state: request.full_state,
        state_after: state_after.is_some(),
    };
    let writer = SyncWriter { client, filter, state_after, begins_anew };
    let patience = request.timeout.unwrap_or_default().min(MAX_PATIENCE);
    let waits = asked.since.is_some() && !asked.full_state && !patience.is_zero();
    let patience = if token.is_some_and(|token| token.catching_up) { Duration::ZERO } else { patience };
    let gathered = wait(&app, &caller, &asked, patience).await?;
    if !sends_whole {
        // Whoever was away for long gets as much as at the beginning.
        let rooms = u32::try_from(gathered.joined.len() + gathered.rest.len()).unwrap_or(u32::MAX);
        let cost = rooms.saturating_add(gathered.effort.cost());
        Box::pin(app.rate_limits.owe(Limit::Read, cost, user_id, caller.pace())).await?;
    }
    // A client that does not want to be seen has nobody to show anything to.
    let catching_up = !waits && request.set_presence != PresenceState::Offline;
    Box::pin(news::answer((app, caller), asked, gathered, SyncParts { writer, catching_up, body: None })).await
}

/// A sync as it is written.
struct SyncParts {
    writer: SyncWriter,
    /// What the client's next token says.
    catching_up: bool,
    /// None before the first part.
    body: Option<SyncBody>,
}

impl Shape for SyncParts {
    async fn write(&mut self, app: &App, gathered: Gathered) -> Result<()> {
        let tokens = app.syncs.tokens(&gathered).await?;
        let delivered = Some(gathered.delivered);
        let next = Token { catching_up: self.catching_up, delivered, ..tokens.of(gathered.until) };
        let body = self.body.get_or_insert_with(|| SyncBody::new(next));
        self.writer.write(body, gathered, &tokens, app.clock.now())
    }

    fn take(&mut self) -> Vec<u8> {
        self.body.as_mut().map(SyncBody::take).unwrap_or_default()
    }

    fn end(self) -> Vec<u8> {
        self.body.map(SyncBody::end).unwrap_or_default()
    }
}

/// Counts a sync that sends rooms whole, by how many the user is in.
pub(super) async fn count_whole(app: &App, user_id: &UserId, pace: Pace) -> ApiResult<()> {
    let rooms = app.syncs.watcher(user_id).await?.count_joined_rooms();
    let cost = u32::try_from(rooms).unwrap_or(u32::MAX).saturating_add(WHOLE_SYNC);
    Ok(app.rate_limits.check(Limit::Sync, cost, user_id, pace).await?)
}

/// Gathers as soon as something concerns the user; when time is up, the answer is empty.
///
/// Everything but the waiting itself is on the heap only while it runs: ten thousand clients wait at once.
async fn wait(app: &App, caller: &Caller, asked: &sync::SyncRequest, patience: Duration) -> ApiResult<Gathered> {
    let deadline = Instant::now() + patience;
    let watcher = Box::pin(app.syncs.watcher(caller.user_id())).await?;
    let mut wakes = watcher.wakes();
    let at_once = asked.since.is_none() || asked.full_state || patience.is_zero();
    let mut seen = asked.since.unwrap_or_default();
    // More was sent to the device than fitted into the answers before.
    let mut is_behind = asked.delivered.is_some_and(|delivered| delivered < seen);
    let mut place = None;
    let mut effort = Effort::default();
    loop {
        let last = *wakes.borrow_and_update();
        if at_once || is_behind || last > seen {
            is_behind = false;
            let turn = watcher.turn().await?;
            let mut gathered = Box::pin(app.syncs.gather(asked, &watcher, turn)).await?;
            // What woke this user may be the end of their device: what came after it is not for them any more.
            Box::pin(app.accounts.check_still_logged_in(caller)).await?;
            effort.add(gathered.effort);
            if at_once || !gathered.is_empty() {
                gathered.effort = effort;
                return Ok(gathered);
            }
            // It was not for them, or is not in their filter.
            seen = gathered.until;
        }
        let place = place.get_or_insert_with(|| app.syncs.begin_to_wait(&asked.client));
        let _waiting = app.metrics.waiting_sync();
        tokio::select! {
            changed = wakes.changed() => changed.map_err(Error::broken)?,
            () = sleep_until(deadline) => break,
            () = place.ended() => break,
            () = app.tasks.shutdown().started() => break,
        }
    }
    // Nothing concerns the user up to here, nor waits for the device: the client need not ask about it again.
    let until = asked.since.unwrap_or_default().max(seen);
    Ok(Gathered { effort, ..Box::pin(app.syncs.gather_nothing(&asked.client, until)).await? })
}
