//! Stored filters.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use axum::Router;
use ruma::{
    OwnedUserId, UserId,
    api::{
        IncomingRequest,
        client::filter::{create_filter, get_filter},
        error::DeserializationError,
    },
};

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{Json, Written},
        own::metadata_of,
        route::Routes as _,
    },
    app::App,
    error::{Error, Result},
    filter::Definition,
};

const BODY_LIMIT: usize = 64 * 1024;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint_with_limit::<NewFilter, _, _>(BODY_LIMIT, create)
        .endpoint::<Written<get_filter::v3::Request>, _, _>(get)
}

/// A filter to store, with what ruma leaves out of it.
struct NewFilter {
    user_id: OwnedUserId,
    definition: Definition,
}

metadata_of!(NewFilter: create_filter::v3::Request);

impl IncomingRequest for NewFilter {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = create_filter::v3::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let definition = Definition::from_json(&String::from_utf8_lossy(request.body()))?;
        let request = create_filter::v3::Request::try_from_http_request_inner(request, path)?;
        Ok(Self { user_id: request.user_id, definition })
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>
async fn create(app: App, call: Call<NewFilter>) -> ApiResult<create_filter::v3::Response> {
    check_own(&call.request.user_id, &call.caller.user_id)?;
    let filter_id = app.filters.create(&call.request.user_id, &call.request.definition).await?;
    Ok(create_filter::v3::Response::new(filter_id))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid>
async fn get(app: App, call: Call<Written<get_filter::v3::Request>>) -> ApiResult<Json> {
    let Call { request: Written(request), caller, .. } = call;
    check_own(&request.user_id, &caller.user_id)?;
    let filter = app.filters.find(&request.user_id, &request.filter_id).await?;
    let filter = filter.ok_or_else(|| Error::not_found("You have no filter with this ID"))?;
    Ok(Json::from_text(filter.to_json().map_err(Error::broken)?))
}

fn check_own(user_id: &UserId, caller: &UserId) -> Result<()> {
    if user_id == caller { Ok(()) } else { Err(Error::forbidden("Filters are for yourself alone")) }
}
