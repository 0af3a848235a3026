//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}`.
//!
//! The transaction id makes a retry harmless: the event that the first attempt made is returned, on whichever node.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>

use ruma::{api::client::message::send_message_event::v3::Request, events::TimelineEventType};
use serde_json::json;

use super::delayed_event::schedule_from_query;
use crate::{
    api::{
        content::read_content,
        delay::MaybeDelayed,
        error::ApiResult,
        extract::Call,
        json::{AsJson, Json},
        own::WithExtra,
        route::Endpoints,
        suspension::check_sending,
    },
    app::App,
    event::Transaction,
    room::Message,
    worker::delayed_event::NewDelayedEvent,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<MaybeDelayed<Request>, _, _>(send)
}

/// The time in `ts` is for application services, of which there are none: it is as if it were not there.
async fn send(app: App, call: Call<MaybeDelayed<Request>>) -> ApiResult<Json> {
    let AsJson(WithExtra { request, extra: delay }) = call.request;
    let delay = delay.get()?;
    let Request { room_id, event_type, txn_id, body, .. } = request;
    let (kind, content) = (TimelineEventType::from(event_type.to_string()), read_content(&body)?);
    let device_id = call.caller.device_id().to_owned();
    // Suspended accounts schedule nothing, not even a redaction that they may send at once.
    if let Some(delay) = delay {
        call.caller.restrictions().check_not_suspended()?;
        let (sender, transaction_id, state_key) = (call.caller.user_id().to_owned(), Some(txn_id), None);
        let new = NewDelayedEvent { sender, device_id, transaction_id, room_id, kind, state_key, content, delay };
        return schedule_from_query(&app, &new).await;
    }
    let transaction = Transaction::of_device(device_id, txn_id);
    let message = Message { room_id, author: call.caller.author(), kind, content, transaction };
    check_sending(&app, call.caller.user_id(), call.caller.restrictions(), &message).await?;
    let event_id = app.rooms.send(&message).await?;
    // To send is to be active. Not before it is written: what is refused shows nobody.
    app.presence.active(message.author.user_id());
    Ok(Json::from(json!({ "event_id": event_id })))
}
