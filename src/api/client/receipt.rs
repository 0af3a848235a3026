//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>
//!
//! To read is to be active, which presence notes.

use ruma::api::client::receipt::create_receipt::v3 as create_receipt;

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    ephemeral::receipt::ReadMarkers,
    error::Error,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<create_receipt::Request, _, _>(create)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid>
///
/// A receipt that is behind the one that is there changes nothing and succeeds.
async fn create(app: App, call: Call<create_receipt::Request>) -> ApiResult<create_receipt::Response> {
    use create_receipt::ReceiptType;
    let create_receipt::Request { room_id, receipt_type, event_id, thread, .. } = call.request;
    let mut marks = ReadMarkers { thread, ..ReadMarkers::default() };
    match receipt_type {
        ReceiptType::Read => marks.read = Some(event_id),
        ReceiptType::ReadPrivate => marks.read_private = Some(event_id),
        ReceiptType::FullyRead => marks.fully_read = Some(event_id),
        other => {
            let message = format!("There is no receipt type {other}: use m.read, m.read.private or m.fully_read");
            return Err(Error::invalid_param(message).into());
        }
    }
    app.receipts.mark(&call.caller.user_id, &room_id, marks).await?;
    app.presence.active(&call.caller.user_id);
    Ok(create_receipt::Response::new())
}
