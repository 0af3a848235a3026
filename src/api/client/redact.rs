//! `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#redactions>

use axum::Router;
use ruma::{
    api::client::redact::redact_event::v3::{Request, Response},
    events::TimelineEventType,
};

use crate::{
    api::{error::ApiResult, extract::Call, restriction::check_sending, route::Routes as _},
    app::App,
    event::{Transaction, content},
    rate_limit::Limit,
    room::Message,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Request, _, _>(redact)
}

async fn redact(app: App, call: Call<Request>) -> ApiResult<Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let Request { room_id, event_id, txn_id, reason, .. } = call.request;
    let mut content = content([("redacts", event_id.as_str().into())]);
    content.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    let message = Message {
        room_id,
        sender: call.caller.user_id.clone(),
        admin: call.caller.admin,
        kind: TimelineEventType::RoomRedaction,
        content,
        transaction: Transaction { device_id: call.caller.device_id.clone(), transaction_id: txn_id },
    };
    check_sending(&app, &call.caller, &message).await?;
    Ok(Response::new(app.rooms.send(&message).await?))
}
