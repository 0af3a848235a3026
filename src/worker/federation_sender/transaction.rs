//! Transactions: how events get to another server, and what becomes of them there.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use futures_util::future::BoxFuture;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedTransactionId, ServerName,
    api::federation::transactions::send_transaction_message::v1::Request,
};

use super::queue::QueuedEvent;
use crate::{
    edge::federation_client::{Bounds, RemoteError},
    federation::remote::Remote,
    ground::random::Random,
};

/// How many characters an identifier has: no two of this server's are ever the same.
const ID_LENGTH: usize = 24;

/// Brings transactions to other servers. For tests there is another than [`Remote`].
pub(super) trait Carrier: Send + Sync {
    /// Brings a transaction to a server, once. Returns those of the events that the server does not want, each with why:
    /// it has all the others.
    fn deliver<'a>(&'a self, to: &'a ServerName, transaction: Request) -> BoxFuture<'a, Result<Refused, RemoteError>>;
}

/// Events that a server does not want, each with why.
pub(super) type Refused = Vec<(OwnedEventId, String)>;

impl Carrier for Remote {
    fn deliver<'a>(&'a self, to: &'a ServerName, transaction: Request) -> BoxFuture<'a, Result<Refused, RemoteError>> {
        Box::pin(async move {
            let answer = self.call(to, transaction, Bounds::TRANSACTION).await?;
            Ok(answer.pdus.into_iter().filter_map(|(id, taken)| Some((id, taken.err()?))).collect())
        })
    }
}

/// A transaction of events, under an identifier of its own.
///
/// What is no event has its place in `edus`, 100 at most: receipts, who types, who is there, device lists, messages to
/// devices.
pub(super) fn transaction(
    here: &ServerName,
    now: MilliSecondsSinceUnixEpoch,
    random: &Random,
    events: &[QueuedEvent],
) -> Request {
    let mut transaction = Request::new(OwnedTransactionId::from(random.token(ID_LENGTH)), here.to_owned(), now);
    transaction.pdus = events.iter().map(|event| event.pdu.json().to_owned()).collect();
    transaction
}

/// Whether a server refuses a transaction for what is in it, so that it may take it in other pieces. Anything else is about
/// the server: it is not there, or does not know us, or has no time.
pub(super) fn is_about_content(error: &RemoteError) -> bool {
    // Bad request, too large, can't be processed.
    matches!(error, RemoteError::Refused { status: 400 | 413 | 422, .. })
}
