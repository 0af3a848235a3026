//! Where a user is logged in, for administrators and the user.
//!
//! Addresses are those that devices were last seen from, as far as that has been written: about a minute late.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use std::collections::BTreeMap;

use ruma::api::client::admin::get_user_info::v3::Request;
use serde_json::{Map, Value, json};

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::Error,
    people::{account::Rank, device::Device},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(whois)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid>
///
/// Whether somebody else exists is not said before it is clear that the caller is an administrator.
async fn whois(app: App, call: Call<AsJson<Request>>) -> ApiResult<Json> {
    let user_id = call.request.0.user_id;
    if user_id != call.caller.user_id {
        if call.caller.rank != Rank::Administrator {
            return Err(Error::forbidden("Only administrators of this server learn where others are logged in").into());
        }
        if !app.accounts.exists(&user_id).await? {
            return Err(Error::not_found("There is no such user on this server").into());
        }
    }
    let devices = app.devices.list(&user_id).await?;
    let devices: BTreeMap<&str, Value> = devices.iter().map(|device| (device.id.as_str(), info(device))).collect();
    Ok(Json::from(json!({ "user_id": user_id, "devices": devices })))
}

/// A device as one session of one connection, without what is not known.
fn info(device: &Device) -> Value {
    let mut connection = Map::new();
    if let Some(ip) = &device.last_seen_ip {
        connection.insert("ip".to_owned(), json!(ip));
    }
    if let Some(ts) = device.last_seen_ts {
        connection.insert("last_seen".to_owned(), json!(ts));
    }
    json!({ "sessions": [{ "connections": [connection] }] })
}
