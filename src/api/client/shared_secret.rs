//! Registration with the shared secret, at the path where scripts written for Synapse look for it.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/register_api.html>

use ruma::{OwnedDeviceId, api::auth_scheme::NoAuthentication};
use serde::Deserialize;
use serde_json::{Value, json};

use super::register::answer;
use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        json::{Json, read},
        own::{Upload, own_request},
        route::Endpoints,
    },
    app::App,
    people::account::{NewSession, SharedSecretRegistration},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(nonce).endpoint::<Upload<Register>, _, _>(register)
}

own_request!(CreateNonce {}: GET NoAuthentication path "/_synapse/admin/v1/register" -> Json, |_request, _path| Ok(Self {}));
own_request!(
    /// Its body is read by the handler, which refuses in the words that scripts know.
    Register {}: POST NoAuthentication path "/_synapse/admin/v1/register" -> Json, |_request, _path| Ok(Self {})
);

/// What Synapse's endpoint takes. `mac` shows that the sender knows the secret: see `people/account/shared_secret.rs`.
#[derive(Deserialize)]
struct SharedSecretBody {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    mac: String,
    #[serde(default)]
    inhibit_login: bool,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

/// A nonce is good for one registration, within a minute.
async fn nonce(app: App, _: Call<CreateNonce>) -> ApiResult<Json> {
    Ok(Json::from(json!({ "nonce": app.accounts.create_nonce().await? })))
}

/// Scripts make many accounts, so it counts as no more than a look-up; each guess at the secret takes a nonce, too.
async fn register(app: App, call: Call<Upload<Register>>) -> ApiResult<Json> {
    let address = call.address;
    // The body is not checked to be JSON before, so that its errors are those that scripts know.
    let request: SharedSecretBody = read(&call.request.body.collect().await?)?;
    let session = (!request.inhibit_login).then_some(NewSession {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refreshable: request.refresh_token,
        address,
    });
    let registration = SharedSecretRegistration {
        nonce: &request.nonce,
        username: &request.username,
        password: &request.password,
        admin: request.admin,
        user_type: request.user_type.as_deref(),
        mac: &request.mac,
        session,
        address,
    };
    let (user_id, session) = app.accounts.register_with_shared_secret(registration).await?;
    let mut answer = answer(&user_id, session);
    // Synapse's answer has it, though the specification has dropped it.
    answer.insert("home_server".to_owned(), json!(app.server_name));
    Ok(Json::from(Value::from(answer)))
}
