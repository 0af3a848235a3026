//! `GET /sync`: waits until there is something to tell, or the client's patience ends.
//!
//! A client that comes with a token of a log that a restored backup has replaced is told everything that there is, as
//! one that comes with none. It goes on by itself: every timeline is `limited`, so that it puts what it is told in the
//! place of what it has, and rooms that its user is not in are told as left. Of rooms that the backup does not know
//! nothing can be told; clients show them until they are started without what they have stored.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::{sync::Arc, time::Duration};

use axum::Router;
use ruma::{
    DeviceId,
    api::{IncomingRequest, client::sync::sync_events::v3, error::DeserializationError},
    presence::PresenceState,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::time::{Instant, sleep_until};

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::Json,
        own::{given, metadata_of, read_query},
        route::Routes as _,
    },
    app::App,
    error::Error,
    filter::Definition,
    position::Token,
    sync::{self, StateAfter, Writer},
};

/// A client may wait no longer than this, so that a connection that died without a word is noticed.
pub(super) const MAX_PATIENCE: Duration = Duration::from_mins(2);

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Sync, _, _>(sync)
}

/// A sync, with what ruma leaves out of it.
struct Sync {
    request: v3::Request,
    /// The filter, if the request brings one instead of naming it.
    filter: Option<Definition>,
    state_after: Option<StateAfter>,
}

metadata_of!(Sync: v3::Request);

impl IncomingRequest for Sync {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        #[derive(Deserialize)]
        struct Query {
            #[serde(default, deserialize_with = "inline")]
            filter: Option<Definition>,
            #[serde(rename = "org.matrix.msc4222.use_state_after", default)]
            unstable_state_after: bool,
        }
        let Query { filter, unstable_state_after } = read_query(&request)?;
        let request = v3::Request::try_from_http_request_inner(request, path)?;
        let state_after = if request.use_state_after {
            Some(StateAfter::Stable)
        } else {
            unstable_state_after.then_some(StateAfter::Unstable)
        };
        Ok(Self { request, filter, state_after })
    }
}

/// A filter in the request itself; none where it names one.
fn inline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Definition>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let json = Some(text).filter(|text| text.starts_with('{'));
    json.map(|json| Definition::from_json(&json).map_err(D::Error::custom)).transpose()
}

async fn sync(app: App, call: Call<Sync>) -> ApiResult<Json> {
    let Call { request: Sync { request, filter, state_after }, caller, .. } = call;
    let filter = match (filter, request.filter) {
        (Some(definition), _) => Arc::new(definition),
        (None, Some(v3::Filter::FilterId(id))) => Box::pin(app.filters.definition(&caller.user_id, &id)).await?,
        _ => Arc::default(),
    };
    let token = given(request.since.as_deref()).map(str::parse::<Token>).transpose().map_err(Error::from)?;
    let since = match &token {
        Some(token) => Box::pin(app.log.place(token)).await?,
        None => None,
    };
    let begins_anew = token.is_some() && since.is_none();
    if begins_anew {
        // It may have asked to wait for news, for which no node looks up whether it knows the newest.
        Box::pin(app.catch_up()).await?;
    }
    let _connected = app.presence.seen(&caller.user_id, &caller.device_id, &request.set_presence);
    let writer = Writer {
        user_id: caller.user_id.clone(),
        device_id: caller.device_id.clone(),
        filter: Arc::clone(&filter),
        state_after,
        begins_anew,
    };
    let asked = sync::Request {
        user_id: caller.user_id,
        filter,
        since,
        begins_anew,
        full_state: request.full_state,
        state_after: state_after.is_some(),
    };
    let patience = request.timeout.unwrap_or_default().min(MAX_PATIENCE);
    let waits = asked.since.is_some() && !asked.full_state && !patience.is_zero();
    let patience = if token.is_some_and(|token| token.catching_up) { Duration::ZERO } else { patience };
    let gathered = wait(&app, &asked, &writer.device_id, patience).await?;
    // A client that does not want to be seen has nobody to show anything to.
    let catching_up = !waits && request.set_presence != PresenceState::Offline;
    let tokens = Box::pin(app.syncs.tokens(&gathered)).await?;
    let next = Token { catching_up, ..tokens.of(gathered.until) };
    Ok(Json::of(&writer.response(gathered, &tokens, next, app.clock.now())?).map_err(Error::broken)?)
}

/// Gathers as soon as something concerns the user, and tells what there is when time is up.
///
/// Everything but the waiting itself is on the heap only while it runs: ten thousand clients wait at once.
async fn wait(app: &App, asked: &sync::Request, device_id: &DeviceId, patience: Duration) -> ApiResult<sync::Gathered> {
    let deadline = Instant::now() + patience;
    let watcher = Box::pin(app.syncs.watcher(&asked.user_id)).await?;
    let mut wakes = watcher.wakes();
    let at_once = asked.since.is_none() || asked.full_state || patience.is_zero();
    let mut seen = asked.since.unwrap_or_default();
    loop {
        let last = *wakes.borrow_and_update();
        if at_once || last > seen {
            let gathered = Box::pin(app.syncs.gather(asked, &watcher)).await?;
            if at_once || !gathered.is_empty() {
                return Ok(gathered);
            }
            // What woke this user is not for them, not in their filter, or the end of their device.
            Box::pin(app.accounts.check_logged_in(&asked.user_id, device_id)).await?;
            seen = gathered.until;
        }
        let _waiting = app.metrics.waiting_sync();
        tokio::select! {
            changed = wakes.changed() => changed.map_err(Error::broken)?,
            () = sleep_until(deadline) => break,
            () = app.tasks.shutdown().started() => break,
        }
    }
    // Nothing concerns the user up to here: the client need not ask about it again.
    let until = asked.since.unwrap_or_default().max(seen);
    Ok(sync::Gathered { until, ..sync::Gathered::default() })
}
