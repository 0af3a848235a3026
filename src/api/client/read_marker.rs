//! <https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers>
//!
//! Several marks in one request are written in one step: all or none.

use ruma::api::client::read_marker::set_read_marker::v3 as set_read_marker;

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    ephemeral::receipt::ReadMarkers,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint::<set_read_marker::Request, _, _>(set)
}

async fn set(app: App, call: Call<set_read_marker::Request>) -> ApiResult<set_read_marker::Response> {
    let set_read_marker::Request { room_id, fully_read, read_receipt, private_read_receipt, .. } = call.request;
    let marks =
        ReadMarkers { read: read_receipt, read_private: private_read_receipt, fully_read, ..ReadMarkers::default() };
    app.receipts.mark(&call.caller.user_id, &room_id, marks).await?;
    app.presence.active(&call.caller.user_id);
    Ok(set_read_marker::Response::new())
}
