//! Public keys for end-to-end encryption: of devices, and those by which users vouch for them.
//!
//! Ruma leaves out of its answers what is empty; clients get every field. Keys are answered as they were uploaded, which
//! their signatures are of.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use ruma::api::client::keys::{
    claim_keys::v3 as claim_keys, get_keys::v3 as get_keys, upload_keys::v3 as upload_keys,
    upload_signatures::v3 as upload_signatures, upload_signing_keys::v3 as upload_signing_keys,
};
use serde_json::json;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        interactive::Interactive,
        json::{AsJson, Json},
        route::Endpoints,
    },
    app::App,
    error::Error,
    people::keys::{Confirmation, NewCrossSigning, Outcome},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<AsJson<upload_keys::Request>, _, _>(upload)
        .endpoint::<AsJson<get_keys::Request>, _, _>(query)
        .endpoint::<AsJson<claim_keys::Request>, _, _>(claim)
        .endpoint::<Interactive<upload_signing_keys::Request>, _, _>(upload_cross_signing)
        .endpoint::<AsJson<upload_signatures::Request>, _, _>(upload_signatures)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>
async fn upload(app: App, call: Call<AsJson<upload_keys::Request>>) -> ApiResult<Json> {
    let counts = app.keys.upload(&call.caller.user_id, &call.caller.device_id, &call.request.0).await?;
    Ok(Json::from(json!({ "one_time_key_counts": counts.one_time })))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>
async fn query(app: App, call: Call<AsJson<get_keys::Request>>) -> ApiResult<Json> {
    let keys = app.keys.query(&call.caller.user_id, &call.request.0.device_keys).await?;
    Ok(Json::of(&keys).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>
async fn claim(app: App, call: Call<AsJson<claim_keys::Request>>) -> ApiResult<Json> {
    let keys = app.keys.claim(&call.request.0.one_time_keys).await?;
    Ok(Json::of(&keys).map_err(Error::broken)?)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>
///
/// What can't be stored is refused before anybody is asked for a password. That is asked for only where something would
/// be replaced.
async fn upload_cross_signing(
    app: App,
    call: Call<Interactive<upload_signing_keys::Request>>,
) -> ApiResult<upload_signing_keys::Response> {
    let user = &call.caller;
    let keys = NewCrossSigning::read(&user.user_id, &call.request.request)?;
    if app.keys.upload_cross_signing(&user.user_id, &keys, Confirmation::Missing).await? == Outcome::Unconfirmed {
        call.request.confirm_password(&app, "upload_cross_signing", user, call.address).await?;
        app.keys.upload_cross_signing(&user.user_id, &keys, Confirmation::Given).await?;
    }
    Ok(upload_signing_keys::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>
async fn upload_signatures(app: App, call: Call<AsJson<upload_signatures::Request>>) -> ApiResult<Json> {
    let failures = app.keys.upload_signatures(&call.caller.user_id, &call.request.0.signed_keys).await?;
    Ok(Json::from(json!({ "failures": failures })))
}
