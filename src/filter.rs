//! Filters that clients have stored, so that they can name one instead of sending it each time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use aws_lc_rs::digest;
use ruma::{
    UserId,
    api::client::filter::FilterDefinition,
    serde::{Base64, base64::UrlSafe},
};

use crate::{
    db::Db,
    error::{Error, Result},
    store::filter,
};

#[derive(Clone)]
pub(crate) struct Filters {
    db: Db,
}

impl Filters {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
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
}
