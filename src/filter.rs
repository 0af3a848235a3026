//! Filters that clients have stored, so that they can name one instead of sending it each time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::sync::Arc;

use aws_lc_rs::digest;
use quick_cache::sync::Cache;
use ruma::{
    OwnedUserId, UserId,
    api::client::filter::FilterDefinition,
    serde::{Base64, base64::UrlSafe},
};

use crate::{
    db::Db,
    error::{Error, Result},
    store::filter,
};

/// How many filters are kept in memory. One that a client has stored never changes: its ID is made from it.
const KEPT_FILTERS: usize = 10_000;

#[derive(Clone)]
pub(crate) struct Filters {
    db: Db,
    kept: Arc<Cache<(OwnedUserId, String), Arc<FilterDefinition>>>,
}

impl Filters {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, kept: Arc::new(Cache::new(KEPT_FILTERS)) }
    }

    /// Stores a filter and returns its ID. It is made from the filter itself, so that a client which stores the
    /// same filter at each start doesn't fill the database.
    pub(crate) async fn create(&self, user_id: &UserId, definition: &FilterDefinition) -> Result<String> {
        let definition = serde_json::to_string(definition).map_err(Error::broken)?;
        let hash = digest::digest(&digest::SHA256, definition.as_bytes());
        let filter_id = Base64::<UrlSafe, _>::new(hash.as_ref().iter().copied().take(15).collect::<Vec<u8>>()).encode();
        let mut tx = self.db.begin().await?;
        filter::insert(&mut tx, user_id, &filter_id, &definition).await?;
        tx.commit().await?;
        Ok(filter_id)
    }

    pub(crate) async fn find(&self, user_id: &UserId, filter_id: &str) -> Result<Option<FilterDefinition>> {
        let mut conn = self.db.read().await?;
        let definition = filter::find(&mut conn, user_id, filter_id).await?;
        definition.map(|json| serde_json::from_str(&json).map_err(Error::broken)).transpose()
    }

    /// A filter that a client names in another request.
    pub(crate) async fn definition(&self, user_id: &UserId, filter_id: &str) -> Result<Arc<FilterDefinition>> {
        let key = (user_id.to_owned(), filter_id.to_owned());
        if let Some(kept) = self.kept.get(&key) {
            return Ok(kept);
        }
        let unknown = || Error::invalid_param("There is no filter of this ID: store it again and use the new ID");
        let definition = Arc::new(self.find(user_id, filter_id).await?.ok_or_else(unknown)?);
        self.kept.insert(key, Arc::clone(&definition));
        Ok(definition)
    }
}
