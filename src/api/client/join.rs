//! `POST /join/{roomIdOrAlias}` and `POST /rooms/{roomId}/join`.
//!
//! What else a client writes in the body than the specification has becomes part of the membership event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#joining-rooms>

use axum::Router;
use ruma::{
    RoomId,
    api::{
        IncomingRequest,
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
    account::Caller,
    api::{
        content::read_content, error::ApiResult, extract::Call, own::metadata_of, restriction::check_joining,
        route::Routes as _,
    },
    app::App,
    error::Result,
    event::Content,
    rate_limit::Limit,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<WithBody<ById>, _, _>(join_by_id).endpoint::<WithBody<ByIdOrAlias>, _, _>(join_by_id_or_alias)
}

/// A request with its body as it was sent.
struct WithBody<R> {
    request: R,
    body: Raw<()>,
}

metadata_of!(for R: WithBody<R>);

impl<R: IncomingRequest> IncomingRequest for WithBody<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let body = Raw::from_json(serde_json::from_slice(request.body())?);
        Ok(Self { request: R::try_from_http_request_inner(request, path)?, body })
    }
}

async fn join_by_id(app: App, call: Call<WithBody<ById>>) -> ApiResult<JoinedById> {
    let WithBody { request: ById { room_id, third_party_signed, reason, .. }, body } = call.request;
    let content = content(&body, reason)?;
    join(&app, &call.caller, &room_id, third_party_signed.as_ref(), content).await?;
    Ok(JoinedById::new(room_id))
}

/// Other servers that could help (`via`) can't be asked.
async fn join_by_id_or_alias(app: App, call: Call<WithBody<ByIdOrAlias>>) -> ApiResult<Joined> {
    let WithBody { request: ByIdOrAlias { room_id_or_alias, third_party_signed, reason, .. }, body } = call.request;
    let content = content(&body, reason)?;
    let room_id = app.rooms.resolve(&room_id_or_alias).await?;
    join(&app, &call.caller, &room_id, third_party_signed.as_ref(), content).await?;
    Ok(Joined::new(room_id))
}

/// What the membership event is to say, as far as the client has a say in it.
fn content(body: &Raw<()>, reason: Option<String>) -> Result<Content> {
    let mut content = read_content(body)?;
    content.remove("third_party_signed");
    content.remove("reason");
    content.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    Ok(content)
}

async fn join(
    app: &App,
    caller: &Caller,
    room_id: &RoomId,
    signed: Option<&ThirdPartySigned>,
    content: Content,
) -> Result<()> {
    app.rate_limits.check(Limit::Join, caller).await?;
    check_joining(app, caller, room_id).await?;
    if let Some(signed) = signed {
        app.third_party_invites.accept(room_id, &caller.user_id, signed).await?;
    }
    app.rooms.join_saying(room_id, &caller.user_id, caller.guest, content).await
}
