//! Room aliases, and whether the directory shows a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases> and
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use axum::Router;
use http::StatusCode;
use ruma::api::{
    IncomingRequest,
    client::{
        alias::{create_alias, delete_alias, get_alias},
        directory::{get_room_visibility, set_room_visibility},
        room::{Visibility, aliases},
    },
    error::{DeserializationError, ErrorKind},
};

use crate::{
    account::Caller,
    api::{
        error::{ApiError, ApiResult},
        extract::Call,
        own::metadata_of,
        route::Routes as _,
    },
    app::App,
    error::Error,
    room::Moderator,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<create_alias::v3::Request, _, _>(create_alias)
        .endpoint::<get_alias::v3::Request, _, _>(get_alias)
        .endpoint::<delete_alias::v3::Request, _, _>(delete_alias)
        .endpoint::<aliases::v3::Request, _, _>(list_aliases)
        .endpoint::<get_room_visibility::v3::Request, _, _>(get_visibility)
        .endpoint::<SetVisibility, _, _>(set_visibility)
}

fn moderator(caller: &Caller) -> Moderator<'_> {
    Moderator { user_id: &caller.user_id, admin: caller.admin }
}

async fn create_alias(app: App, call: Call<create_alias::v3::Request>) -> ApiResult<create_alias::v3::Response> {
    let create_alias::v3::Request { room_alias, room_id, .. } = call.request;
    match app.rooms.add_alias(moderator(&call.caller), &room_alias, &room_id).await {
        Ok(()) => Ok(create_alias::v3::Response::new()),
        // Here the specification wants a conflict, unlike for /createRoom.
        Err(Error::Refused { kind: ErrorKind::RoomInUse, message }) => {
            Err(ApiError::Status(StatusCode::CONFLICT, ErrorKind::Unknown, message))
        }
        Err(error) => Err(error.into()),
    }
}

async fn get_alias(app: App, call: Call<get_alias::v3::Request>) -> ApiResult<get_alias::v3::Response> {
    let room_id = app.rooms.get_by_alias(&call.request.room_alias).await?;
    let servers = app.rooms.list_servers(&room_id).await?;
    Ok(get_alias::v3::Response::new(room_id, servers))
}

async fn delete_alias(app: App, call: Call<delete_alias::v3::Request>) -> ApiResult<delete_alias::v3::Response> {
    app.rooms.remove_alias(moderator(&call.caller), &call.request.room_alias).await?;
    Ok(delete_alias::v3::Response::new())
}

async fn list_aliases(app: App, call: Call<aliases::v3::Request>) -> ApiResult<aliases::v3::Response> {
    Ok(aliases::v3::Response::new(app.rooms.list_aliases(moderator(&call.caller), &call.request.room_id).await?))
}

async fn get_visibility(
    app: App,
    call: Call<get_room_visibility::v3::Request>,
) -> ApiResult<get_room_visibility::v3::Response> {
    let published = app.rooms.is_published(&call.request.room_id).await?;
    let visibility = if published { Visibility::Public } else { Visibility::Private };
    Ok(get_room_visibility::v3::Response::new(visibility))
}

/// The request in which `visibility` may be left out, which ruma does not let it be: it is `public` then.
struct SetVisibility(set_room_visibility::v3::Request);

metadata_of!(SetVisibility: set_room_visibility::v3::Request);

impl IncomingRequest for SetVisibility {
    type EndpointError = <set_room_visibility::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = set_room_visibility::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        let mut body: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
        body.entry("visibility").or_insert_with(|| "public".into());
        let body = serde_json::to_vec(&body)?;
        set_room_visibility::v3::Request::try_from_http_request_inner(
            http::Request::from_parts(parts, &body),
            path_args,
        )
        .map(Self)
    }
}

async fn set_visibility(app: App, call: Call<SetVisibility>) -> ApiResult<set_room_visibility::v3::Response> {
    let set_room_visibility::v3::Request { room_id, visibility, .. } = call.request.0;
    let listed = match visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => return Err(Error::bad_json(format!("`visibility` is public or private, not {other}")).into()),
    };
    app.rooms.publish(moderator(&call.caller), &room_id, listed).await?;
    Ok(set_room_visibility::v3::Response::new())
}
