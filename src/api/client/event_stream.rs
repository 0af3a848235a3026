//! The event stream that clients had before `/sync`, with which rooms are previewed still, and the lookup of an event
//! by nothing but its identifier.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events>,
//! <https://spec.matrix.org/v1.19/client-server-api/#room-previews> and
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid>

use std::time::Duration;

use axum::Router;
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::{
        IncomingRequest,
        auth_scheme::AccessToken,
        client::{
            peeking::listen_to_new_events::v3 as listen_to_new_events, room::get_room_event::v3 as get_room_event,
        },
        error::DeserializationError,
        metadata,
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
        guest,
        json::Json,
        own::{metadata_of, read_path, read_query},
        route::Routes as _,
    },
    app::App,
    error::Error,
    position::Position,
    sync::{Heard, Listener},
};

/// How long a client waits that does not say.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Listen, _, _>(listen).endpoint::<FindEvent, _, _>(event)
}

/// A piece of the stream.
#[derive(Serialize)]
struct Piece {
    start: String,
    end: String,
    chunk: Vec<Raw<AnyTimelineEvent>>,
}

/// Without `room_id` this is what clients of old do all the time, so it tells that the user is there. Guests have it
/// for previews only.
async fn listen(app: App, call: Call<Listen>) -> ApiResult<Json> {
    let Call { request, caller, .. } = call;
    if request.room_id.is_none() {
        guest::refuse(&caller)?;
    }
    let from = token::listening_point(&app, request.from.as_deref()).await?;
    let patience = request.timeout.unwrap_or(PATIENCE).min(MAX_PATIENCE);
    let presence = if request.room_id.is_none() { PresenceState::Online } else { PresenceState::Offline };
    let _connected = app.presence.seen(&caller.user_id, &caller.device_id, &presence);
    let listener = Listener { user_id: caller.user_id, device_id: caller.device_id, room: request.room_id };
    let (start, heard) = wait(&app, &listener, from, patience).await?;
    let tokens = app.log.tokens([start, heard.until]).await?;
    let (start, end) = (tokens.of(start).to_string(), tokens.of(heard.until).to_string());
    let piece = Piece { start, end, chunk: heard.events };
    Ok(Json::of(&piece).map_err(Error::broken)?)
}

/// Listens until something is said, or the client's patience ends. Tells from where on too: from now, where the
/// client does not say.
async fn wait(
    app: &App,
    listener: &Listener,
    from: Option<Position>,
    patience: Duration,
) -> ApiResult<(Position, Heard)> {
    let deadline = Instant::now() + patience;
    let mut bell = Box::pin(app.syncs.bell(listener)).await?;
    let start = from.unwrap_or_else(|| app.log.tail().reached());
    let mut until = start;
    loop {
        bell.borrow_and_update();
        let heard = Box::pin(app.syncs.hear(listener, until)).await?;
        if heard.more || !heard.events.is_empty() {
            return Ok((start, heard));
        }
        until = heard.until;
        let _waiting = app.metrics.waiting_sync();
        tokio::select! {
            rung = bell.changed() => rung.map_err(Error::broken)?,
            () = sleep_until(deadline) => break,
            () = app.tasks.shutdown().started() => break,
        }
        // Whoever has been logged out in the meantime hears nothing more.
        Box::pin(app.accounts.check_logged_in(&listener.user_id, &listener.device_id)).await?;
    }
    Ok((start, Heard { events: Vec::new(), until, more: false }))
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
struct Listen {
    from: Option<String>,
    #[serde(default, with = "ruma::serde::duration::opt_ms")]
    timeout: Option<Duration>,
    room_id: Option<OwnedRoomId>,
}

metadata_of!(Listen: listen_to_new_events::Request);

impl IncomingRequest for Listen {
    type EndpointError = <listen_to_new_events::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        read_query(&request)
    }
}

/// An event by its identifier, which ruma has no request for.
struct FindEvent {
    event_id: OwnedEventId,
}

metadata! {
    @for FindEvent,
    method: GET,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        1.0 => "/_matrix/client/r0/events/{event_id}",
        1.1 => "/_matrix/client/v3/events/{event_id}",
    }
}

impl IncomingRequest for FindEvent {
    type EndpointError = <get_room_event::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = get_room_event::Response;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (event_id,) = read_path(path)?;
        Ok(Self { event_id })
    }
}
