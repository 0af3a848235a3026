//! Verifying events: each by itself, many at a time, with the keys that their servers had when they sent them.
//!
//! That a key was good then is asked of every version of rooms that is spoken here. Keys are asked for before anything is
//! checked, for all events together; signatures are checked beside the runtime's own threads where there are many.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#signing-key-validity-period>

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    OwnedServerName, OwnedServerSigningKeyId,
    signatures::{PublicKeyMap, PublicKeySet},
};

use super::{
    needs::{Knowledge, Need},
    ring::ServerKeys,
};
use crate::{
    error::Error,
    event::{Pdu, ReceivedError, ReceivedPdu},
};

/// So few events are checked where they are: about a millisecond's work.
const FEW: usize = 8;
/// How many are checked on another thread without a break: a few milliseconds' work.
const AT_ONCE: usize = 64;

/// Why an event, or a request, is not believed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// It never will be.
    #[error("{0}")]
    Invalid(String),
    /// Keys are missing without which nobody can tell. They may be had later.
    #[error("{0}")]
    KeysUnavailable(String),
}

impl From<Error> for VerifyError {
    fn from(error: Error) -> Self {
        Self::KeysUnavailable(error.to_string())
    }
}

impl From<ReceivedError> for VerifyError {
    fn from(error: ReceivedError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Whose signatures an event needs, and with which keys they say that they have signed it.
type Signers = BTreeMap<OwnedServerName, Vec<OwnedServerSigningKeyId>>;

/// An event, and the keys to check it with. An error where it can't be believed without that.
type Checkable = (ReceivedPdu, Result<PublicKeyMap, VerifyError>);

impl ServerKeys {
    /// Verifies one event.
    pub(crate) async fn verify(&self, received: ReceivedPdu) -> Result<Pdu, VerifyError> {
        let verified = self.verify_all(vec![received]).await.pop();
        verified.unwrap_or_else(|| Err(VerifyError::Invalid("there is no event".to_owned())))
    }

    /// Verifies events. What comes of each stands at its place.
    pub(crate) async fn verify_all(&self, received: Vec<ReceivedPdu>) -> Vec<Result<Pdu, VerifyError>> {
        let signers: Vec<Result<Signers, ReceivedError>> = received.iter().map(ReceivedPdu::signers).collect();
        let mut needs = Vec::new();
        for (event, signers) in received.iter().zip(&signers) {
            let at = i64::from(event.origin_server_ts().get());
            let signers = signers.iter().flatten();
            needs.extend(signers.map(|(server, keys)| Need { server: server.clone(), key_ids: keys.clone(), at }));
        }
        let knowledge = match Box::pin(self.know(&needs)).await {
            Ok(knowledge) => knowledge,
            Err(error) => {
                tracing::warn!(%error, "events could not be verified; they have to be sent again");
                let error = VerifyError::from(error);
                return received.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let checkable = received.into_iter().zip(signers).map(|(event, signers)| {
            let at = i64::from(event.origin_server_ts().get());
            let keys = signers.map_err(VerifyError::from).and_then(|signers| keys_for(&signers, at, &knowledge));
            (event, keys)
        });
        self.check_all(checkable.collect()).await
    }

    async fn check_all(&self, events: Vec<Checkable>) -> Vec<Result<Pdu, VerifyError>> {
        if events.len() <= FEW {
            return events.into_iter().map(check).collect();
        }
        let (mut working, mut rest) = (Vec::new(), events.into_iter());
        loop {
            let part: Vec<Checkable> = rest.by_ref().take(AT_ONCE).collect();
            if part.is_empty() {
                break;
            }
            // Nobody closes it; without a place the work is done all the same.
            let place = Arc::clone(&self.0.threads).acquire_owned().await.ok();
            let count = part.len();
            let work = tokio::task::spawn_blocking(move || {
                // Moved into the work, which can't be broken off.
                let _place = place;
                part.into_iter().map(check).collect::<Vec<_>>()
            });
            working.push((count, work));
        }
        let mut verified = Vec::new();
        for (count, work) in working {
            match work.await {
                Ok(done) => verified.extend(done),
                Err(error) => {
                    let failed = || Err(VerifyError::KeysUnavailable(format!("it could not be verified: {error}")));
                    verified.extend((0..count).map(|_| failed()));
                }
            }
        }
        verified
    }
}

fn check((event, keys): Checkable) -> Result<Pdu, VerifyError> {
    Ok(event.verify(&keys?)?)
}

/// Those of the keys that were good at the time (milliseconds since the Unix epoch), of each server one at least.
fn keys_for(signers: &Signers, at: i64, knowledge: &Knowledge) -> Result<PublicKeyMap, VerifyError> {
    let mut keys = PublicKeyMap::new();
    for (server, key_ids) in signers {
        let known = knowledge.keys.get(server);
        let good: PublicKeySet = key_ids
            .iter()
            .filter_map(|key_id| Some((key_id.to_string(), known?.find(key_id.as_str(), at)?.clone())))
            .collect();
        if good.is_empty() {
            return Err(match knowledge.failures.get(server) {
                Some(reason) => VerifyError::KeysUnavailable(format!("the keys of {server} can't be had: {reason}")),
                None => VerifyError::Invalid(format!("no key with which {server} has signed it was good at that time")),
            });
        }
        keys.insert(server.to_string(), good);
    }
    Ok(keys)
}
