//! Stored filters.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use axum::Router;
use ruma::{
    UserId,
    api::client::filter::{create_filter, get_filter},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    error::{Error, Result},
};

const BODY_LIMIT: usize = 64 * 1024;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint_with_limit::<create_filter::v3::Request, _, _>(BODY_LIMIT, create)
        .endpoint::<get_filter::v3::Request, _, _>(get)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>
async fn create(app: App, call: Call<create_filter::v3::Request>) -> ApiResult<create_filter::v3::Response> {
    check_own(&call.request.user_id, &call.caller.user_id)?;
    let filter_id = app.filters.create(&call.request.user_id, &call.request.filter).await?;
    Ok(create_filter::v3::Response::new(filter_id))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid>
async fn get(app: App, call: Call<get_filter::v3::Request>) -> ApiResult<get_filter::v3::Response> {
    check_own(&call.request.user_id, &call.caller.user_id)?;
    let filter = app.filters.find(&call.request.user_id, &call.request.filter_id).await?;
    let filter = filter.ok_or_else(|| Error::not_found("You have no filter with this ID"))?;
    Ok(get_filter::v3::Response::new(filter))
}

fn check_own(user_id: &UserId, caller: &UserId) -> Result<()> {
    if user_id == caller { Ok(()) } else { Err(Error::forbidden("Filters are for yourself alone")) }
}
