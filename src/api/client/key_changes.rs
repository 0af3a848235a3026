//! Whose devices and keys have changed between two syncs: what these say in `device_lists`, for a client that has missed
//! it. What is between two old places may take long to find out: that is owed, once it was found.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges>

use ruma::api::client::keys::get_key_changes::v3::{Request, Response};

use super::token;
use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
    people::rate_limit::Limit,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(key_changes)
}

async fn key_changes(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let from = token::synced_place(&app, &request.from).await?;
    let to = token::synced_place(&app, &request.to).await?;
    if from > to {
        return Err(Error::invalid_param("`from` is the earlier of the two tokens").into());
    }
    let (lists, effort) = Box::pin(app.syncs.changed_device_lists(&caller.user_id, (from, to))).await?;
    app.rate_limits.owe(Limit::Read, effort.cost(), &caller.user_id, caller.pace).await?;
    Ok(Response::new(lists.changed.into_iter().collect(), lists.left.into_iter().collect()))
}
