//! <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>
//!
//! To type is to be active, which presence notes.

use std::time::Duration;

use ruma::{
    OwnedRoomId, OwnedUserId, UInt,
    api::{
        IncomingRequest, client::typing::create_typing_event::v3 as create_typing_event, error::DeserializationError,
    },
};
use serde::Deserialize;

use crate::{
    api::{
        error::ApiResult,
        extract::Call,
        own::{metadata_of, read_path},
        route::Endpoints,
    },
    app::App,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<SetTyping, _, _>(set)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid>
///
/// `M_FORBIDDEN` for who is not in the room, and for typing as somebody else.
async fn set(app: App, call: Call<SetTyping>) -> ApiResult<create_typing_event::Response> {
    let SetTyping { room_id, user_id, state } = call.request;
    if user_id != call.caller.user_id {
        return Err(Error::forbidden("You can only type as yourself").into());
    }
    if state.typing {
        let timeout = state.timeout.map(|timeout| Duration::from_millis(timeout.into()));
        app.typists.begin(&user_id, &room_id, timeout).await?;
        app.presence.active(&user_id);
    } else {
        app.typists.stop(&user_id, &room_id).await?;
    }
    Ok(create_typing_event::Response::new())
}

/// As ruma's request, but `timeout` may be absent, as the specification has it.
struct SetTyping {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    state: TypingBody,
}

#[derive(Deserialize)]
struct TypingBody {
    // With `false`, the time is of no account.
    typing: bool,
    /// In milliseconds.
    /// How long it lasts unless it is said again; 30 seconds where nothing is said, and two minutes at most.
    timeout: Option<UInt>,
}

metadata_of!(SetTyping: create_typing_event::Request);

impl IncomingRequest for SetTyping {
    type EndpointError = <create_typing_event::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = create_typing_event::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, path: &[&str]) -> Result<Self, DeserializationError> {
        let (room_id, user_id) = read_path(path)?;
        Ok(Self { room_id, user_id, state: serde_json::from_slice(request.body())? })
    }
}
