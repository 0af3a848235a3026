//! `POST /createRoom`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#creation>

use axum::Router;
use ruma::{
    OwnedUserId, RoomAliasId, RoomVersionId, ServerName,
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
    api::{content::read_content, error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    error::{Error, Result},
    rate_limit::Limit,
    room::{InitialState, NewRoom, Preset},
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Request, _, _>(create_room)
}

async fn create_room(app: App, call: Call<Request>) -> ApiResult<Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let mut request = call.request;
    let invites = std::mem::take(&mut request.invite_3pid);
    let room = new_room(call.caller.user_id, request, &app.config.rooms.default_version, &app.server_name)?;
    Ok(Response::new(app.third_party_invites.create_room(room, &invites).await?))
}

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
        None if published => Preset::PublicChat,
        None => Preset::PrivateChat,
    };
    let alias = request.room_alias_name.map(|name| local_alias(&name, server_name)).transpose()?;
    let levels = request.power_level_content_override.as_ref().map(read_content);
    Ok(NewRoom {
        creator,
        version: request.room_version.unwrap_or_else(|| default_version.clone()),
        preset,
        published,
        alias,
        name: request.name,
        topic: request.topic,
        invite: request.invite,
        is_direct: request.is_direct,
        creation_content: request.creation_content.as_ref().map(read_content).transpose()?.unwrap_or_default(),
        initial_state: request.initial_state.iter().map(initial_state).collect::<Result<_>>()?,
        power_level_content_override: levels.transpose()?.unwrap_or_default(),
    })
}

fn local_alias(name: &str, server_name: &ServerName) -> Result<ruma::OwnedRoomAliasId> {
    if name.is_empty() || name.contains(|c: char| c == ':' || c.is_whitespace()) {
        let message = "`room_alias_name` is the part of an alias between # and :, without spaces";
        return Err(Error::invalid_param(message));
    }
    let alias = RoomAliasId::parse(format!("#{name}:{server_name}"));
    alias.map_err(|e| Error::invalid_param(format!("`room_alias_name` gives no valid alias: {e}")))
}

fn initial_state(raw: &Raw<AnyInitialStateEvent>) -> Result<InitialState> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type")]
        kind: TimelineEventType,
        #[serde(default)]
        state_key: String,
        content: Box<RawValue>,
    }
    let event: Event = raw
        .deserialize_as_unchecked()
        .map_err(|e| Error::bad_json(format!("`initial_state` has something that is not a state event: {e}")))?;
    let content = read_content(&Raw::<()>::from_json(event.content))?;
    Ok(InitialState { kind: event.kind, state_key: event.state_key, content })
}
