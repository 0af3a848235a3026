//! What carries the calls of many.
//!
//! The transports come from the configuration as they are: they are between clients and the services that are named.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4143>

use ruma::api::{client::rtc::transports::v1::Request, error::ErrorKind};
use serde_json::json;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<AsJson<Request>, _, _>(transports)
}

/// Under the name that clients look for, and under the one that the proposal has given it since.
///
/// Where there are none, the endpoint is not there either: clients then look for the same in
/// `/.well-known/matrix/client`, which another web server may answer.
async fn transports(app: App, _: Call<AsJson<Request>>) -> ApiResult<Json> {
    let transports = &app.discovery.rtc_transports;
    if transports.is_empty() {
        let message = "The operator has set no rtc.transports: this server knows nothing of such calls";
        return Err(Error::refused(ErrorKind::Unrecognized, message).into());
    }
    Ok(Json::from(json!({ "rtc_transports": transports, "transports": transports })))
}
