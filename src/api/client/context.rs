//! What was said around an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#event-context>

use axum::Router;
use ruma::api::client::context::get_context::v3::{Request, Response};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    error::Error,
    event::{ClientFormat, client_event},
    room::timeline::Context,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(context)
}

async fn context(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let ignored = app.account_data.ignored(&caller.user_id).await?;
    let mut reading = app.rooms.open(&request.room_id, &caller.user_id).await?.ignoring(ignored);
    let found = app.rooms.context(&mut reading, &request.event_id, limit, &request.filter).await?;
    let Context { event, around, state } =
        found.ok_or_else(|| Error::not_found("There is no such event in this room, or you can't see it"))?;

    let now = app.clock.now();
    let events = around.before.iter().chain(&around.after).map(|event| &**event).chain([&event]);
    let writer = app.rooms.writer(&reading, events, &caller.device_id, now).await?;
    let mut response = Response::new();
    let tokens = app.log.tokens([around.start, around.end]).await?;
    response.start = Some(tokens.of(around.start).to_string());
    response.end = Some(tokens.of(around.end).to_string());
    response.events_before = around.before.iter().map(|event| writer.write(event)).collect();
    response.event = Some(writer.write(&event));
    response.events_after = around.after.iter().map(|event| writer.write(event)).collect();
    let format = ClientFormat { with_room_id: true, now: Some(now), ..ClientFormat::default() };
    response.state = state.iter().map(|event| client_event(event, &format)).collect();
    Ok(response)
}
