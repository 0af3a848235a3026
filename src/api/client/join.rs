//! `POST /join/{roomIdOrAlias}` and `POST /rooms/{roomId}/join`.
//!
//! What else a client writes in the body than the specification has becomes part of the membership event.
//!
//! Suspended accounts reach these handlers, because the room of server notices is open to them; `suspension.rs` refuses
//! every other.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#joining-rooms>

use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomOrAliasId,
    api::{
        client::membership::{
            ThirdPartySigned,
            join_room_by_id::v3::{Request as ById, Response as JoinedById},
            join_room_by_id_or_alias::v3::{Request as ByIdOrAlias, Response as Joined},
        },
        error::DeserializationError,
    },
    serde::Raw,
};

use crate::{
    api::{
        content::read_content,
        error::ApiResult,
        extract::Call,
        own::{Extra, WithExtra},
        route::Endpoints,
        suspension::check_joining,
    },
    app::App,
    error::Result,
    event::Content,
    people::{account::Caller, third_party_invite::read_signed},
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint::<WithExtra<ById, JoinBody>, _, _>(join_by_id)
        .endpoint::<WithExtra<ByIdOrAlias, JoinBody>, _, _>(join_by_id_or_alias)
}

/// The body as it was sent.
struct JoinBody(Raw<()>);

impl Extra for JoinBody {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        Ok(Self(Raw::from_json(serde_json::from_slice(request.body())?)))
    }
}

async fn join_by_id(app: App, call: Call<WithExtra<ById, JoinBody>>) -> ApiResult<JoinedById> {
    let WithExtra { request: ById { room_id, third_party_signed, reason, .. }, extra: JoinBody(body) } = call.request;
    let content = content(&body, reason)?;
    join(&app, &call.caller, (&room_id, &[]), third_party_signed.as_ref(), content).await?;
    Ok(JoinedById::new(room_id))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias>
async fn join_by_id_or_alias(app: App, call: Call<WithExtra<ByIdOrAlias, JoinBody>>) -> ApiResult<Joined> {
    let WithExtra { request, extra: JoinBody(body) } = call.request;
    let ByIdOrAlias { room_id_or_alias, third_party_signed, reason, via, .. } = request;
    let content = content(&body, reason)?;
    let (room_id, via) = resolve(&app, &room_id_or_alias, via).await?;
    join(&app, &call.caller, (&room_id, &via), third_party_signed.as_ref(), content).await?;
    Ok(Joined::new(room_id))
}

/// What the membership event is to say, as far as the client has a say in it.
///
/// `third_party_signed` is proof for the server; `reason` comes from where ruma has checked its type.
fn content(body: &Raw<()>, reason: Option<String>) -> Result<Content> {
    let mut content = read_content(body)?;
    content.remove("third_party_signed");
    content.remove("reason");
    content.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    Ok(content)
}

/// The room that an identifier or alias stands for, and which servers may help to come into it: `via`, and those that
/// the alias leads to.
pub(super) async fn resolve(
    app: &App,
    id: &RoomOrAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    match <&RoomId>::try_from(id) {
        Err(alias) if alias.server_name() != app.server_name => {
            let (room_id, servers) = app.reach.resolve_alias(alias).await?;
            via.extend(servers);
            Ok((room_id, via))
        }
        _ => Ok((app.rooms.resolve(id).await?, via)),
    }
}

async fn join(
    app: &App,
    caller: &Caller,
    (room_id, via): (&RoomId, &[OwnedServerName]),
    signed: Option<&ThirdPartySigned>,
    content: Content,
) -> Result<()> {
    // Before the signature is redeemed: a suspended user must not use up an invitation.
    check_joining(app, caller.restrictions(), room_id).await?;
    let Some(signed) = signed else {
        return app.entrance.join(&caller.author(), room_id, via, content).await;
    };
    let inviter = &signed.sender;
    if app.entrance.is_elsewhere(inviter) {
        let signed = read_signed(signed, caller.user_id())?;
        app.entrance.exchange(room_id, inviter, caller.user_id(), signed).await?;
        return app.entrance.join_by_invitation_of(inviter.server_name(), &caller.author(), room_id, content).await;
    }
    app.third_party_invites.accept(room_id, caller.user_id(), signed).await?;
    app.entrance.join(&caller.author(), room_id, via, content).await
}
