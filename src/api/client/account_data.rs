//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use axum::Router;
use http::StatusCode;
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    api::{
        IncomingRequest,
        auth_scheme::AccessToken,
        client::config::{
            get_global_account_data::v3 as get_global, get_room_account_data::v3 as get_room,
            set_global_account_data::v3 as set_global, set_room_account_data::v3 as set_room,
        },
        error::{DeserializationError, ErrorKind},
        metadata,
    },
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{
    account_data::{is_managed_by_server, push_rules_data},
    api::{
        error::{ApiError, ApiResult},
        extract::Call,
        own::read_path,
        route::Routes as _,
    },
    app::App,
    error::{Error, Result},
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<get_global::Request, _, _>(global)
        .endpoint::<set_global::Request, _, _>(put_global)
        .endpoint::<get_room::Request, _, _>(of_room)
        .endpoint::<set_room::Request, _, _>(put_of_room)
        .endpoint::<DeleteGlobal, _, _>(delete_global)
        .endpoint::<DeleteOfRoom, _, _>(delete_of_room)
}

async fn global(app: App, call: Call<get_global::Request>) -> ApiResult<get_global::Response> {
    let get_global::Request { user_id, event_type, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let kind = event_type.to_string();
    let data = if kind == "m.push_rules" {
        push_rules_data(&user_id)?
    } else {
        app.account_data.find(&user_id, None, &kind).await?.ok_or_else(|| not_set(&kind))?
    };
    Ok(get_global::Response::new(Raw::from_json(data.content.as_ref().to_owned())))
}

async fn put_global(app: App, call: Call<set_global::Request>) -> ApiResult<set_global::Response> {
    let set_global::Request { user_id, event_type, data, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let kind = event_type.to_string();
    let content = check_settable(&kind, data.into_json())?;
    app.account_data.set(&user_id, None, &kind, content).await?;
    Ok(set_global::Response::new())
}

async fn of_room(app: App, call: Call<get_room::Request>) -> ApiResult<get_room::Response> {
    let get_room::Request { user_id, room_id, event_type, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let kind = event_type.to_string();
    let data = app.account_data.find(&user_id, Some(&room_id), &kind).await?.ok_or_else(|| not_set(&kind))?;
    Ok(get_room::Response::new(Raw::from_json(data.content.as_ref().to_owned())))
}

async fn put_of_room(app: App, call: Call<set_room::Request>) -> ApiResult<set_room::Response> {
    let set_room::Request { user_id, room_id, event_type, data, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let kind = event_type.to_string();
    let content = check_settable(&kind, data.into_json())?;
    app.account_data.set(&user_id, Some(&room_id), &kind, content).await?;
    Ok(set_room::Response::new())
}

/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>
async fn delete_global(app: App, call: Call<DeleteGlobal>) -> ApiResult<set_global::Response> {
    let DeleteGlobal { user_id, kind } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    check_unmanaged(&kind)?;
    app.account_data.delete(&user_id, None, &kind).await?;
    Ok(set_global::Response::new())
}

async fn delete_of_room(app: App, call: Call<DeleteOfRoom>) -> ApiResult<set_room::Response> {
    let DeleteOfRoom { user_id, room_id, kind } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    check_unmanaged(&kind)?;
    app.account_data.delete(&user_id, Some(&room_id), &kind).await?;
    Ok(set_room::Response::new())
}

/// Global account data that is to be deleted. Ruma has no request for it.
struct DeleteGlobal {
    user_id: OwnedUserId,
    kind: String,
}

metadata! {
    @for DeleteGlobal,
    method: DELETE,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        unstable => "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{event_type}",
    }
}

impl IncomingRequest for DeleteGlobal {
    type EndpointError = <set_global::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = set_global::Response;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (user_id, kind) = read_path(path)?;
        Ok(Self { user_id, kind })
    }
}

/// Deletes what a user has set for a room.
struct DeleteOfRoom {
    user_id: OwnedUserId,
    room_id: OwnedRoomId,
    kind: String,
}

metadata! {
    @for DeleteOfRoom,
    method: DELETE,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        unstable => "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    }
}

impl IncomingRequest for DeleteOfRoom {
    type EndpointError = <set_room::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = set_room::Response;

    fn try_from_http_request_inner(_: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (user_id, room_id, kind) = read_path(path)?;
        Ok(Self { user_id, room_id, kind })
    }
}

/// Account data is for its owner alone.
pub(super) fn check_own(user_id: &UserId, caller: &UserId) -> Result<()> {
    if user_id == caller {
        return Ok(());
    }
    Err(Error::forbidden(format!("You are {caller}: you can't read or change what {user_id} keeps")))
}

fn not_set(kind: &str) -> Error {
    Error::not_found(format!("You have set nothing of type {kind} here"))
}

fn check_unmanaged(kind: &str) -> ApiResult<()> {
    if is_managed_by_server(kind) {
        let message = format!("{kind} is kept by the server: use the endpoint that is made for it");
        return Err(ApiError::Status(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::BadJson, message));
    }
    Ok(())
}

fn check_settable(kind: &str, content: Box<RawValue>) -> ApiResult<Box<RawValue>> {
    check_unmanaged(kind)?;
    if !content.get().trim_start().starts_with('{') {
        return Err(Error::bad_json("Account data is a JSON object").into());
    }
    // It is not canonical JSON, and may hold fractions. But what can't be read would break every sync.
    if let Err(error) = serde_json::from_str::<serde_json::Value>(content.get()) {
        return Err(Error::bad_json(format!("Account data can't be kept: {error}")).into());
    }
    Ok(content)
}
