//! Versions of the specification.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#api-versions>

use ruma::api::client::discovery::get_supported_versions;

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
};

/// Versions whose requests and answers this server understands, each by its exact name: clients look for the
/// one that they were written against and don't compare numbers. Element Web wants v1.1 or later before it
/// logs in; r0.6.1 is for clients from before there was a v1.1. A version may be listed although an optional
/// module is missing, whose endpoints then answer `M_UNRECOGNIZED`.
const VERSIONS: [&str; 22] = [
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
    "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// Proposals that clients ask for by name, and that are all here. Two more are here if the operator wants them.
const UNSTABLE_FEATURES: [&str; 8] = [
    // Cross-signing, by the name that it had before r0.6: without it Element Web sets none up.
    "org.matrix.e2e_cross_signing",
    // Account data can be deleted.
    "org.matrix.msc3391",
    // Dehydrated devices.
    "org.matrix.msc3814",
    // Filters by how events relate to each other.
    "org.matrix.msc3874",
    // The state after the timeline, by the name that it had before v1.16.
    "org.matrix.msc4222",
    // The rooms that two users share, for clients that ask before they trust v1.19.
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    // Profile fields of one's own, before and after they were specified.
    "uk.tcpip.msc4133",
    "uk.tcpip.msc4133.stable",
];

/// Events that are sent later, without which no call is left in time.
const DELAYED_EVENTS: &str = "org.matrix.msc4140";
/// What carries the calls of many.
const RTC_TRANSPORTS: &str = "org.matrix.msc4143";

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<get_supported_versions::Request, _, _>(versions)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions>
async fn versions(app: App, _: Call<get_supported_versions::Request>) -> ApiResult<get_supported_versions::Response> {
    let mut response = get_supported_versions::Response::new(VERSIONS.map(ToOwned::to_owned).to_vec());
    let optional = [
        (DELAYED_EVENTS, app.delayed_events.limits().max_scheduled > 0),
        (RTC_TRANSPORTS, !app.discovery.rtc_transports.is_empty()),
    ];
    let optional = optional.into_iter().filter_map(|(feature, is_there)| is_there.then_some(feature));
    let features = UNSTABLE_FEATURES.into_iter().chain(optional);
    response.unstable_features = features.map(|feature| (feature.to_owned(), true)).collect();
    Ok(response)
}
