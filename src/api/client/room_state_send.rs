//! `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use axum::Router;
use ruma::{
    CanonicalJsonValue,
    api::client::state::send_state_event::v3::{Request, Response},
    events::TimelineEventType,
};

use super::leave::check_leaving;
use crate::{
    api::{content::read_content, error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    rate_limit::Limit,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<Request, _, _>(send_state)
}

/// The time in `ts` is for application services, of which there are none: it is as if it were not there.
async fn send_state(app: App, call: Call<Request>) -> ApiResult<Response> {
    app.rate_limits.check(Limit::Message, &call.caller).await?;
    let Request { room_id, event_type, state_key, body, .. } = call.request;
    let (content, kind) = (read_content(&body)?, TimelineEventType::from(event_type.to_string()));
    let (sender, guest) = (&call.caller.user_id, call.caller.guest);
    let leaves = || content.get("membership").and_then(CanonicalJsonValue::as_str) == Some("leave");
    if kind == TimelineEventType::RoomMember && state_key == sender.as_str() && leaves() {
        check_leaving(&app, &room_id, sender).await?;
    }
    Ok(Response::new(app.rooms.send_state(&room_id, sender, guest, &kind, &state_key, content).await?))
}
