//! Asking for keys: the servers themselves, each once however many wait for it, and notaries, all at once.
//!
//! Nobody is asked for the same server's keys more often than once a minute: whoever claims to be a server could otherwise
//! have it asked as often as they like.
//!
//! A notary's word counts only where no other notary contradicts it, and never against what a server has said itself
//! ([`crate::store::server_key`]).

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use futures_util::future::join_all;
use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName};
use serde_json::value::RawValue;

use super::{
    asked::Answer,
    document::KeyDocument,
    needs::{Knowledge, Need},
    ring::ServerKeys,
    source::WantedKeys,
};
use crate::{
    error::Result,
    ground::flights::Flight,
    store::server_key::{self, KeySource, NewServerKey},
};

/// Beyond so many servers, notaries are asked before the servers themselves.
const FEW: usize = 16;
/// How many servers a notary is asked about in one request.
const MAX_OF_NOTARY: usize = 100;

/// Whether so many servers are asked for that some of them are gone for certain.
pub(super) fn are_many(needs: &[Need]) -> bool {
    needs.iter().map(|need| &need.server).collect::<BTreeSet<_>>().len() > FEW
}

impl ServerKeys {
    /// Asks servers for their own keys. This one is not asked.
    pub(super) async fn ask_themselves(&self, needs: &[Need], knowledge: &mut Knowledge) -> Result<()> {
        let servers: BTreeSet<&OwnedServerName> = needs.iter().map(|need| &need.server).collect();
        let (mut asked, mut flights) = (Vec::new(), Vec::new());
        let mut answered: BTreeSet<&ServerName> = BTreeSet::new();
        for server in servers.into_iter().filter(|server| **server != self.0.server_name) {
            if let Some(reason) = self.0.fetches.themselves.find(server, self.now()) {
                knowledge.failures.insert(server.clone(), reason);
                // It may have answered since it was last looked what is known.
                answered.insert(server);
                continue;
            }
            asked.push(server);
            flights.push(self.fetch(server.clone()));
        }
        for (server, answer) in asked.into_iter().zip(join_all(flights).await) {
            match answer {
                Ok(()) => drop(answered.insert(server)),
                Err(reason) => drop(knowledge.failures.insert(server.clone(), reason)),
            }
        }
        self.reload(&answered, knowledge).await
    }

    /// Asks one server. It is asked to the end although whoever waits goes away.
    fn fetch(&self, server: OwnedServerName) -> Flight<Answer> {
        let keys = self.clone();
        self.0.fetches.flights.join(server.clone(), move |landing| async move {
            let tasks = keys.0.tasks.clone();
            let asking = async move {
                // Stored before anybody can come who is told that they were fetched a moment ago.
                let answer = keys.fetch_now(&server).await;
                keys.0.fetches.themselves.note(&server, keys.now(), answer.as_ref().err().cloned());
                drop(landing);
                answer
            };
            let answer = tasks.see_through("fetching keys", asking).await;
            answer.unwrap_or_else(|| Err("fetching them failed".to_owned()))
        })
    }

    async fn fetch_now(&self, server: &ServerName) -> Answer {
        let _place = self.0.fetches.places.acquire().await.map_err(|closed| closed.to_string())?;
        let json = self.0.servers.keys_of(server).await.map_err(|error| error.to_string())?;
        let document = KeyDocument::read(&json, self.now()).map_err(|error| format!("its answer: {error}"))?;
        if document.server_name() != server {
            return Err(format!("it answers as {}", document.server_name()));
        }
        self.keep(&[document], &BTreeSet::new(), KeySource::Itself).await.map_err(|error| error.to_string())
    }

    /// Asks the notaries for what is needed of others.
    pub(super) async fn ask_notaries(&self, needs: &[Need], knowledge: &mut Knowledge) -> Result<()> {
        let (now, asked) = (self.now(), &self.0.fetches.of_notaries);
        let mut wanted = WantedKeys::new();
        for need in needs {
            if let Some(reason) = asked.find(&need.server, now) {
                knowledge.failures.entry(need.server.clone()).or_insert(reason);
                continue;
            }
            let of_server = wanted.entry(need.server.clone()).or_default();
            for key_id in &need.key_ids {
                let at = of_server.entry(key_id.clone()).or_insert(need.at);
                *at = need.at.max(*at);
            }
        }
        if wanted.is_empty() || self.0.notaries.is_empty() {
            return Ok(());
        }
        let mut asking = Vec::new();
        for notary in &self.0.notaries {
            asking.push(self.ask_notary(notary, &wanted));
        }
        let (mut documents, mut failure) = (Vec::new(), None);
        for (notary, answer) in self.0.notaries.iter().zip(join_all(asking).await) {
            match answer {
                Ok(found) => documents.extend(found),
                Err(reason) => failure = Some(format!("the notary {notary}: {reason}")),
            }
        }
        for server in wanted.keys() {
            asked.note(server, now, failure.clone());
            if let Some(failure) = &failure {
                knowledge.failures.entry(server.clone()).or_insert_with(|| failure.clone());
            }
        }
        let contradicted = find_contradictions(&documents);
        for (server, key_id) in &contradicted {
            tracing::warn!(%server, key_id, "notaries contradict each other, and none of them is believed");
        }
        self.keep(&documents, &contradicted, KeySource::Notary).await?;
        self.reload(&documents.iter().map(KeyDocument::server_name).collect(), knowledge).await
    }

    /// What one notary says, as far as it has signed it.
    async fn ask_notary(&self, notary: &ServerName, wanted: &WantedKeys) -> Result<Vec<KeyDocument>, String> {
        let (mut found, mut rest) = (Vec::new(), wanted.clone().into_iter());
        loop {
            let part: WantedKeys = rest.by_ref().take(MAX_OF_NOTARY).collect();
            if part.is_empty() {
                return Ok(found);
            }
            let answers = self.0.servers.ask_notary(notary, &part).await.map_err(|error| error.to_string())?;
            for json in answers {
                match self.read_of_notary(notary, &json, &part).await {
                    Ok(document) => found.push(document),
                    Err(reason) => tracing::warn!(%notary, reason, "a notary's word is not believed"),
                }
            }
        }
    }

    async fn read_of_notary(
        &self,
        notary: &ServerName,
        json: &RawValue,
        wanted: &WantedKeys,
    ) -> Result<KeyDocument, String> {
        let document = KeyDocument::read(json, self.now()).map_err(|error| error.to_string())?;
        if !wanted.contains_key(document.server_name()) {
            return Err(format!("nobody asked for {}", document.server_name()));
        }
        let key_ids: Vec<_> =
            document.key_ids_of(notary).filter_map(|id| OwnedServerSigningKeyId::try_from(id).ok()).collect();
        let need = Need { server: notary.to_owned(), key_ids, at: self.now() };
        let known = self.list_known([notary].into()).await.map_err(|error| error.to_string())?;
        let mut knowledge = Knowledge { keys: known, ..Knowledge::default() };
        if !knowledge.satisfies(&need) {
            let asking = self.ask_themselves(std::slice::from_ref(&need), &mut knowledge).await;
            asking.map_err(|error| error.to_string())?;
        }
        let keys = knowledge.keys.get(notary);
        let good = need.key_ids.iter().filter_map(|key_id| {
            let key = keys?.find(key_id.as_str(), need.at)?;
            Some((key_id.to_string(), key.clone()))
        });
        document.check_signed_by(notary, good.collect()).map_err(|error| error.to_string())?;
        Ok(document)
    }

    /// Stores what was said, but for some keys.
    async fn keep(
        &self,
        documents: &[KeyDocument],
        but: &BTreeSet<(OwnedServerName, String)>,
        source: KeySource,
    ) -> Result<()> {
        let mut keys: BTreeMap<(&ServerName, &str), NewServerKey<'_>> = BTreeMap::new();
        for key in documents.iter().flat_map(KeyDocument::new_keys) {
            if but.contains(&(key.server_name.to_owned(), key.key_id.to_owned())) {
                continue;
            }
            match keys.entry((key.server_name, key.key_id)) {
                Entry::Vacant(place) => drop(place.insert(key)),
                Entry::Occupied(mut other) if other.get().valid_until < key.valid_until => drop(other.insert(key)),
                Entry::Occupied(_) => {}
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<NewServerKey<'_>> = keys.into_values().collect();
        let mut tx = self.0.db.begin().await?;
        server_key::insert(&mut tx, &keys, source, self.now()).await?;
        Ok(tx.commit().await?)
    }
}

/// The keys of which these documents say different things.
fn find_contradictions(documents: &[KeyDocument]) -> BTreeSet<(OwnedServerName, String)> {
    let (mut said, mut contradicted) = (BTreeMap::new(), BTreeSet::new());
    for key in documents.iter().flat_map(KeyDocument::new_keys) {
        let place = (key.server_name.to_owned(), key.key_id.to_owned());
        match said.entry(place) {
            Entry::Vacant(place) => drop(place.insert(key.public_key)),
            Entry::Occupied(other) if *other.get() != key.public_key => drop(contradicted.insert(other.key().clone())),
            Entry::Occupied(_) => {}
        }
    }
    contradicted
}
