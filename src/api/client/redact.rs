//! `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`.
//!
//! A redaction is an event with a transaction id like any other message. Who may redact what is decided where it is
//! written.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#redactions>

use ruma::{
    api::client::redact::redact_event::v3::{Request, Response},
    events::TimelineEventType,
};

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints, suspension::check_sending},
    app::App,
    event::{Transaction, content},
    room::Message,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(redact)
}

async fn redact(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Request { room_id, event_id, txn_id, reason, .. } = call.request;
    let mut content = content([("redacts", event_id.as_str().into())]);
    content.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    let message = Message {
        room_id,
        author: call.caller.author(),
        kind: TimelineEventType::RoomRedaction,
        content,
        transaction: Transaction::of_device(call.caller.device_id.clone(), txn_id),
    };
    check_sending(&app, &call.caller.user_id, call.caller.restrictions, &message).await?;
    Ok(Response::new(app.rooms.send(&message).await?))
}
