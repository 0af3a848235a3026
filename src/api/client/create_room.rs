//! `POST /createRoom`.
//!
//! Here only the request is turned into [`NewRoom`]; which events that makes, and in which order, is
//! `room/act/create.rs`'s.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#creation>

use ruma::{
    CanonicalJsonValue, OwnedUserId, RoomAliasId, RoomVersionId, ServerName, UserId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, Response, RoomPreset},
    },
    events::{AnyInitialStateEvent, TimelineEventType},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    api::{content::read_content, error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::{Error, Result},
    event::Content,
    ground::room_version,
    people::rate_limit::Limit,
    room::{InitialState, NewRoom, Preset},
};

/// About so many events a room begins with that the client asks nothing for.
const FIRST_EVENTS: u32 = 8;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(create_room)
}

/// `M_ROOM_IN_USE` where the alias is taken, `M_UNSUPPORTED_ROOM_VERSION` for a version that this server lacks. A room
/// is made whole or not at all, but for invitations of users of other servers, who are invited once it is there.
async fn create_room(app: App, call: Call<Request>) -> ApiResult<Response> {
    let mut request = call.request;
    let further: usize =
        [request.initial_state.len(), request.invite.len(), request.invite_3pid.len()].into_iter().sum();
    let events = u32::try_from(further).unwrap_or(u32::MAX).saturating_add(FIRST_EVENTS);
    app.rate_limits.check(Limit::CreateRoom, events, &call.caller.user_id, call.caller.pace).await?;
    let invites = std::mem::take(&mut request.invite_3pid);
    app.entrance.check_invitable(&request.invite)?;
    let (creator, is_direct) = (call.caller.user_id.clone(), request.is_direct);
    let room = new_room(call.caller.user_id, request, &app.config.rooms.default_version, &app.server_name)?;
    let (room_id, elsewhere) = app.third_party_invites.create_room(room, &invites).await?;
    app.entrance.invite_all(room_id.clone(), creator, elsewhere, is_direct).await;
    Ok(Response::new(room_id))
}

/// What the specification leaves to be worked out, the preset and the version, is worked out here.
fn new_room(
    creator: OwnedUserId,
    request: Request,
    default_version: &RoomVersionId,
    server_name: &ServerName,
) -> Result<NewRoom> {
    let published = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => return Err(Error::bad_json(format!("`visibility` is public or private, not {other}"))),
    };
    let preset = match request.preset {
        Some(RoomPreset::PrivateChat) => Preset::PrivateChat,
        Some(RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivateChat,
        Some(RoomPreset::PublicChat) => Preset::PublicChat,
        Some(other) => return Err(Error::bad_json(format!("There is no `preset` {other}"))),
        // Without a preset the visibility decides, as the specification has it.
        None if published => Preset::PublicChat,
        None => Preset::PrivateChat,
    };
    let alias = request.room_alias_name.map(|name| local_alias(&name, server_name)).transpose()?;
    let levels = request.power_level_content_override.as_ref().map(read_content).transpose()?.unwrap_or_default();
    let creation_content = request.creation_content.as_ref().map(read_content).transpose()?.unwrap_or_default();
    let version =
        request.room_version.unwrap_or_else(|| implied_version(default_version, &creator, &creation_content, &levels));
    Ok(NewRoom {
        creator,
        version,
        preset,
        published,
        alias,
        name: request.name,
        topic: request.topic,
        invite: request.invite,
        is_direct: request.is_direct,
        creation_content,
        initial_state: request.initial_state.iter().map(initial_state).collect::<Result<_>>()?,
        power_level_content_override: levels,
    })
}

/// The version of a room whose creator names none: the default one. But whoever gives themselves a power level knows of
/// no creators that outrank them all, as there are since room version 12, and gets the version before.
///
/// <https://spec.matrix.org/v1.19/rooms/v12/#room-creators>
fn implied_version(
    default: &RoomVersionId,
    creator: &UserId,
    creation_content: &Content,
    levels: &Content,
) -> RoomVersionId {
    let outranks = room_version::rules(default)
        .is_some_and(|rules| rules.authorization.explicitly_privilege_room_creators)
        && !creation_content.contains_key("additional_creators");
    let named = levels.get("users").and_then(CanonicalJsonValue::as_object);
    let names_creator = named.is_some_and(|users| users.contains_key(creator.as_str()));
    if outranks && names_creator { RoomVersionId::V11 } else { default.clone() }
}

/// An alias of this server from the part of it that a client names.
fn local_alias(name: &str, server_name: &ServerName) -> Result<ruma::OwnedRoomAliasId> {
    if name.is_empty() || name.contains(|c: char| c == ':' || c.is_whitespace()) {
        let message = "`room_alias_name` is the part of an alias between # and :, without spaces";
        return Err(Error::invalid_param(message));
    }
    let alias = RoomAliasId::parse(format!("#{name}:{server_name}"));
    alias.map_err(|e| Error::invalid_param(format!("`room_alias_name` gives no valid alias: {e}")))
}

/// An event of `initial_state`, which may leave out the state key where that is empty.
fn initial_state(raw: &Raw<AnyInitialStateEvent>) -> Result<InitialState> {
    #[derive(Deserialize)]
    struct InitialStateEvent {
        #[serde(rename = "type")]
        kind: TimelineEventType,
        #[serde(default)]
        state_key: String,
        content: Box<RawValue>,
    }
    let event: InitialStateEvent = raw
        .deserialize_as_unchecked()
        .map_err(|e| Error::bad_json(format!("`initial_state` has something that is not a state event: {e}")))?;
    let content = read_content(&Raw::<()>::from_json(event.content))?;
    Ok(InitialState { kind: event.kind, state_key: event.state_key, content })
}
