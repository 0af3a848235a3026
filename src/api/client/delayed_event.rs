//! Delayed events: scheduling, managing and looking them up.
//!
//! The proposal has been accepted, and its stable endpoints will come with the specification that has them. Under the
//! unstable prefix it is spoken by clients that were built on three of its texts, and each is answered in its own
//! words: a delay in the query of `/send` and `/state`, the action in the body, lists of what is scheduled and what has
//! ended.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4140-delayed-events-futures.md>

use std::{net::IpAddr, time::Duration};

use http::StatusCode;
use ruma::{
    OwnedRoomId, OwnedTransactionId, UInt,
    api::{
        IncomingRequest,
        client::delayed_events::{
            get_all_delayed_events, get_delayed_event, send_delayed_event,
            update_delayed_event::{UpdateAction, unstable_v1 as update_in_body, unstable_v2 as update},
        },
        error::{DeserializationError, ErrorKind},
    },
    events::TimelineEventType,
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{
        content::read_content,
        error::{ApiError, ApiResult},
        extract::Call,
        json::{AsJson, Json},
        own::{given, metadata_of, read_path, read_query},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::rate_limit::Limit,
    worker::delayed_event::{Action, DelayedEvent, NewDelayedEvent, StatusFilter, TooLong},
};

/// How many events can be asked for by their identifiers.
const MAX_ASKED: usize = 100;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<Schedule, _, _>(schedule)
        .endpoint::<List, _, _>(list)
        .endpoint::<AsJson<get_delayed_event::unstable::Request>, _, _>(find)
        .endpoint::<Act, _, _>(act)
        .endpoint::<update_in_body::Request, _, _>(act_in_body)
}

/// As ruma's request, but with the name that the delay has had since.
struct Schedule {
    room_id: OwnedRoomId,
    kind: TimelineEventType,
    transaction_id: OwnedTransactionId,
    event: Scheduled,
}

#[derive(Deserialize)]
struct Scheduled {
    /// In milliseconds, one at least. The operator sets the most. Earlier texts call it `delay`.
    #[serde(alias = "delay")]
    delay_ms: UInt,
    /// None for what is not state.
    state_key: Option<String>,
    content: Raw<Value>,
}

metadata_of!(Schedule: send_delayed_event::unstable::Request);

impl IncomingRequest for Schedule {
    type EndpointError = <send_delayed_event::unstable::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (room_id, kind, transaction_id) = read_path(path)?;
        Ok(Self { room_id, kind, transaction_id, event: serde_json::from_slice(request.body())? })
    }
}

/// 400 with `ORG.MATRIX.MSC4140_DELAY_TOO_LARGE` where the delay is longer than the operator allows. What the sender
/// may not send now is refused now: later there is nobody to read the error.
async fn schedule(app: App, call: Call<Schedule>) -> ApiResult<Json> {
    let Schedule { room_id, kind, transaction_id, event } = call.request;
    let new = NewDelayedEvent {
        sender: call.caller.user_id,
        device_id: call.caller.device_id,
        transaction_id: Some(transaction_id),
        room_id,
        kind,
        state_key: event.state_key,
        content: read_content(&event.content)?,
        delay: Duration::from_millis(event.delay_ms.into()),
    };
    answer(&app, &new, &[("errcode", "ORG.MATRIX.MSC4140_DELAY_TOO_LARGE")]).await
}

/// Schedules what came through `/send` or `/state`, and refuses in the words of the clients that do so.
///
/// Those clients read `M_MAX_DELAY_EXCEEDED` beside a code that the specification knows.
pub(super) async fn schedule_from_query(app: &App, new: &NewDelayedEvent) -> ApiResult<Json> {
    let too_long = [("errcode", "M_UNKNOWN"), ("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED")];
    answer(app, new, &too_long).await
}

/// `too_long`: what an error has in it that says so.
///
/// The longest delay comes along in milliseconds, for a client to ask for that instead.
async fn answer(app: &App, new: &NewDelayedEvent, too_long: &[(&str, &str)]) -> ApiResult<Json> {
    let scheduled = app.delayed_events.schedule(new).await?;
    let delay_id = scheduled.map_err(|TooLong| {
        let max_delay = u64::try_from(app.delayed_events.limits().max_delay.as_millis()).unwrap_or(u64::MAX);
        let message = format!("This server sends an event at most {max_delay} ms later");
        let mut error = json!({ "error": message, "org.matrix.msc4140.max_delay": max_delay });
        for (name, value) in too_long {
            insert(&mut error, name, (*value).into());
        }
        ApiError::Json(StatusCode::BAD_REQUEST, error)
    })?;
    Ok(Json::from(json!({ "delay_id": delay_id })))
}

/// Ruma's request, by its owner or by whoever knows the identifier: the service that watches over a call has no token.
struct Act(update::Request);

metadata_of!(Act: update::Request);

impl IncomingRequest for Act {
    type EndpointError = <update::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        update::Request::try_from_http_request_inner(request, path).map(Self)
    }
}

/// `M_NOT_FOUND` for an event that is not there, is somebody else's, or has ended in another way than is asked for.
/// Doing again what has been done succeeds.
async fn act(app: App, call: Call<Act>) -> ApiResult<Json> {
    let update::Request { delay_id, action, .. } = &call.request.0;
    let action = find_action(action).ok_or_else(|| {
        let message = "What can be done to a delayed event is `restart`, `send` and `cancel`";
        Error::refused(ErrorKind::Unrecognized, message)
    })?;
    match &call.caller {
        Some(user) => app.rate_limits.check(Limit::Message, 1, &user.user_id, user.pace).await?,
        None => check_stranger(&app, delay_id, call.address).await?,
    }
    let owner = call.caller.as_ref().map(|caller| &*caller.user_id);
    app.delayed_events.act(delay_id, owner, action).await?;
    Ok(Json::from(json!({})))
}

/// One service acts for everybody in every call, all from one address: what it does counts for the owner of the event.
/// Only guesses count for the address.
async fn check_stranger(app: &App, delay_id: &str, address: IpAddr) -> Result<()> {
    match app.delayed_events.find(delay_id, None).await {
        Ok(event) => app.rate_limits.check_user(Limit::Message, 1, &event.user_id).await,
        Err(error) => {
            app.rate_limits.check_address(Limit::Message, 1, address).await?;
            Err(error)
        }
    }
}

/// The action in the body, as the text before had it. Only with a token, and only of one's own events.
async fn act_in_body(app: App, call: Call<update_in_body::Request>) -> ApiResult<update_in_body::Response> {
    let update_in_body::Request { delay_id, action, .. } = &call.request;
    let action =
        find_action(action).ok_or_else(|| Error::invalid_param("`action` is `restart`, `send` or `cancel`"))?;
    app.delayed_events.act(delay_id, Some(&call.caller.user_id), action).await?;
    Ok(update_in_body::Response::new())
}

/// None for an action of a later text.
fn find_action(action: &UpdateAction) -> Option<Action> {
    match action {
        UpdateAction::Restart => Some(Action::Restart),
        UpdateAction::Send => Some(Action::Send),
        UpdateAction::Cancel => Some(Action::Cancel),
        _ => None,
    }
}

/// One of the caller's own events, scheduled or ended; `M_NOT_FOUND` for those of others.
async fn find(app: App, call: Call<AsJson<get_delayed_event::unstable::Request>>) -> ApiResult<Json> {
    let delay_id = &call.request.0.delay_id;
    let event = app.delayed_events.find(delay_id, Some(&call.caller.user_id)).await?;
    let mut shown = show(&event)?;
    if let Some(finalised) = &event.finalised {
        let mut outcome = json!({ "finalised_ts": finalised.ts });
        if let Some(event_id) = &finalised.event_id {
            insert(&mut outcome, "event_id", event_id.as_str().into());
        }
        if let Some(error) = &finalised.error {
            insert(&mut outcome, "error", read(error)?);
        }
        insert(&mut shown, "finalised", outcome);
    }
    Ok(Json::from(shown))
}

/// As ruma's request, with what clients ask for in the query.
///
/// Lists are names that are given again and again.
#[derive(Deserialize)]
struct List {
    /// Any where none is named.
    #[serde(default)]
    status: Vec<Status>,
    #[serde(default, rename = "delay_id")]
    delay_ids: Vec<String>,
    /// The token of the page before.
    from: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Scheduled,
    Finalised,
}

metadata_of!(List: get_all_delayed_events::unstable::Request);

impl IncomingRequest for List {
    type EndpointError = <get_all_delayed_events::unstable::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        read_query(&request)
    }
}

/// The answer of the last text that has this endpoint, and beside it that of the first.
///
/// By identifiers all come at once; by status, page by page. An identifier that is unknown or somebody else's is left
/// out.
async fn list(app: App, call: Call<List>) -> ApiResult<Json> {
    let List { status, delay_ids, from } = call.request;
    if delay_ids.len() > MAX_ASKED {
        return Err(Error::invalid_param(format!("Ask for at most {MAX_ASKED} delayed events at once")).into());
    }
    let user_id = &call.caller.user_id;
    let wants = |one| status.is_empty() || status.contains(&one);
    let wanted = StatusFilter { scheduled: wants(Status::Scheduled), finalised: wants(Status::Finalised) };
    let page = if delay_ids.is_empty() {
        app.delayed_events.page(user_id, wanted, given(from.as_deref())).await?
    } else {
        let delay_ids: Vec<&str> = delay_ids.iter().map(String::as_str).collect();
        app.delayed_events.list(user_id, wanted, &delay_ids).await?
    };
    let mut answer = json!({});
    if wanted.scheduled {
        let scheduled = page.scheduled.iter().map(show_as_before).collect::<Result<Vec<_>>>()?;
        if status.is_empty() {
            insert(&mut answer, "delayed_events", scheduled.clone().into());
        }
        insert(&mut answer, "scheduled", scheduled.into());
    }
    if wanted.finalised {
        let finalised = page.finalised.iter().map(show_end).collect::<Result<Vec<_>>>()?;
        insert(&mut answer, "finalised", finalised.into());
    }
    if let Some(next) = page.next {
        insert(&mut answer, "next_batch", next.into());
    }
    Ok(Json::from(answer))
}

/// An event as the last text writes it. Times are in milliseconds, `delayed_since_ts` since the Unix epoch.
fn show(event: &DelayedEvent) -> Result<Value> {
    let mut shown = json!({
        "delay_id": event.id,
        "room_id": event.room_id,
        "type": event.kind,
        "delay_ms": event.delay_ms,
        "delayed_since_ts": event.delayed_since_ts,
        "content": read(&event.content)?,
    });
    if let Some(state_key) = &event.state_key {
        insert(&mut shown, "state_key", state_key.as_str().into());
    }
    Ok(shown)
}

/// With the names that two fields had before.
fn show_as_before(event: &DelayedEvent) -> Result<Value> {
    let mut shown = show(event)?;
    insert(&mut shown, "delay", event.delay_ms.into());
    insert(&mut shown, "running_since", event.delayed_since_ts.into());
    Ok(shown)
}

/// How an event has ended, as the first text writes it: with an outcome and a reason, which the row does not hold.
fn show_end(event: &DelayedEvent) -> Result<Value> {
    let mut shown = json!({ "delayed_event": show_as_before(event)? });
    let Some(finalised) = &event.finalised else { return Ok(shown) };
    let outcome = if finalised.event_id.is_some() { "send" } else { "cancel" };
    // Whatever was sent before its time was sent by somebody's action.
    let reason = match &finalised.event_id {
        _ if finalised.error.is_some() => "error",
        Some(_) if finalised.ts >= event.send_ts() => "delay",
        _ => "action",
    };
    insert(&mut shown, "outcome", outcome.into());
    insert(&mut shown, "reason", reason.into());
    insert(&mut shown, "origin_server_ts", finalised.ts.into());
    if let Some(event_id) = &finalised.event_id {
        insert(&mut shown, "event_id", event_id.as_str().into());
    }
    if let Some(error) = &finalised.error {
        insert(&mut shown, "error", read(error)?);
    }
    Ok(shown)
}

/// Adds a field. What is not an object can't get any, and is left as it is.
fn insert(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

/// JSON that was written here, so that what can't be read is broken.
fn read(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(Error::broken)
}
