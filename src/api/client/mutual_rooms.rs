//! The rooms that two users share.
//!
//! The token to go on with is the last room's identifier, so it needs no memory on this side.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms>

use ruma::{
    UInt,
    api::client::membership::get_mutual_rooms::v1::{Request, Response},
};

use crate::{
    api::{error::ApiResult, extract::Call, own::given, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(mutual_rooms)
}

async fn mutual_rooms(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    if request.user_id == caller.user_id {
        return Err(Error::invalid_param("You share all your rooms with yourself").into());
    }
    let from = given(request.from.as_deref());
    if from.is_some_and(|from| !from.starts_with('!')) {
        return Err(Error::invalid_param("`from` is no token of this endpoint").into());
    }
    let shared = app.directory.shared_rooms(&caller.user_id, &request.user_id, from).await?;
    let count = UInt::try_from(shared.count).unwrap_or(UInt::MAX);
    let mut response = Response::new(count, shared.rooms);
    response.next_batch = shared.next;
    Ok(response)
}
