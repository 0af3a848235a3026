//! The event stream that clients had before `/sync`, with which rooms are previewed still, and the lookup of an event
//! by nothing but its identifier.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events>,
//! <https://spec.matrix.org/v1.19/client-server-api/#room-previews> and
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid>

use std::time::Duration;

use ruma::{
    OwnedEventId, OwnedRoomId,
    api::{
        IncomingRequest,
        auth_scheme::AccessToken,
        client::{
            peeking::listen_to_new_events::v3 as listen_to_new_events, room::get_room_event::v3 as get_room_event,
        },
        error::DeserializationError,
    },
    events::AnyTimelineEvent,
    presence::PresenceState,
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::{sync::MAX_PATIENCE, token};
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::Json,
        own::{metadata_of, own_request, read_path, read_query},
        route::Endpoints,
    },
    app::App,
    error::Error,
    ground::position::Position,
    people::account::Caller,
    reader::sync::{Listener, StreamPage},
};

/// How long a client waits that does not say.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<ListenRequest, _, _>(listen).endpoint::<FindEvent, _, _>(event)
}

/// A piece of the stream.
///
/// `start` and `end` are tokens of the log; the next request goes on from `end`.
#[derive(Serialize)]
struct EventStreamChunk {
    start: String,
    end: String,
    chunk: Vec<Raw<AnyTimelineEvent>>,
}

/// Without `room_id` this is what clients of old do all the time, so it counts as a sign that the user is there. Guests
/// have it for previews only.
async fn listen(app: App, call: Call<ListenRequest>) -> ApiResult<Json> {
    let Call { request, caller, .. } = call;
    if request.room_id.is_none() {
        caller.check_registered()?;
    }
    // A token of a log that is gone is refused: what came after it can't be told apart from what did not.
    let from = token::listening_point(&app, request.from.as_deref()).await?;
    let patience = request.timeout.unwrap_or(PATIENCE).min(MAX_PATIENCE);
    let presence = if request.room_id.is_none() { PresenceState::Online } else { PresenceState::Offline };
    let _connected = app.presence.seen(caller.user_id(), caller.device_id(), &presence);
    let listener = Listener { client: (&caller).into(), room: request.room_id };
    let (start, heard) = wait(&app, &caller, &listener, from, patience).await?;
    let tokens = app.log.tokens([start, heard.until]).await?;
    let (start, end) = (tokens.of(start).to_string(), tokens.of(heard.until).to_string());
    let piece = EventStreamChunk { start, end, chunk: heard.events };
    Ok(Json::of(&piece).map_err(Error::broken)?)
}

/// Listens until something is said, or the client's patience ends. Returns from where on, too: from now, where the
/// client does not say.
async fn wait(
    app: &App,
    caller: &Caller,
    listener: &Listener,
    from: Option<Position>,
    patience: Duration,
) -> ApiResult<(Position, StreamPage)> {
    let deadline = Instant::now() + patience;
    // Asked for before anything is read: what is said in between rings.
    let mut wake_ups = Box::pin(app.syncs.wake_ups(listener)).await?;
    // Also where they look into one room: their own watcher is woken when they are logged out.
    let mut own = Box::pin(app.syncs.watcher(caller.user_id())).await?.wakes();
    let start = from.unwrap_or_else(|| app.log.tail().reached());
    let mut until = start;
    let mut place = None;
    loop {
        wake_ups.borrow_and_update();
        own.borrow_and_update();
        let heard = Box::pin(app.syncs.read_stream(listener, until)).await?;
        // Whoever has been logged out in the meantime hears nothing more.
        Box::pin(app.accounts.check_still_logged_in(caller)).await?;
        if heard.more || !heard.events.is_empty() {
            return Ok((start, heard));
        }
        until = heard.until;
        // The connection to the database is given back by now, however long this waits.
        let place = place.get_or_insert_with(|| app.syncs.begin_to_wait(&listener.client));
        let _waiting = app.metrics.waiting_sync();
        tokio::select! {
            rung = wake_ups.changed() => rung.map_err(Error::broken)?,
            rung = own.changed() => rung.map_err(Error::broken)?,
            () = sleep_until(deadline) => break,
            () = place.ended() => break,
            () = app.tasks.shutdown().started() => break,
        }
    }
    Ok((start, StreamPage { events: Vec::new(), until, more: false }))
}

/// `M_NOT_FOUND` alike for what is not there and what the caller may not see.
async fn event(app: App, call: Call<FindEvent>) -> ApiResult<get_room_event::Response> {
    let Call { request, caller, .. } = call;
    let found = app.rooms.find_event_anywhere(&request.event_id, &caller.user_id).await?;
    let (reading, event) = found.ok_or_else(|| Error::not_found("There is no such event, or you can't see it"))?;
    let reading = reading.ignoring(app.account_data.ignored(&caller.user_id).await?);
    let writer = app.rooms.writer(&reading, [&event], &caller.device_id, app.clock.now()).await?;
    Ok(get_room_event::Response::new(writer.write(&event)))
}

/// As ruma's request, which looks into a room, but `room_id` may be absent: then it is about all of the user's rooms.
#[derive(Deserialize)]
struct ListenRequest {
    from: Option<String>,
    /// In milliseconds; [`PATIENCE`] where the client does not say.
    #[serde(default, with = "ruma::serde::duration::opt_ms")]
    timeout: Option<Duration>,
    room_id: Option<OwnedRoomId>,
}

metadata_of!(ListenRequest: listen_to_new_events::Request);

impl IncomingRequest for ListenRequest {
    type EndpointError = <listen_to_new_events::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        read_query(&request)
    }
}

own_request!(
    /// An event by its identifier.
    FindEvent { event_id: OwnedEventId }: GET AccessToken history {
        1.0 => "/_matrix/client/r0/events/{event_id}",
        1.1 => "/_matrix/client/v3/events/{event_id}",
    } -> get_room_event::Response,
    |_request, path| {
        let (event_id,) = read_path(path)?;
        Ok(Self { event_id })
    }
);
