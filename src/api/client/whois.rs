//! Where a user is logged in, for administrators and the user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use axum::Router;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::admin::get_user_info::v3::{ConnectionInfo, DeviceInfo, Request, Response, SessionInfo},
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    device::Device,
    error::Error,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint(whois)
}

async fn whois(app: App, call: Call<Request>) -> ApiResult<Response> {
    let user_id = call.request.user_id;
    if user_id != call.caller.user_id {
        if !call.caller.admin {
            return Err(Error::forbidden("Only administrators of this server learn where others are logged in").into());
        }
        if !app.accounts.exists(&user_id).await? {
            return Err(Error::not_found("There is no such user on this server").into());
        }
    }
    let devices = app.devices.list(&user_id).await?;
    let mut response = Response::new();
    response.user_id = Some(user_id);
    response.devices = devices.into_iter().map(|device| (device.id.to_string(), info(device))).collect();
    Ok(response)
}

fn info(device: Device) -> DeviceInfo {
    let mut connection = ConnectionInfo::new();
    connection.ip = device.last_seen_ip;
    let seen = device.last_seen_ts.and_then(|ts| UInt::try_from(ts).ok());
    connection.last_seen = seen.map(MilliSecondsSinceUnixEpoch);
    let mut session = SessionInfo::new();
    session.connections = vec![connection];
    let mut info = DeviceInfo::new();
    info.sessions = vec![session];
    info
}
