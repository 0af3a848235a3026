//! Profiles. The endpoints for the display name and the avatar are those for any field.
//!
//! Reading needs no account, as the specification has it: a profile is public.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use std::time::Duration;

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
use tokio::time::timeout;

use crate::{
    api::{error::ApiResult, extract::Call, own::metadata_of, read::named, route::Endpoints},
    app::App,
    error::Error,
    people::{account::Pace, profile::Changed, rate_limit::Limit},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<get_profile::v3::Request, _, _>(get)
        .endpoint::<get_profile_field::v3::Request, _, _>(get_field)
        .endpoint::<SetField, _, _>(set_field)
        .endpoint::<delete_profile_field::v3::Request, _, _>(delete_field)
}

/// Ruma's request, of a body without other properties than the one that is set: ruma stumbles over them. The value is
/// judged once it is known that the caller may set the field.
struct SetField {
    field: ProfileFieldName,
    request: Result<set_profile_field::v3::Request, DeserializationError>,
}

metadata_of!(SetField: set_profile_field::v3::Request);

impl IncomingRequest for SetField {
    type EndpointError = <set_profile_field::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = set_profile_field::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let field = path_args.last().copied().unwrap_or_default();
        Ok(Self { field: field.into(), request: read_value(request, path_args, field) })
    }
}

/// The request with nothing but the property that is set. `M_MISSING_PARAM` where the body lacks it.
fn read_value(
    request: http::Request<&[u8]>,
    path_args: &[&str],
    field: &str,
) -> Result<set_profile_field::v3::Request, DeserializationError> {
    let (parts, body) = request.into_parts();
    let mut body: JsonObject = serde_json::from_slice(body)?;
    body.retain(|property, _| property == field);
    if body.is_empty() {
        // By its first words `named` knows that something is missing.
        return Err(serde_json::Error::custom("missing field: the body must have the property that is set").into());
    }
    let body = serde_json::to_vec(&body)?;
    let request = http::Request::from_parts(parts, body.as_slice());
    set_profile_field::v3::Request::try_from_http_request_inner(request, path_args)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid>
async fn get(app: App, call: Call<get_profile::v3::Request>) -> ApiResult<get_profile::v3::Response> {
    if app.reach.is_elsewhere(&call.request.user_id) {
        return Ok(app.reach.profile(&call.request.user_id).await?.fields.clone().into_iter().collect());
    }
    Ok(app.profiles.get(&call.request.user_id).await?.into_iter().collect())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname>
async fn get_field(app: App, call: Call<get_profile_field::v3::Request>) -> ApiResult<get_profile_field::v3::Response> {
    let field = call.request.field.as_str();
    let user_id = &call.request.user_id;
    let value = if app.reach.is_elsewhere(user_id) {
        app.reach.profile(user_id).await?.fields.get(field).cloned()
    } else {
        app.profiles.find_field(user_id, field).await?
    };
    let value = value.ok_or_else(|| Error::not_found(format!("This user tells no {field}")))?;
    let value = ProfileFieldValue::new(field, value).map_err(Error::broken)?;
    Ok(get_profile_field::v3::Response::new(value))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname>
///
/// Of a guest's profile only the display name is open to them.
async fn set_field(app: App, call: Call<SetField>) -> ApiResult<set_profile_field::v3::Response> {
    let SetField { field, request } = call.request;
    if field != ProfileFieldName::DisplayName {
        call.caller.check_registered()?;
    }
    let set_profile_field::v3::Request { user_id, value, .. } = &request.map_err(|error| named(&error))?;
    check_own(user_id, call.caller.user_id())?;
    count(&app, (user_id, call.caller.pace()), &field, value.value().to_string().len()).await?;
    let changed = app.profiles.change(user_id, field.as_str(), Some(&value.value())).await?;
    propagate(&app, changed).await?;
    Ok(set_profile_field::v3::Response::new())
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname>
async fn delete_field(
    app: App,
    call: Call<delete_profile_field::v3::Request>,
) -> ApiResult<delete_profile_field::v3::Response> {
    let delete_profile_field::v3::Request { user_id, field, .. } = &call.request;
    check_own(user_id, &call.caller.user_id)?;
    count(&app, (user_id, call.caller.pace), field, 0).await?;
    let changed = app.profiles.change(user_id, field.as_str(), None).await?;
    propagate(&app, changed).await?;
    Ok(delete_profile_field::v3::Response::new())
}

/// Counts a change by the rooms that hear of it, or by its size (in bytes) where none does.
async fn count(
    app: &App,
    (user_id, pace): (&UserId, Pace),
    field: &ProfileFieldName,
    size: usize,
) -> Result<(), Error> {
    let reaches = match field {
        ProfileFieldName::DisplayName | ProfileFieldName::AvatarUrl => {
            app.rooms.list_joined_rooms(user_id).await?.len()
        }
        _ => size / 1024,
    };
    let cost = u32::try_from(reaches).unwrap_or(u32::MAX).saturating_add(1);
    app.rate_limits.check(Limit::Profile, cost, user_id, pace).await
}

fn check_own(user_id: &UserId, caller: &UserId) -> Result<(), Error> {
    if user_id == caller { Ok(()) } else { Err(Error::forbidden("You can change only your own profile")) }
}

/// How long a client waits until its user's rooms say it, as far as they are not too many.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has the rooms that a user is in say what they are called and look like now. It goes on where the client does not wait
/// for it; where it fails, or this process ends, whichever node does errands tries again.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information>
///
/// Only the display name and the avatar are in membership events; other fields change no room.
async fn propagate(app: &App, changed: Changed) -> ApiResult<()> {
    let Changed::SeenInRooms(errand) = changed else { return Ok(()) };
    let (rooms, profiles) = (app.rooms.clone(), app.profiles.clone());
    let carried = app.tasks.see_through("carrying a profile into rooms", async move {
        rooms.update_profile(&errand.user_id).await?;
        profiles.is_seen_in_rooms(&errand).await
    });
    match timeout(PATIENCE, carried).await {
        Ok(carried) => carried.ok_or_else(|| Error::broken("a profile was not carried into rooms"))??,
        // The profile is what it is to be, and the rooms follow.
        Err(_elapsed) => {}
    }
    Ok(())
}
