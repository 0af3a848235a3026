//! The keys of servers that are known here: in memory and in the database.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
};

use ruma::{OwnedServerName, ServerName, ServerSigningKeyId, serde::Base64};
use tokio::sync::Semaphore;

use super::{
    asked::Fetches,
    known::{KeyCache, KnownKeys},
    needs::Knowledge,
    source::KeyServers,
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
pub(crate) struct ServerKeys(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) server_name: OwnedServerName,
    pub(super) own: SigningKeys,
    pub(super) servers: Arc<dyn KeyServers>,
    /// Whom the operator trusts to say what other servers sign with.
    pub(super) notaries: Vec<OwnedServerName>,
    pub(super) cache: Arc<KeyCache>,
    pub(super) fetches: Fetches,
    /// As many places as there are processors, for checking signatures.
    pub(super) threads: Arc<Semaphore>,
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

    /// What memory and the database have of the keys of these servers. Servers of which nothing is known are missing.
    pub(super) async fn list_known(
        &self,
        servers: BTreeSet<&ServerName>,
    ) -> Result<BTreeMap<OwnedServerName, Arc<KnownKeys>>> {
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
    pub(super) async fn reload(&self, servers: &BTreeSet<&ServerName>, knowledge: &mut Knowledge) -> Result<()> {
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
    pub(super) fn now(&self) -> i64 {
        self.0.clock.now().get().into()
    }
}
