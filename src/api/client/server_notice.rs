//! Server notices from administrators, at the path where tools written for Synapse look for it.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/server_notices.html>

use ruma::{
    OwnedTransactionId, OwnedUserId,
    api::{auth_scheme::AccessToken, error::ErrorKind},
    events::{AnyMessageLikeEventContent, TimelineEventType},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{
        content::read_content,
        error::ApiResult,
        extract::Call,
        json::{self, Json},
        own::{own_request, read_path},
        route::Endpoints,
    },
    app::App,
    error::Error,
    event::NoticeFrom,
    people::{account::Administrator, notice::Notice},
};

/// In characters.
const TRANSACTION_ID_LENGTH: usize = 16;

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints
        .endpoint(|app, call: Call<Post>| send(app, call.caller, call.request.sending))
        .endpoint(|app, call: Call<Put>| send(app, call.caller, call.request.sending))
}

/// Sends a notice and returns its event's id. Without a transaction each request is one of its own.
///
/// `M_UNKNOWN` where the operator has set no sender, `M_NOT_FOUND` for a user who is not there.
async fn send(app: App, by: Administrator, sending: NoticeRequest) -> ApiResult<Json> {
    let id = sending.transaction_id.unwrap_or_else(|| app.random.token(TRANSACTION_ID_LENGTH).into());
    let body: NoticeBody = json::read(&sending.body)?;
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
        from: NoticeFrom::Administrator(by.user().user_id.clone()),
        id,
    };
    let event_id = notices.send_notice(&body.user_id, notice).await?;
    let event_id = event_id.ok_or_else(|| Error::not_found("There is no such user on this server"))?;
    Ok(Json::from(json!({ "event_id": event_id })))
}

/// What Synapse's endpoint takes.
#[derive(Deserialize)]
struct NoticeBody {
    user_id: OwnedUserId,
    // `m.room.message` where nothing is said.
    #[serde(rename = "type")]
    kind: Option<TimelineEventType>,
    /// With one, the notice is state.
    state_key: Option<String>,
    content: Raw<AnyMessageLikeEventContent>,
}

/// A notice that is to be sent: once for each transaction, or once more each time. The body is read by the handler,
/// which refuses in the words that tools know.
struct NoticeRequest {
    transaction_id: Option<OwnedTransactionId>,
    body: Vec<u8>,
}

own_request!(
    Post { sending: NoticeRequest }: POST AccessToken path "/_synapse/admin/v1/send_server_notice" -> Json,
    |request, _path| Ok(Self { sending: NoticeRequest { transaction_id: None, body: request.into_body().to_vec() } })
);

own_request!(
    Put { sending: NoticeRequest }: PUT AccessToken path "/_synapse/admin/v1/send_server_notice/{txn_id}" -> Json,
    |request, path| {
        let (transaction_id,) = read_path(path)?;
        let body = request.into_body().to_vec();
        Ok(Self { sending: NoticeRequest { transaction_id: Some(transaction_id), body } })
    }
);
