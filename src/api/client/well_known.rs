//! Well-known URIs: where things are, for those who only know the server name.
//!
//! They are served under the server name, which may be another host than this one: a reverse proxy then passes these
//! paths on.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#well-known-uris>

use ruma::api::{
    client::{
        discovery::{
            discover_homeserver::{self, HomeserverInfo},
            discover_policy_server, discover_support,
        },
        rtc::RtcTransport,
    },
    federation::discovery::discover_homeserver as discover_server,
};
use serde::Serialize;

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
    endpoints
        .endpoint::<AsJson<discover_homeserver::Request>, _, _>(client)
        .endpoint::<discover_support::Request, _, _>(support)
        .endpoint::<discover_policy_server::Request, _, _>(policy_server)
        .endpoint::<discover_server::Request, _, _>(server)
}

/// What a client reads before it logs in.
#[derive(Serialize)]
struct ClientInfo<'a> {
    #[serde(rename = "m.homeserver")]
    homeserver: HomeserverInfo,
    #[serde(rename = "org.matrix.msc4143.rtc_foci", skip_serializing_if = "<[_]>::is_empty")]
    rtc_foci: &'a [RtcTransport],
    /// Older versions of Element use dehydrated devices only where this says so. Newer ones ask for one; other clients
    /// read `/versions`.
    #[serde(rename = "org.matrix.msc3814")]
    dehydrated_devices: bool,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient>
async fn client(app: App, _: Call<AsJson<discover_homeserver::Request>>) -> ApiResult<Json> {
    let base_url = app.discovery.client_base_url.clone();
    let base_url = base_url.ok_or_else(|| Error::not_found("The operator has set no well_known.client_base_url"))?;
    let info = ClientInfo {
        homeserver: HomeserverInfo::new(base_url),
        rtc_foci: &app.discovery.rtc_transports,
        dehydrated_devices: true,
    };
    Ok(Json::of(&info).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport>
async fn support(app: App, _: Call<discover_support::Request>) -> ApiResult<discover_support::Response> {
    let (contacts, page) = (app.discovery.support_contacts.clone(), app.discovery.support_page.clone());
    if contacts.is_empty() && page.is_none() {
        return Err(Error::not_found("The operator has named nobody to turn to").into());
    }
    let mut response = discover_support::Response::with_contacts(contacts);
    response.support_page = page;
    Ok(response)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixpolicy_server>
async fn policy_server(
    app: App,
    _: Call<discover_policy_server::Request>,
) -> ApiResult<discover_policy_server::Response> {
    let key = app.discovery.policy_server_key.clone();
    let key = key.ok_or_else(|| Error::not_found("The operator knows of no policy server at this name"))?;
    Ok(discover_policy_server::Response::new(key))
}

/// What another server reads before it asks this one for the first time.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>
async fn server(app: App, _: Call<discover_server::Request>) -> ApiResult<discover_server::Response> {
    let server = app.discovery.server.clone();
    let server = server.ok_or_else(|| Error::not_found("The operator has set no well_known.server"))?;
    Ok(discover_server::Response::new(server))
}
