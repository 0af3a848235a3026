//! `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`.
//!
//! State has no transaction id. Setting what is set already returns the event that holds it, which makes a retry
//! harmless.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use ruma::{CanonicalJsonValue, UserId, api::client::state::send_state_event::v3::Request, events::TimelineEventType};
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
    },
    app::App,
    event::Content,
    worker::delayed_event::NewDelayedEvent,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<MaybeDelayed<Request>, _, _>(send_state)
}

/// The time in `ts` is for application services, of which there are none: it is as if it were not there.
async fn send_state(app: App, call: Call<MaybeDelayed<Request>>) -> ApiResult<Json> {
    let AsJson(WithExtra { request, extra: delay }) = call.request;
    let delay = delay.get()?;
    let Request { room_id, event_type, state_key, body, .. } = request;
    let (content, kind) = (read_content(&body)?, TimelineEventType::from(event_type.to_string()));
    if let Some(delay) = delay {
        let (sender, device_id) = (call.caller.user_id().to_owned(), call.caller.device_id().to_owned());
        // The path names no transaction: who asks twice has two of them.
        let (transaction_id, state_key) = (None, Some(state_key));
        let new = NewDelayedEvent { sender, device_id, transaction_id, room_id, kind, state_key, content, delay };
        return schedule_from_query(&app, &new).await;
    }
    let event_id = match find_invited(&kind, &state_key, &content).filter(|user| app.entrance.is_elsewhere(user)) {
        // Their server has to sign it.
        Some(user) => app.entrance.invite_elsewhere(&room_id, call.caller.user_id(), user, content).await?,
        None => app.rooms.send_state(&room_id, &call.caller.author(), &kind, &state_key, content).await?,
    };
    Ok(Json::from(json!({ "event_id": event_id })))
}

/// Whom a piece of state invites, if it is an invitation.
fn find_invited<'a>(kind: &TimelineEventType, state_key: &'a str, content: &Content) -> Option<&'a UserId> {
    let membership = content.get("membership").and_then(CanonicalJsonValue::as_str);
    let invites = *kind == TimelineEventType::RoomMember && membership == Some("invite");
    <&UserId>::try_from(state_key).ok().filter(|_| invites)
}
