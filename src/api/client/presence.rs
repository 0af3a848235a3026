//! <https://spec.matrix.org/v1.19/client-server-api/#presence>
//!
//! Who may see whose presence follows from the rooms that they share.

use std::time::Duration;

use ruma::api::client::presence::{get_presence::v3 as get_presence, set_presence::v3 as set_presence};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<get_presence::Request, _, _>(get).endpoint::<set_presence::Request, _, _>(set)
}

/// Where presence is switched off, everybody is offline.
async fn get(app: App, call: Call<get_presence::Request>) -> ApiResult<get_presence::Response> {
    let content = app.presence.get(&call.caller.user_id, &call.request.user_id).await?.content;
    let mut response = get_presence::Response::new(content.presence);
    response.status_msg = content.status_msg;
    response.currently_active = content.currently_active;
    response.last_active_ago = content.last_active_ago.map(|ago| Duration::from_millis(ago.into()));
    Ok(response)
}

/// Where presence is switched off, this is answered like an endpoint that the server does not have: to accept what
/// nobody will see would be a lie.
async fn set(app: App, call: Call<set_presence::Request>) -> ApiResult<set_presence::Response> {
    let set_presence::Request { user_id, presence, status_msg, .. } = call.request;
    if user_id != call.caller.user_id {
        return Err(Error::forbidden("You can only set your own presence").into());
    }
    app.presence.set(&user_id, &call.caller.device_id, presence, status_msg).await?;
    Ok(set_presence::Response::new())
}
