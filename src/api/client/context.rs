//! What was said around an event.
//!
//! The two tokens lead on in either direction with `/messages`, so they stand before the first event and after the
//! last. An event that is missing here is asked of other servers, and so is what is missing around it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#event-context>

use std::sync::Arc;

use ruma::{
    api::{Direction, client::context::get_context::v3::Request},
    events::{AnyStateEvent, AnyTimelineEvent},
    serde::Raw,
};
use serde::Serialize;

use super::reaching::{Asked, Reaching};
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        in_room::InRoom,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::Error,
    event::{ClientFormat, client_event},
    room::read::timeline::Context,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<AsJson<InRoom<Request>>, _, _>(context)
}

/// Ruma's response, with every list: ruma leaves empty ones out, and clients go through them without a look.
#[derive(Serialize)]
struct ContextResponse {
    start: String,
    end: String,
    events_before: Vec<Raw<AnyTimelineEvent>>,
    event: Raw<AnyTimelineEvent>,
    events_after: Vec<Raw<AnyTimelineEvent>>,
    state: Vec<Raw<AnyStateEvent>>,
}

/// `M_NOT_FOUND` alike for an event that is not there and one that the caller may not see; `M_FORBIDDEN` for a room
/// that they may not read.
async fn context(app: App, call: Call<AsJson<InRoom<Request>>>) -> ApiResult<Json> {
    let Call { request: AsJson(request), caller, .. } = call;
    let room_id = request.room_id.clone();
    let reading = app.rooms.open(&room_id, caller.user_id()).await?;
    let request = request.read()?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    // Whom the user ignores is left out around the event, but not as the event itself: that was asked for.
    let ignored = app.account_data.ignored(caller.user_id()).await?;
    let mut reaching = Reaching::new(&app, (caller.user_id(), caller.pace()), &room_id);
    let mut reading = reading.ignoring(Arc::clone(&ignored));
    let found = loop {
        let found = app.rooms.context(&mut reading, &request.event_id, limit, &request.filter).await?;
        let has_more = match &found {
            None => reaching.fetch_event(&reading.room, &request.event_id).await?,
            Some(Context { around, .. }) => {
                let stretch = (around.start, around.end);
                reaching.fill(&reading.room, Direction::Backward, stretch).await? == Asked::More
            }
        };
        if !has_more {
            break found;
        }
        reading = app.rooms.open(&room_id, caller.user_id()).await?.ignoring(Arc::clone(&ignored));
    };
    let Context { event, around, state } =
        found.ok_or_else(|| Error::not_found("There is no such event in this room, or you can't see it"))?;

    let now = app.clock.now();
    let events = around.before.iter().chain(&around.after).map(|event| &**event).chain([&event]);
    let writer = app.rooms.writer(&reading, events, caller.device_id(), now).await?;
    let tokens = app.log.page_tokens([around.start, around.end]).await?;
    let format = ClientFormat { with_room_id: true, now: Some(now), ..ClientFormat::default() };
    let response = ContextResponse {
        start: tokens.of_page(around.start).to_string(),
        end: tokens.of_page(around.end).to_string(),
        events_before: around.before.iter().map(|event| writer.write(event)).collect(),
        event: writer.write(&event),
        events_after: around.after.iter().map(|event| writer.write(event)).collect(),
        state: state.iter().map(|event| client_event(event, &format)).collect(),
    };
    Ok(Json::of(&response).map_err(Error::broken)?)
}
