//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>

use axum::Router;
use ruma::{api::client::message::send_message_event::v3::Request, events::TimelineEventType};
use serde_json::json;

use super::delayed_event::schedule_from_query;
use crate::{
    api::{
        content::read_content, delay::MaybeDelayed, error::ApiResult, extract::Call, json::Json,
        restriction::check_sending, route::Routes as _,
    },
    app::App,
    delayed_event::NewDelayedEvent,
    event::Transaction,
    rate_limit::Limit,
    room::Message,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<MaybeDelayed<Request>, _, _>(send)
}

/// The time in `ts` is for application services, of which there are none: it is as if it were not there.
async fn send(app: App, call: Call<MaybeDelayed<Request>>) -> ApiResult<Json> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let delay = call.request.delay()?;
    let Request { room_id, event_type, txn_id, body, .. } = call.request.request;
    let (kind, content) = (TimelineEventType::from(event_type.to_string()), read_content(&body)?);
    let (sender, device_id) = (call.caller.user_id.clone(), call.caller.device_id.clone());
    if let Some(delay) = delay {
        call.caller.restrictions.check_not_suspended()?;
        let (transaction_id, state_key) = (Some(txn_id), None);
        let new = NewDelayedEvent { sender, device_id, transaction_id, room_id, kind, state_key, content, delay };
        return schedule_from_query(&app, &new).await;
    }
    let transaction = Transaction { device_id, transaction_id: txn_id };
    let message = Message { room_id, sender, admin: call.caller.admin, kind, content, transaction };
    check_sending(&app, &call.caller, &message).await?;
    let event_id = app.rooms.send(&message).await?;
    app.presence.active(&message.sender);
    Ok(Json::from(json!({ "event_id": event_id })))
}
