//! Room aliases, and whether the directory shows a room.
//!
//! An alias is unique by the database, not by a look before it is written: of two requests for one alias, the later
//! gets the conflict.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-aliases> and
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

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
    api::{
        error::{ApiError, ApiResult},
        extract::Call,
        own::metadata_of,
        route::Endpoints,
    },
    app::App,
    error::Error,
    people::account::Caller,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<create_alias::v3::Request, _, _>(create_alias)
        .endpoint::<get_alias::v3::Request, _, _>(get_alias)
        .endpoint::<delete_alias::v3::Request, _, _>(delete_alias)
        .endpoint::<aliases::v3::Request, _, _>(list_aliases)
        .endpoint::<get_room_visibility::v3::Request, _, _>(get_visibility)
        .endpoint::<SetVisibility, _, _>(set_visibility)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias>
///
/// For members and administrators. 409 with `M_UNKNOWN` where the alias is taken.
async fn create_alias(app: App, call: Call<create_alias::v3::Request>) -> ApiResult<create_alias::v3::Response> {
    let create_alias::v3::Request { room_alias, room_id, .. } = call.request;
    match app.rooms.add_alias(&call.caller.author(), &room_alias, &room_id).await {
        Ok(()) => Ok(create_alias::v3::Response::new()),
        // Here the specification wants a conflict, unlike for /createRoom.
        Err(Error::Refused { kind: ErrorKind::RoomInUse, message }) => {
            Err(ApiError::Status(StatusCode::CONFLICT, ErrorKind::Unknown, message))
        }
        Err(error) => Err(error.into()),
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias>
///
/// Another server's alias is asked of that server.
async fn get_alias(app: App, call: Call<get_alias::v3::Request>) -> ApiResult<get_alias::v3::Response> {
    let (room_id, servers) = app.reach.resolve_alias(&call.request.room_alias).await?;
    Ok(get_alias::v3::Response::new(room_id, servers))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias>
async fn delete_alias(app: App, call: Call<delete_alias::v3::Request>) -> ApiResult<delete_alias::v3::Response> {
    app.rooms.remove_alias(&call.caller.author(), &call.request.room_alias).await?;
    Ok(delete_alias::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases>
async fn list_aliases(app: App, call: Call<aliases::v3::Request>) -> ApiResult<aliases::v3::Response> {
    Ok(aliases::v3::Response::new(app.rooms.list_aliases(&call.caller.author(), &call.request.room_id).await?))
}

/// `M_NOT_FOUND` alike for a room that is not there and one that is none of the caller's business.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid>
async fn get_visibility(
    app: App,
    call: Call<get_room_visibility::v3::Request>,
) -> ApiResult<get_room_visibility::v3::Response> {
    // Without an access token, nothing has made this node look at the end of the log.
    if call.caller.is_none() {
        app.catch_up().await?;
    }
    let room_id = &call.request.room_id;
    let published = app.rooms.is_published(room_id).await?;
    let user_id = call.caller.as_ref().map(Caller::user_id);
    if !published && app.directory.summary(room_id, user_id).await?.is_none() {
        return Err(Error::not_found("There is no such room, or you can't know of it").into());
    }
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

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid>
///
/// For who may send `m.room.canonical_alias` in the room, and for administrators.
async fn set_visibility(app: App, call: Call<SetVisibility>) -> ApiResult<set_room_visibility::v3::Response> {
    let set_room_visibility::v3::Request { room_id, visibility, .. } = call.request.0;
    let listed = match visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => return Err(Error::bad_json(format!("`visibility` is public or private, not {other}")).into()),
    };
    app.rooms.publish(&call.caller.author(), &room_id, listed).await?;
    Ok(set_room_visibility::v3::Response::new())
}
