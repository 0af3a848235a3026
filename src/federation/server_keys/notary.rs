//! What others are told of keys: what this server signs with, and what it knows of others, signed by it as a notary.
//!
//! What another server has said is handed on as that server has signed it. It is asked again where what is here is not good
//! for as long as it is asked for, or is past half of its time; where it does not answer, what is here is handed on.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::{
    CanonicalJsonObject, OwnedServerName, OwnedServerSigningKeyId, ServerName, serde::Base64, signatures::sign_json,
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::{Knowledge, Need, ServerKeys};
use crate::{
    error::{Error, Result},
    ground::clock::millis,
    store::server_key::{self, KeyDocumentRow},
};

/// How long others may rely on what this server says of its keys.
pub(crate) const LIFETIME: Duration = Duration::from_hours(24);

/// How long ago it must be until when a key is to be good, in milliseconds, for nobody to be asked whether it still is.
const PAST: i64 = 3_600_000;

/// What a notary is asked, by server.
pub(crate) type KeyQuery = BTreeMap<OwnedServerName, AskedKeys>;

/// Which keys of a server, and until when they should be good: in milliseconds since the Unix epoch, None for now.
#[derive(Clone, Debug, Default)]
pub(crate) struct AskedKeys {
    /// None for all of them.
    pub(crate) keys: BTreeMap<OwnedServerSigningKeyId, Option<i64>>,
    /// Where all are asked for.
    pub(crate) until: Option<i64>,
}

impl ServerKeys {
    /// What this server says of its own keys. Signed with each that is good.
    pub(crate) fn own_document(&self) -> Result<Box<RawValue>> {
        let (mut current, mut old) = (serde_json::Map::new(), serde_json::Map::new());
        let published = self.0.own.published();
        for one in &published {
            let (id, key): (String, Base64) = (one.key.id().to_string(), Base64::new(one.key.public_key().to_vec()));
            let key = key.encode();
            match one.expired_ts {
                None => current.insert(id, json!({ "key": key })),
                Some(expired_ts) => old.insert(id, json!({ "key": key, "expired_ts": expired_ts })),
            };
        }
        let document = json!({
            "server_name": self.0.server_name,
            "verify_keys": current,
            "old_verify_keys": old,
            "valid_until_ts": self.now().saturating_add(millis(LIFETIME)),
        });
        let mut document: CanonicalJsonObject = serde_json::from_value(document).map_err(Error::broken)?;
        for one in published.iter().filter(|one| one.expired_ts.is_none()) {
            sign_json(self.0.server_name.as_str(), &*one.key, &mut document).map_err(Error::broken)?;
        }
        to_raw_value(&document).map_err(Error::broken)
    }

    /// What is known of the keys of these servers, signed by this one. Servers of which nothing is known are missing.
    pub(crate) async fn query(&self, asked: &KeyQuery) -> Result<Vec<Box<RawValue>>> {
        let mut kept = BTreeMap::new();
        for server in asked.keys().filter(|server| **server != self.0.server_name) {
            kept.insert(server, self.list_documents(server).await?);
        }
        let now = self.now();
        let mut outdated = Vec::new();
        for (server, documents) in &kept {
            if asked.get(*server).is_some_and(|wanted| !is_enough(documents, wanted, now)) {
                outdated.push(Need { server: (*server).clone(), key_ids: Vec::new(), at: now });
            }
        }
        self.ask_themselves(&outdated, &mut Knowledge::default()).await?;
        for need in &outdated {
            if let Some((server, _)) = asked.get_key_value(&need.server) {
                kept.insert(server, self.list_documents(server).await?);
            }
        }
        let mut answer = Vec::new();
        for (server, wanted) in asked {
            match kept.get(server) {
                Some(documents) => {
                    for document in choose(documents, wanted) {
                        answer.push(self.sign_as_notary(document)?);
                    }
                }
                None => answer.push(self.own_document()?),
            }
        }
        Ok(answer)
    }

    async fn list_documents(&self, server: &ServerName) -> Result<Vec<KeyDocumentRow>> {
        Ok(server_key::list_documents(&mut self.0.db.read().await?, server).await?)
    }

    fn sign_as_notary(&self, document: &str) -> Result<Box<RawValue>> {
        let mut document: CanonicalJsonObject = serde_json::from_str(document).map_err(Error::broken)?;
        let key = self.0.own.current();
        sign_json(self.0.server_name.as_str(), &*key, &mut document).map_err(Error::broken)?;
        to_raw_value(&document).map_err(Error::broken)
    }
}

/// Whether what is here is what is asked for, and so fresh that its server need not be asked again.
fn is_enough(documents: &[KeyDocumentRow], asked: &AskedKeys, now: i64) -> bool {
    let is_good = |row: &KeyDocumentRow, until: Option<i64>| {
        let half = row.fetched.saturating_add(row.valid_until.saturating_sub(row.fetched) / 2);
        // What is asked of old events does not change any more.
        let is_old = until.is_some_and(|until| until < now.saturating_sub(PAST));
        row.valid_until >= until.unwrap_or(now) && (is_old || half >= now)
    };
    if asked.keys.is_empty() {
        return documents.iter().any(|row| is_good(row, asked.until));
    }
    let is_here = |(key_id, until): (&OwnedServerSigningKeyId, &Option<i64>)| {
        documents.iter().any(|row| row.key_id == key_id.as_str() && is_good(row, *until))
    };
    asked.keys.iter().all(is_here)
}

/// The documents that have the keys, or the newest where all are asked for. Each once.
fn choose<'a>(documents: &'a [KeyDocumentRow], asked: &AskedKeys) -> BTreeSet<&'a str> {
    let has = |row: &&KeyDocumentRow| asked.keys.keys().any(|key_id| key_id.as_str() == row.key_id);
    let mut chosen: BTreeSet<&str> = documents.iter().filter(has).map(|row| &*row.document).collect();
    if chosen.is_empty() {
        chosen.extend(documents.first().map(|row| &*row.document));
    }
    chosen
}
