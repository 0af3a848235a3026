//! Registration with the shared secret, at the path where scripts written for Synapse look for it.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/register_api.html>

use std::net::{IpAddr, Ipv4Addr};

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::register::answer;
use crate::{
    account::{NewSession, SharedSecretRegistration},
    api::{
        body::collect,
        error::ApiResult,
        json::{read, reply},
    },
    app::App,
    serve::ClientAddress,
};

const BODY_LIMIT: usize = 16 * 1024;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.route("/_synapse/admin/v1/register", get(nonce).post(register))
}

#[derive(Deserialize)]
struct Request {
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

async fn nonce(State(app): State<App>) -> Response {
    let nonce = app.accounts.create_nonce().await;
    reply(nonce.map(|nonce| json!({ "nonce": nonce })).map_err(Into::into))
}

async fn register(State(app): State<App>, request: http::Request<Body>) -> Response {
    reply(try_register(&app, request).await)
}

async fn try_register(app: &App, request: http::Request<Body>) -> ApiResult<Value> {
    let (parts, body) = request.into_parts();
    let address = parts.extensions.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |a| a.0);
    let request: Request = read(&collect(body, BODY_LIMIT).await?)?;
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
    };
    let (user_id, session) = app.accounts.register_with_shared_secret(registration).await?;
    let mut answer = answer(&user_id, session);
    answer.insert("home_server".to_owned(), json!(app.server_name));
    Ok(answer.into())
}
