//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>
//!
//! Data is kept and returned as the text that was sent: clients put into it what the specification does not know.

use http::StatusCode;
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    api::{
        auth_scheme::AccessToken,
        client::config::{
            get_global_account_data::v3 as get_global, get_room_account_data::v3 as get_room,
            set_global_account_data::v3 as set_global, set_room_account_data::v3 as set_room,
        },
        error::ErrorKind,
    },
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{
    api::{
        error::{ApiError, ApiResult},
        extract::Call,
        own::{own_request, read_path},
        route::Endpoints,
    },
    app::App,
    error::{Error, Result},
    people::{
        account::User,
        account_data::{is_managed_by_server, push_rules_data},
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<get_global::Request, _, _>(global)
        .endpoint::<set_global::Request, _, _>(put_global)
        .endpoint::<get_room::Request, _, _>(of_room)
        .endpoint::<set_room::Request, _, _>(put_of_room)
        .endpoint(|app, call: Call<DeleteGlobal>| delete(app, call.caller, call.request.deletion))
        .endpoint(|app, call: Call<DeleteOfRoom>| delete(app, call.caller, call.request.deletion))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype>
///
/// `M_NOT_FOUND` also for what was deleted. Push rules stand in no table and are made for each answer.
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

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype>
async fn put_global(app: App, call: Call<set_global::Request>) -> ApiResult<set_global::Response> {
    let set_global::Request { user_id, event_type, data, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let kind = event_type.to_string();
    let content = check_settable(&kind, data.into_json())?;
    app.account_data.set(&user_id, None, &kind, content).await?;
    Ok(set_global::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidaccount_datatype>
async fn of_room(app: App, call: Call<get_room::Request>) -> ApiResult<get_room::Response> {
    let get_room::Request { user_id, room_id, event_type, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let kind = event_type.to_string();
    let data = app.account_data.find(&user_id, Some(&room_id), &kind).await?.ok_or_else(|| not_set(&kind))?;
    Ok(get_room::Response::new(Raw::from_json(data.content.as_ref().to_owned())))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidaccount_datatype>
///
/// Whether the user is in the room, or whether there is one, is not asked: what they set there is for themselves.
async fn put_of_room(app: App, call: Call<set_room::Request>) -> ApiResult<set_room::Response> {
    let set_room::Request { user_id, room_id, event_type, data, .. } = call.request;
    check_own(&user_id, &call.caller.user_id)?;
    let kind = event_type.to_string();
    let content = check_settable(&kind, data.into_json())?;
    app.account_data.set(&user_id, Some(&room_id), &kind, content).await?;
    Ok(set_room::Response::new())
}

/// Account data that is to be deleted, of a room or global.
struct Deletion {
    user_id: OwnedUserId,
    /// None for global account data.
    room_id: Option<OwnedRoomId>,
    kind: String,
}

/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>
///
/// Deleting what is not there succeeds, so a request whose answer was lost may be sent again.
async fn delete(app: App, caller: User, deletion: Deletion) -> ApiResult<set_global::Response> {
    let Deletion { user_id, room_id, kind } = deletion;
    check_own(&user_id, &caller.user_id)?;
    check_unmanaged(&kind)?;
    app.account_data.delete(&user_id, room_id.as_deref(), &kind).await?;
    Ok(set_global::Response::new())
}

own_request!(
    DeleteGlobal { deletion: Deletion }: DELETE AccessToken history {
        unstable => "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{event_type}",
    } -> set_global::Response,
    |_request, path| {
        let (user_id, kind) = read_path(path)?;
        Ok(Self { deletion: Deletion { user_id, room_id: None, kind } })
    }
);

own_request!(
    DeleteOfRoom { deletion: Deletion }: DELETE AccessToken history {
        unstable => "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}",
    } -> set_global::Response,
    |_request, path| {
        let (user_id, room_id, kind) = read_path(path)?;
        Ok(Self { deletion: Deletion { user_id, room_id: Some(room_id), kind } })
    }
);

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

/// 405 with `M_BAD_JSON` for `m.fully_read` and `m.push_rules`, as the specification has it for what is not for clients
/// to set.
fn check_unmanaged(kind: &str) -> ApiResult<()> {
    if is_managed_by_server(kind) {
        let message = format!("{kind} is kept by the server: use the endpoint that is made for it");
        return Err(ApiError::Status(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::BadJson, message));
    }
    Ok(())
}

/// Refuses what could not be returned as it came, and returns the rest as it is.
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
