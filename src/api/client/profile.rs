//! Profiles. The endpoints for the display name and the avatar are those for any field.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use axum::Router;
use ruma::{
    UserId,
    api::{
        IncomingRequest,
        client::profile::{
            ProfileFieldName, ProfileFieldValue, delete_profile_field, get_profile, get_profile_field,
            set_profile_field,
        },
        error::DeserializationError,
    },
    serde::JsonObject,
};
use serde::de::Error as _;

use crate::{
    api::{error::ApiResult, extract::Call, own::metadata_of, route::Routes as _},
    app::App,
    error::Error,
};

/// A whole profile may have 64 KiB; what surrounds it may be as long again.
const BODY_LIMIT: usize = 128 * 1024;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .endpoint::<get_profile::v3::Request, _, _>(get)
        .endpoint::<get_profile_field::v3::Request, _, _>(get_field)
        .endpoint_with_limit::<SetField, _, _>(BODY_LIMIT, set_field)
        .endpoint::<delete_profile_field::v3::Request, _, _>(delete_field)
}

/// Ruma's request, of a body without other properties than the one that is set: ruma stumbles over them.
struct SetField(set_profile_field::v3::Request);

metadata_of!(SetField: set_profile_field::v3::Request);

impl IncomingRequest for SetField {
    type EndpointError = <set_profile_field::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = set_profile_field::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        let mut body: JsonObject = serde_json::from_slice(body)?;
        body.retain(|property, _| path_args.last() == Some(&property.as_str()));
        if body.is_empty() {
            return Err(serde_json::Error::custom("missing field: the body must have the property that is set").into());
        }
        let body = serde_json::to_vec(&body)?;
        let request = http::Request::from_parts(parts, body.as_slice());
        set_profile_field::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid>
async fn get(app: App, call: Call<get_profile::v3::Request>) -> ApiResult<get_profile::v3::Response> {
    Ok(app.profiles.get(&call.request.user_id).await?.into_iter().collect())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname>
async fn get_field(app: App, call: Call<get_profile_field::v3::Request>) -> ApiResult<get_profile_field::v3::Response> {
    let field = call.request.field.as_str();
    let value = app.profiles.find_field(&call.request.user_id, field).await?;
    let value = value.ok_or_else(|| Error::not_found(format!("This user tells no {field}")))?;
    let value = ProfileFieldValue::new(field, value).map_err(Error::broken)?;
    Ok(get_profile_field::v3::Response::new(value))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname>
async fn set_field(app: App, call: Call<SetField>) -> ApiResult<set_profile_field::v3::Response> {
    let set_profile_field::v3::Request { user_id, value, .. } = &call.request.0;
    check_own(user_id, &call.caller.user_id)?;
    let field = value.field_name();
    if app.profiles.set(user_id, field.as_str(), &value.value()).await? {
        propagate(&app, user_id, &field).await?;
    }
    Ok(set_profile_field::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname>
async fn delete_field(
    app: App,
    call: Call<delete_profile_field::v3::Request>,
) -> ApiResult<delete_profile_field::v3::Response> {
    let delete_profile_field::v3::Request { user_id, field, .. } = &call.request;
    check_own(user_id, &call.caller.user_id)?;
    if app.profiles.remove(user_id, field.as_str()).await? {
        propagate(&app, user_id, field).await?;
    }
    Ok(delete_profile_field::v3::Response::new())
}

fn check_own(user_id: &UserId, caller: &UserId) -> Result<(), Error> {
    if user_id == caller { Ok(()) } else { Err(Error::forbidden("You can change only your own profile")) }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information>
async fn propagate(app: &App, user_id: &UserId, field: &ProfileFieldName) -> ApiResult<()> {
    match field {
        ProfileFieldName::DisplayName | ProfileFieldName::AvatarUrl => propagate_profile(app, user_id).await,
        _ => Ok(()),
    }
}

/// Tells the rooms that a user is in what they are called and look like now.
async fn propagate_profile(app: &App, user_id: &UserId) -> ApiResult<()> {
    Ok(app.rooms.update_profile(user_id).await?)
}
