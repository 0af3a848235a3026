//! Stored filters.
//!
//! A filter's identifier is made from the filter, so storing it again returns the one that is there.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use ruma::{
    UserId,
    api::{
        client::filter::{create_filter, get_filter},
        error::DeserializationError,
    },
};

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        own::{Extra, WithExtra},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::filter::StoredFilter,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<NewFilter, _, _>(create).endpoint::<AsJson<get_filter::v3::Request>, _, _>(get)
}

/// A filter to store, with what ruma leaves out of it.
type NewFilter = WithExtra<create_filter::v3::Request, StoredFilter>;

impl Extra for StoredFilter {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        Ok(Self::from_json(&String::from_utf8_lossy(request.body()))?)
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>
async fn create(app: App, call: Call<NewFilter>) -> ApiResult<create_filter::v3::Response> {
    let WithExtra { request, extra: definition } = &call.request;
    check_own(&request.user_id, &call.caller.user_id)?;
    let filter_id = app.filters.create(&request.user_id, definition).await?;
    Ok(create_filter::v3::Response::new(filter_id))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid>
async fn get(app: App, call: Call<AsJson<get_filter::v3::Request>>) -> ApiResult<Json> {
    let Call { request: AsJson(request), caller, .. } = call;
    check_own(&request.user_id, &caller.user_id)?;
    let filter = app.filters.find(&request.user_id, &request.filter_id).await?;
    let filter = filter.ok_or_else(|| Error::not_found("You have no filter with this ID"))?;
    Ok(Json::from_text(filter.to_json().map_err(Error::broken)?))
}

fn check_own(user_id: &UserId, caller: &UserId) -> Result<()> {
    if user_id == caller { Ok(()) } else { Err(Error::forbidden("Filters are for yourself alone")) }
}
