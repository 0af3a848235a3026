//! `PUT /sendToDevice/{eventType}/{txnId}`.
//!
//! The transaction id makes a retry harmless: nobody gets a message twice, on whichever node it is sent again.
//!
//! Suspended accounts may: they verify their devices with it, and without it they could not read what they are sent.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::collections::BTreeMap;

use http::StatusCode;
use ruma::api::{
    client::to_device::send_event_to_device::v3::{Messages, Request, Response},
    error::ErrorKind,
};

use crate::{
    api::{
        error::{ApiError, ApiResult},
        extract::Call,
        route::Endpoints,
    },
    app::App,
    people::{
        rate_limit::Limit,
        to_device::{self, MAX_CONTENT, SendRequest},
    },
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<Request, _, _>(send)
}

/// `M_TOO_LARGE` with 400 for a message that is too large; what else is refused, [`to_device`] says.
async fn send(app: App, call: Call<Request>) -> ApiResult<Response> {
    let Call { request, caller, .. } = call;
    let Request { event_type, txn_id, messages, .. } = request;
    check_sizes(&messages)?;
    let (user_id, cost) = (caller.user_id(), to_device::cost(&messages));
    app.rate_limits.check(Limit::ToDevice, cost, user_id, caller.pace()).await?;
    let addressed = app.to_device.address(messages).await?;
    // What is for all devices of somebody was counted once.
    let more = addressed.cost().saturating_sub(cost);
    app.rate_limits.owe(Limit::ToDevice, more, user_id, caller.pace()).await?;
    let (sender, device_id) = (user_id.to_owned(), caller.device_id().to_owned());
    let request = SendRequest { sender, device_id, kind: event_type.to_string(), transaction_id: txn_id };
    app.to_device.send(request, addressed).await?;
    Ok(Response::new())
}

/// Refuses a message whose content is too large.
fn check_sizes(messages: &Messages) -> ApiResult<()> {
    let mut contents = messages.values().flat_map(BTreeMap::values);
    if contents.any(|content| content.json().get().len() > MAX_CONTENT) {
        let message = format!("The content of a message to a device has at most {MAX_CONTENT} bytes");
        return Err(ApiError::Status(StatusCode::BAD_REQUEST, ErrorKind::TooLarge, message));
    }
    Ok(())
}
