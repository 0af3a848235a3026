//! A room's history, a page at a time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use axum::Router;
use ruma::api::{
    IncomingRequest,
    client::message::get_message_events::v3::{Request, Response},
    error::DeserializationError,
};
use serde::Deserialize;

use super::token::{place, start};
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        in_room::InRoom,
        own::{given, json_text, metadata_of, read_query},
        route::Routes as _,
    },
    app::App,
    event::{ClientFormat, RelationFilter, client_event},
    room::timeline::Walk,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<InRoom<Messages>, _, _>(messages)
}

/// A page to read, with what ruma leaves out of its filter.
struct Messages {
    request: Request,
    relations: RelationFilter,
}

metadata_of!(Messages: Request);

impl IncomingRequest for Messages {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        #[derive(Deserialize)]
        struct Query {
            #[serde(default, deserialize_with = "json_text")]
            filter: Option<RelationFilter>,
        }
        let Query { filter } = read_query(&request)?;
        let request = Request::try_from_http_request_inner(request, path)?;
        Ok(Self { request, relations: filter.unwrap_or_default() })
    }
}

async fn messages(app: App, call: Call<InRoom<Messages>>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let Messages { request, relations } = request.read()?;
    let from = start(&app, request.from.as_deref(), request.dir).await?;
    let between = (from, place(&app, request.to.as_deref()).await?);
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let ignored = app.account_data.ignored(&caller.user_id).await?;
    let mut reading = reading.ignoring(ignored);
    let walk = Walk::new(&reading, request.dir, between, limit, &request.filter).relating(&relations);
    let page = app.rooms.page(&mut reading, &walk).await?;

    let now = app.clock.now();
    let mut response = Response::default();
    let tokens = app.log.tokens(page.end.into_iter().chain([walk.from])).await?;
    let from = given(request.from.as_deref());
    response.start = from.map_or_else(|| tokens.of(walk.from).to_string(), ToOwned::to_owned);
    response.end = page.end.map(|end| tokens.of(end).to_string());
    let events = page.events.iter().map(|event| &**event);
    let writer = app.rooms.writer(&reading, events, &caller.device_id, now).await?;
    response.chunk = page.events.iter().map(|event| writer.write(event)).collect();
    if !request.filter.lazy_load_options.is_disabled() {
        let senders = app.rooms.list_senders(&reading, &page.events).await?;
        let format = ClientFormat { with_room_id: true, now: Some(now), ..ClientFormat::default() };
        response.state = senders.iter().map(|member| client_event(member, &format)).collect();
    }
    Ok(response)
}
