//! A room's history, a page at a time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use axum::Router;
use ruma::api::client::message::get_message_events::v3::{Request, Response};

use super::token::{place, start};
use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    event::{ClientFormat, client_event},
    room::timeline::Walk,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(messages)
}

async fn messages(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let from = start(&app, request.from.as_deref(), request.dir).await?;
    let between = (from, place(&app, request.to.as_deref()).await?);
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let ignored = app.account_data.ignored(&caller.user_id).await?;
    let mut reading = app.rooms.open(&request.room_id, &caller.user_id).await?.ignoring(ignored);
    let walk = Walk::new(&reading, request.dir, between, limit, &request.filter);
    let page = app.rooms.page(&mut reading, &walk).await?;

    let now = app.clock.now();
    let mut response = Response::default();
    let tokens = app.log.tokens(page.end.into_iter().chain([walk.from])).await?;
    response.start = request.from.unwrap_or_else(|| tokens.of(walk.from).to_string());
    response.end = page.end.map(|end| tokens.of(end).to_string());
    let events = page.events.iter().map(|event| &**event);
    let writer = app.rooms.writer(&reading, events, &caller.device_id, now).await?;
    response.chunk = page.events.iter().map(|event| writer.write(event)).collect();
    if !request.filter.lazy_load_options.is_disabled() {
        let senders = app.rooms.list_senders(&reading.room, &page.events).await?;
        let format = ClientFormat { with_room_id: true, now: Some(now), ..ClientFormat::default() };
        response.state = senders.iter().map(|member| client_event(member, &format)).collect();
    }
    Ok(response)
}
