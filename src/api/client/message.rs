//! A room's history, a page at a time.
//!
//! A page may hold fewer events than were asked for and still have a token to go on with: the filter has dropped the
//! others. Only a page without `end` is the last. Where events are missing here, other servers are asked for them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use std::sync::Arc;

use ruma::api::{
    client::message::get_message_events::v3::{Request, Response},
    error::DeserializationError,
};
use serde::Deserialize;

use super::{
    reaching::{Asked, Reaching},
    token::{end, start},
};
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        in_room::InRoom,
        own::{Extra, WithExtra, given, json_text, read_query},
        route::Endpoints,
    },
    app::App,
    event::{ClientFormat, RelationFilter, client_event},
    room::read::timeline::Walk,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<InRoom<WithExtra<Request, RelationFilter>>, _, _>(messages)
}

/// What ruma leaves out of the filter.
impl Extra for RelationFilter {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        #[derive(Deserialize)]
        struct FilterQuery {
            #[serde(default, deserialize_with = "json_text")]
            filter: Option<RelationFilter>,
        }
        let FilterQuery { filter } = read_query(request)?;
        Ok(filter.unwrap_or_default())
    }
}

/// `M_FORBIDDEN` for a room that the caller may not read, before any parameter is judged.
async fn messages(app: App, call: Call<InRoom<WithExtra<Request, RelationFilter>>>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let room_id = request.room_id.clone();
    let reading = app.rooms.open(&room_id, caller.user_id()).await?;
    let WithExtra { request, extra: relations } = request.read()?;
    let from = start(&app, request.from.as_deref(), request.dir).await?;
    let between = (from, end(&app, request.to.as_deref(), request.dir).await?);
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let ignored = app.account_data.ignored(caller.user_id()).await?;
    let mut reaching = Reaching::new(&app, (caller.user_id(), caller.pace()), &room_id);
    let mut reading = reading.ignoring(Arc::clone(&ignored));
    let (walk, page) = loop {
        let walk = Walk::new(&reading, request.dir, between, limit, &request.filter).relating(&relations);
        let page = app.rooms.page(&mut reading, &walk).await?;
        match reaching.fill(&reading.room, request.dir, walk.looked_at(&reading, &page)).await? {
            Asked::More => reading = app.rooms.open(&room_id, caller.user_id()).await?.ignoring(Arc::clone(&ignored)),
            Asked::Nothing => break (walk, page),
            Asked::Later(gap) => break (walk, page.until_gap(request.dir, gap)),
        }
    };

    let now = app.clock.now();
    let mut response = Response::default();
    let tokens = app.log.page_tokens(page.end.into_iter().chain([walk.from])).await?;
    // The client's own token comes back as it was, so that it can compare them as texts.
    let from = given(request.from.as_deref());
    response.start = from.map_or_else(|| tokens.of_page(walk.from).to_string(), ToOwned::to_owned);
    response.end = page.end.map(|end| tokens.of_page(end).to_string());
    let events = page.events.iter().map(|event| &**event);
    let writer = app.rooms.writer(&reading, events, caller.device_id(), now).await?;
    response.chunk = page.events.iter().map(|event| writer.write(event)).collect();
    // With lazy loading, a page brings the members whose names it needs and no others.
    if !request.filter.lazy_load_options.is_disabled() {
        let senders = app.rooms.list_senders(&reading, &page.events).await?;
        let format = ClientFormat { with_room_id: true, now: Some(now), ..ClientFormat::default() };
        response.state = senders.iter().map(|member| client_event(member, &format)).collect();
    }
    Ok(response)
}
