//! The threads of a room.
//!
//! The order is that of the newest event in each thread.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room>

use ruma::api::client::threads::get_threads::v1::{IncludeThreads, Request, Response};

use super::token::place;
use crate::{
    api::{error::ApiResult, extract::Call, in_room::InRoom, route::Endpoints},
    app::App,
    error::Error,
};

/// How many threads come in a page where the client does not say.
const DEFAULT_LIMIT: usize = 20;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<InRoom<Request>, _, _>(threads)
}

/// `M_FORBIDDEN` for a room that the caller may not read, before any parameter is judged.
async fn threads(app: App, call: Call<InRoom<Request>>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let reading = app.rooms.open(&request.room_id, &caller.user_id).await?;
    let request = request.read()?;
    let participated = match request.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => return Err(Error::invalid_param("`include` is `all` or `participated`").into()),
    };
    let limit = match request.limit.map(u64::from) {
        Some(0) => return Err(Error::invalid_param("`limit` is greater than zero").into()),
        limit => limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    let from = place(&app, request.from.as_deref()).await?;
    let ignored = app.account_data.ignored(&caller.user_id).await?;
    let mut reading = reading.ignoring(ignored);
    let (roots, next) = app.rooms.threads(&mut reading, participated, from, limit).await?;
    let events = roots.iter().map(|root| &root.event);
    let writer = app.rooms.writer(&reading, events, &caller.device_id, app.clock.now()).await?;
    let mut response = Response::new(roots.iter().map(|root| writer.write(&root.event)).collect());
    if let Some(next) = next {
        response.next_batch = Some(app.log.page_tokens([next]).await?.of_page(next).to_string());
    }
    Ok(response)
}
