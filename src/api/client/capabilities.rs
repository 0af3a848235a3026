//! Capabilities.
//!
//! What is listed here is what clients show or hide, so an entry that is wrong is a button that does nothing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#capabilities-negotiation>

use std::collections::BTreeMap;

use ruma::api::client::discovery::get_capabilities;
use serde_json::json;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    ground::room_version::{STABLE, UNSTABLE},
    people::account::Rank,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<AsJson<get_capabilities::v3::Request>, _, _>(capabilities)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities>
///
/// All of them are said out loud; ruma leaves out those that have their default. Only to administrators it matters
/// that they can lock and suspend.
async fn capabilities(app: App, call: Call<AsJson<get_capabilities::v3::Request>>) -> ApiResult<Json> {
    let delayed_events = app.delayed_events.limits();
    let max_delay_ms = u64::try_from(delayed_events.max_delay.as_millis()).unwrap_or(u64::MAX);
    let stable = STABLE.into_iter().map(|version| (version.to_string(), "stable"));
    let unstable = UNSTABLE.into_iter().map(|version| (version.to_owned(), "unstable"));
    let versions: BTreeMap<String, &str> = stable.chain(unstable).collect();
    let mut capabilities = json!({
        "m.room_versions": { "default": app.discovery.default_room_version, "available": versions },
        "m.change_password": { "enabled": true },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": app.threepids.are_mailed() },
        "m.get_login_token": { "enabled": true },
        "m.forget_forced_upon_leave": { "enabled": false },
        "org.matrix.msc4140.delayed_events": {
            "max_delay_ms": max_delay_ms,
            "max_scheduled": delayed_events.max_scheduled,
        },
    });
    if let Some(capabilities) = capabilities.as_object_mut().filter(|_| call.caller.rank == Rank::Administrator) {
        capabilities.insert("m.account_moderation".to_owned(), json!({ "suspend": true, "lock": true }));
    }
    Ok(Json::from(json!({ "capabilities": capabilities })))
}
