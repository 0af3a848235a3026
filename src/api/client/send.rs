//! `PUT /rooms/{roomId}/send/{eventType}/{txnId}`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>

use axum::Router;
use ruma::{
    api::client::message::send_message_event::v3::{Request, Response},
    events::TimelineEventType,
};

use crate::{
    api::{content::read_content, error::ApiResult, extract::Call, restriction::check_sending, route::Routes as _},
    app::App,
    event::Transaction,
    rate_limit::Limit,
    room::Message,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Request, _, _>(send)
}

/// The time in `ts` is for application services, of which there are none: it is as if it were not there.
async fn send(app: App, call: Call<Request>) -> ApiResult<Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let Request { room_id, event_type, txn_id, body, .. } = call.request;
    let message = Message {
        room_id,
        sender: call.caller.user_id.clone(),
        admin: call.caller.admin,
        kind: TimelineEventType::from(event_type.to_string()),
        content: read_content(&body)?,
        transaction: Transaction { device_id: call.caller.device_id.clone(), transaction_id: txn_id },
    };
    check_sending(&app, &call.caller, &message).await?;
    let event_id = app.rooms.send(&message).await?;
    app.presence.active(&message.sender).await;
    Ok(Response::new(event_id))
}
