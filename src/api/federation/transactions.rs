//! `PUT /_matrix/federation/v1/send/{txnId}`: what other servers send by themselves.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use ruma::api::federation::transactions::send_transaction_message::v1;

use crate::{
    api::{error::ApiResult, extract::Call, route::Endpoints},
    app::App,
    error::Error,
    federation::inbox::Transaction,
};

pub(super) fn routes(endpoints: Endpoints) -> Endpoints {
    endpoints.endpoint(send_transaction)
}

/// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>
async fn send_transaction(app: App, call: Call<v1::Request>) -> ApiResult<v1::Response> {
    let v1::Request { transaction_id: id, origin, pdus, edus, .. } = call.request;
    let sender = &call.caller.name;
    if origin != *sender {
        return Err(Error::forbidden(format!("A transaction of {origin} can't be sent by {sender}")).into());
    }
    // Of rooms that nobody here is in, which the inbox knows nothing of. Done twice it does no harm.
    app.handshakes.take_endings(sender, &pdus).await?;
    Ok(v1::Response::new(app.inbox.receive(sender, Transaction { id, pdus, edus }).await?))
}
