//! Server notices from administrators, at the path where tools written for Synapse look for it.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/server_notices.html>

use axum::Router;
use ruma::{
    OwnedTransactionId, OwnedUserId,
    api::{IncomingRequest, auth_scheme::AccessToken, error::DeserializationError, error::ErrorKind, metadata},
    events::{AnyMessageLikeEventContent, TimelineEventType},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    account::Caller,
    api::{
        content::read_content,
        error::ApiResult,
        extract::Call,
        json::{self, Json},
        own::read_path,
        route::Routes as _,
    },
    app::App,
    error::Error,
    notice::Notice,
};

const TRANSACTION_ID_LENGTH: usize = 16;

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Post, _, _>(post).endpoint::<Put, _, _>(put)
}

async fn post(app: App, call: Call<Post>) -> ApiResult<Json> {
    let transaction_id = app.random.token(TRANSACTION_ID_LENGTH).into();
    send(&app, &call.caller, transaction_id, &call.request.body).await
}

async fn put(app: App, call: Call<Put>) -> ApiResult<Json> {
    send(&app, &call.caller, call.request.transaction_id, &call.request.body).await
}

/// Whoever is no administrator learns nothing from how the body is judged.
async fn send(app: &App, caller: &Caller, transaction_id: OwnedTransactionId, body: &[u8]) -> ApiResult<Json> {
    if !caller.admin {
        return Err(Error::forbidden("Only administrators of this server send notices in its name").into());
    }
    let body: Body = json::read(body)?;
    let notices = app.notices.as_ref().ok_or_else(|| {
        let message = "The server has no voice of its own: the operator can set server_notices.localpart";
        Error::refused(ErrorKind::Unknown, message)
    })?;
    if body.user_id.server_name() != app.server_name {
        return Err(Error::invalid_param("Notices can only be sent to users of this server").into());
    }
    let notice = Notice {
        kind: body.kind.unwrap_or(TimelineEventType::RoomMessage),
        state_key: body.state_key,
        content: read_content(&body.content)?,
        sender: format!("notices of {}", caller.user_id).into(),
        id: transaction_id,
    };
    let event_id = notices.send_notice(&body.user_id, notice).await?;
    let event_id = event_id.ok_or_else(|| Error::not_found("There is no such user on this server"))?;
    Ok(Json::from(json!({ "event_id": event_id })))
}

#[derive(Deserialize)]
struct Body {
    user_id: OwnedUserId,
    #[serde(rename = "type")]
    kind: Option<TimelineEventType>,
    state_key: Option<String>,
    content: Raw<AnyMessageLikeEventContent>,
}

/// A notice to be sent once more each time.
struct Post {
    body: Vec<u8>,
}

metadata! {
    @for Post,
    method: POST,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_synapse/admin/v1/send_server_notice",
}

impl IncomingRequest for Post {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self { body: request.into_body().to_vec() })
    }
}

/// A notice to be sent once for each transaction.
struct Put {
    transaction_id: OwnedTransactionId,
    body: Vec<u8>,
}

metadata! {
    @for Put,
    method: PUT,
    rate_limited: false,
    authentication: AccessToken,
    path: "/_synapse/admin/v1/send_server_notice/{txn_id}",
}

impl IncomingRequest for Put {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = Json;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (transaction_id,) = read_path(path)?;
        Ok(Self { transaction_id, body: request.into_body().to_vec() })
    }
}
