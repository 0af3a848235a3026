//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>

use axum::Router;
use ruma::api::client::receipt::create_receipt::v3 as create_receipt;

use crate::{
    api::{error::ApiResult, extract::Call, route::Routes as _},
    app::App,
    error::Error,
    receipt::Marks,
};

pub(super) fn routes(router: Router<App>) -> Router<App> {
    router.endpoint::<create_receipt::Request, _, _>(create)
}

async fn create(app: App, call: Call<create_receipt::Request>) -> ApiResult<create_receipt::Response> {
    use create_receipt::ReceiptType;
    let create_receipt::Request { room_id, receipt_type, event_id, thread, .. } = call.request;
    let mut marks = Marks { thread, ..Marks::default() };
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
