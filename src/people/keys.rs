//! The public keys of end-to-end encryption: devices upload them, everybody else asks for them.
//!
//! Whatever is stored was judged before: whose it is, how large, and that its signatures are right. A change and the
//! entry of the log by which others hear of it are one transaction. What is asked for is read from the database, so that
//! no node answers with what another has replaced.
//!
//! Lock order: the account, its device, master keys and the signatures of them by their owners, one-time keys, fallback
//! keys, the log; several of a sort in the order of their bytes. Of a user only the account's holder writes identity keys,
//! cross-signing keys and signatures, and whoever signs the master key of somebody else locks that, so that a signature
//! is never beside a key that it is not of.
//!
//! Who uploads holds their session as well ([`crate::people::account::hold_account`]): a request that was on its way when
//! it ended leaves nothing behind, and one of a session before does not replace the keys of the one after it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

mod claim;
mod cross_signing;
mod device_keys;
mod one_time;
mod pages;
mod query;
mod queue;
mod signature;
mod signed;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod upload;

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use self::queue::ClaimQueue;
use crate::{db::Db, ground::tasks::Tasks, log::Log};

pub(crate) use self::{
    cross_signing::{Confirmation, NewCrossSigning, Outcome},
    pages::KeyQuery,
};

/// The keys of this server's users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    db: Db,
    log: Log,
    tasks: Tasks,
    server_name: OwnedServerName,
    claims: ClaimQueue,
}

impl Keys {
    pub(crate) fn new(db: Db, log: Log, tasks: Tasks, server_name: OwnedServerName) -> Self {
        Self(Arc::new(Inner { db, log, tasks, server_name, claims: ClaimQueue::default() }))
    }

    fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.0.server_name
    }

    /// The servers of those of these users who have their account elsewhere, as `failures` names them: they can't be
    /// reached yet.
    fn failures<'a>(&self, users: impl Iterator<Item = &'a OwnedUserId>) -> Map<String, Value> {
        let servers: BTreeSet<&str> =
            users.filter(|user_id| !self.is_local(user_id)).map(|user_id| user_id.server_name().as_str()).collect();
        let failure =
            || json!({ "errcode": "M_UNKNOWN", "error": "This server is not connected to other servers yet" });
        servers.into_iter().map(|server| (server.to_owned(), failure())).collect()
    }
}
