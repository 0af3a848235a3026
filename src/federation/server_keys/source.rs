//! Where keys come from: the servers whose keys they are, and notaries. Nothing of what they answer is believed here.

use std::collections::BTreeMap;

use futures_util::{FutureExt as _, future::BoxFuture};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName, UInt,
    api::federation::discovery::{
        get_remote_server_keys_batch::v2::{self as get_remote_server_keys_batch, QueryCriteria},
        get_server_keys::v2 as get_server_keys,
    },
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{
    edge::federation_client::{Bounds, RemoteError},
    federation::remote::Remote,
};

/// Keys that are asked for of a notary: of each server, each with the time at which it should be good, in milliseconds
/// since the Unix epoch.
pub(crate) type WantedKeys = BTreeMap<OwnedServerName, BTreeMap<OwnedServerSigningKeyId, i64>>;

/// Who can be asked for keys.
pub(crate) trait KeyServers: Send + Sync {
    /// What a server says of its own keys.
    fn keys_of<'a>(&'a self, server: &'a ServerName) -> BoxFuture<'a, Result<Box<RawValue>, RemoteError>>;

    /// What a notary says of the keys of others: a document for some of the servers, or several.
    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        wanted: &'a WantedKeys,
    ) -> BoxFuture<'a, Result<Vec<Box<RawValue>>, RemoteError>>;
}

impl KeyServers for Remote {
    fn keys_of<'a>(&'a self, server: &'a ServerName) -> BoxFuture<'a, Result<Box<RawValue>, RemoteError>> {
        async move {
            let answer = self.call(server, get_server_keys::Request::new(), Bounds::QUICK).await?;
            Ok(answer.server_key.into_json())
        }
        .boxed()
    }

    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        wanted: &'a WantedKeys,
    ) -> BoxFuture<'a, Result<Vec<Box<RawValue>>, RemoteError>> {
        async move {
            let criteria = |at: i64| {
                let mut criteria = QueryCriteria::new();
                criteria.minimum_valid_until_ts = UInt::try_from(at).ok().map(MilliSecondsSinceUnixEpoch);
                criteria
            };
            let of_server = |keys: &BTreeMap<OwnedServerSigningKeyId, i64>| {
                keys.iter().map(|(key_id, at)| (key_id.clone(), criteria(*at))).collect()
            };
            let server_keys = wanted.iter().map(|(server, keys)| (server.clone(), of_server(keys))).collect();
            let request = get_remote_server_keys_batch::Request::new(server_keys);
            let answer = self.call(notary, request, Bounds::ANSWER).await?;
            Ok(answer.server_keys.into_iter().map(Raw::into_json).collect())
        }
        .boxed()
    }
}
