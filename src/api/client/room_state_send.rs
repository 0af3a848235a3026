//! `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use axum::Router;
use ruma::{api::client::state::send_state_event::v3::Request, events::TimelineEventType};
use serde_json::json;

use super::delayed_event::schedule_from_query;
use crate::{
    api::{
        content::read_content, delay::MaybeDelayed, error::ApiResult, extract::Call, json::Json, route::Routes as _,
    },
    app::App,
    delayed_event::NewDelayedEvent,
    rate_limit::Limit,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<MaybeDelayed<Request>, _, _>(send_state)
}

/// The time in `ts` is for application services, of which there are none: it is as if it were not there.
async fn send_state(app: App, call: Call<MaybeDelayed<Request>>) -> ApiResult<Json> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let delay = call.request.delay()?;
    let Request { room_id, event_type, state_key, body, .. } = call.request.request;
    let (content, kind) = (read_content(&body)?, TimelineEventType::from(event_type.to_string()));
    if let Some(delay) = delay {
        let (sender, device_id) = (call.caller.user_id, call.caller.device_id);
        // The path names no transaction: who asks twice has two of them.
        let (transaction_id, state_key) = (None, Some(state_key));
        let new = NewDelayedEvent { sender, device_id, transaction_id, room_id, kind, state_key, content, delay };
        return schedule_from_query(&app, &new).await;
    }
    let (sender, guest) = (&call.caller.user_id, call.caller.guest);
    let event_id = app.rooms.send_state(&room_id, sender, guest, &kind, &state_key, content).await?;
    Ok(Json::from(json!({ "event_id": event_id })))
}
