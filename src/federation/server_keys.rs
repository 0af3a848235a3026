//! The keys of other servers: what they sign their events and requests with, and until when each may have signed
//! something.
//!
//! A key that is not known here, or not for long enough, is asked for of its server and then of the notaries whom the
//! operator trusts, for many servers at once where many are asked for. What was found out stays in the database, because
//! events are verified for as long as anybody holds them.
//!
//! The keys of this server are among them: its own events come back from others.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

mod document;
mod fetch;
mod known;
mod notary;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
};

use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId, serde::Base64};
use tokio::sync::Semaphore;

pub(crate) use self::{
    document::{PublishedKeys, read_published},
    notary::{AskedKeys, KeyQuery, LIFETIME},
    source::KeyServers,
    verify::VerifyError,
};
use self::{
    fetch::Fetches,
    known::{KeyCache, KnownKeys},
};
use crate::{
    db::Db,
    error::Result,
    event::SigningKeys,
    ground::{clock::Clock, sizes::CacheSizes, tasks::Tasks, weighed::Weighed},
    store::server_key,
};

/// The keys of servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ServerKeys(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    tasks: Tasks,
    server_name: OwnedServerName,
    own: SigningKeys,
    servers: Arc<dyn KeyServers>,
    /// Whom the operator trusts to say what other servers sign with.
    notaries: Vec<OwnedServerName>,
    cache: Arc<KeyCache>,
    fetches: Fetches,
    /// As many places as there are processors, for checking signatures.
    threads: Arc<Semaphore>,
}

/// A signature that is to be checked: one of these keys of a server must have been good at a time.
#[derive(Clone, Debug)]
struct Need {
    server: OwnedServerName,
    key_ids: Vec<OwnedServerSigningKeyId>,
    /// In milliseconds since the Unix epoch.
    at: i64,
}

/// What is known of the keys of some servers.
#[derive(Debug, Default)]
struct Knowledge {
    keys: BTreeMap<OwnedServerName, Arc<KnownKeys>>,
    /// Why some of them may have other keys than these.
    failures: BTreeMap<OwnedServerName, String>,
}

impl Knowledge {
    fn satisfies(&self, need: &Need) -> bool {
        let keys = self.keys.get(&need.server);
        keys.is_some_and(|keys| need.key_ids.iter().any(|key_id| keys.find(key_id.as_str(), need.at).is_some()))
    }
}

impl ServerKeys {
    /// `own`: what this server is called, and its keys. `notaries` are asked in the order of their trust.
    pub(crate) fn new(
        (db, clock, tasks): (Db, Clock, Tasks),
        (server_name, own): (OwnedServerName, SigningKeys),
        servers: Arc<dyn KeyServers>,
        notaries: Vec<OwnedServerName>,
        sizes: &CacheSizes,
    ) -> Self {
        let cache = Arc::new(KeyCache::new(sizes));
        let places = thread::available_parallelism().map_or(1, usize::from);
        let (fetches, threads) = (Fetches::default(), Arc::new(Semaphore::new(places)));
        Self(Arc::new(Inner { db, clock, tasks, server_name, own, servers, notaries, cache, fetches, threads }))
    }

    /// What of the keys is in memory.
    pub(crate) fn cache(&self) -> Arc<dyn Weighed> {
        Arc::clone(&self.0.cache) as _
    }

    /// A key with which a server may sign requests now, if it is known here. Nobody is asked.
    pub(crate) async fn find_request_key(
        &self,
        server: &ServerName,
        key_id: &ServerSigningKeyId,
    ) -> Result<Option<Base64>> {
        let known = self.list_known([server].into()).await?;
        Ok(known.get(server).and_then(|keys| keys.find(key_id.as_str(), self.now()).cloned()))
    }

    /// A key with which a server may sign requests now.
    pub(crate) async fn request_key(
        &self,
        server: &ServerName,
        key_id: &ServerSigningKeyId,
    ) -> Result<Base64, VerifyError> {
        let need = Need { server: server.to_owned(), key_ids: vec![key_id.to_owned()], at: self.now() };
        let knowledge = Box::pin(self.know(&[need])).await?;
        let key = knowledge.keys.get(server).and_then(|keys| keys.find(key_id.as_str(), self.now()).cloned());
        key.ok_or_else(|| match knowledge.failures.get(server) {
            Some(reason) => VerifyError::KeysUnavailable(format!("the keys of {server} can't be had: {reason}")),
            None => VerifyError::Invalid(format!("{server} does not sign with the key {key_id}")),
        })
    }

    /// What has to be known for these, as far as it can be had: memory, the database, the servers themselves, notaries.
    async fn know(&self, needs: &[Need]) -> Result<Knowledge> {
        let servers: BTreeSet<&ServerName> = needs.iter().map(|need| &*need.server).collect();
        let mut knowledge = Knowledge { keys: self.list_known(servers).await?, ..Knowledge::default() };
        let missing = |knowledge: &Knowledge| -> Vec<Need> {
            needs.iter().filter(|need| !knowledge.satisfies(need)).cloned().collect()
        };
        let mut left = missing(&knowledge);
        // Another node may have fetched what memory here does not have.
        self.reload(&left.iter().map(|need| &*need.server).collect(), &mut knowledge).await?;
        left = missing(&knowledge);
        if left.is_empty() {
            return Ok(knowledge);
        }
        // Of many servers some are gone for good, for whose silence everybody would have to wait.
        let notaries_first = fetch::are_many(&left);
        if notaries_first {
            self.ask_notaries(&left, &mut knowledge).await?;
            left = missing(&knowledge);
        }
        self.ask_themselves(&left, &mut knowledge).await?;
        left = missing(&knowledge);
        if !notaries_first {
            self.ask_notaries(&left, &mut knowledge).await?;
        }
        Ok(knowledge)
    }

    /// What memory and the database have of the keys of these servers. Servers of which nothing is known are missing.
    async fn list_known(&self, servers: BTreeSet<&ServerName>) -> Result<BTreeMap<OwnedServerName, Arc<KnownKeys>>> {
        let (mut known, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for server in &servers {
            match self.0.cache.find(server) {
                Some(keys) => drop(known.insert((*server).to_owned(), keys)),
                None => drop(missing.insert(*server)),
            }
        }
        known.extend(self.load(&missing).await?);
        self.add_own(&servers, &mut known);
        Ok(known)
    }

    /// Has the database say anew what is known of these servers.
    async fn reload(&self, servers: &BTreeSet<&ServerName>, knowledge: &mut Knowledge) -> Result<()> {
        let mut loaded = self.load(servers).await?;
        self.add_own(servers, &mut loaded);
        knowledge.keys.extend(loaded);
        Ok(())
    }

    /// Reads the keys of these servers from the database, and remembers them.
    async fn load(&self, servers: &BTreeSet<&ServerName>) -> Result<BTreeMap<OwnedServerName, Arc<KnownKeys>>> {
        if servers.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names: Vec<&str> = servers.iter().map(|server| server.as_str()).collect();
        let mut loaded: BTreeMap<OwnedServerName, KnownKeys> = BTreeMap::new();
        for key in server_key::list(&mut self.0.db.read().await?, &names).await? {
            loaded.entry(key.server_name).or_default().insert(key.key_id, &key.public_key, key.valid_until);
        }
        let loaded = loaded.into_iter().map(|(server, keys)| {
            let keys = Arc::new(keys);
            self.0.cache.remember(&server, &keys);
            (server, keys)
        });
        Ok(loaded.collect())
    }

    /// This server's keys, if they are among those that are asked for: nobody else is asked what they are.
    fn add_own(&self, servers: &BTreeSet<&ServerName>, known: &mut BTreeMap<OwnedServerName, Arc<KnownKeys>>) {
        if servers.contains(&*self.0.server_name) {
            let remembered = known.remove(&self.0.server_name).unwrap_or_default();
            let keys = KnownKeys::of_this_server(&self.0.own, &remembered);
            known.insert(self.0.server_name.clone(), Arc::new(keys));
        }
    }

    /// Milliseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}
