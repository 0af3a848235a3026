//! Filters that clients have stored, so that they can name one instead of sending it each time.
//!
//! A filter's identifier is made from its text, so a stored filter never changes, may be cached for good, and is stored
//! once however often a client does so.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::{ops::Deref, sync::Arc};

use aws_lc_rs::digest;
use quick_cache::sync::Cache;
use ruma::{
    OwnedUserId, UserId,
    api::client::filter::FilterDefinition,
    serde::{Base64, base64::UrlSafe},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    db::Db,
    error::{Error, Result},
    event::RelationFilter,
    store::filter,
};

/// How many filters are kept in memory. One that a client has stored never changes: its ID is made from it.
const KEPT_FILTERS: usize = 10_000;

/// What a client wants to hear of.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredFilter {
    pub(crate) events: FilterDefinition,
    /// What ruma leaves out of the filter of timelines.
    pub(crate) relations: RelationFilter,
}

impl Deref for StoredFilter {
    type Target = FilterDefinition;

    fn deref(&self) -> &FilterDefinition {
        &self.events
    }
}

impl StoredFilter {
    /// Read twice, since ruma's definition leaves out how events relate.
    pub(crate) fn from_json(json: &str) -> serde_json::Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct OfRelations {
            room: OfRoom,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct OfRoom {
            timeline: RelationFilter,
        }
        let OfRelations { room: OfRoom { timeline: relations } } = serde_json::from_str(json)?;
        Ok(Self { events: serde_json::from_str(json)?, relations })
    }

    /// The definition in the form in which clients write one.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        if self.relations.is_any() {
            return serde_json::to_string(&self.events);
        }
        let mut json = serde_json::to_value(&self.events)?;
        if let (Some(definition), Value::Object(relations)) =
            (json.as_object_mut(), serde_json::to_value(&self.relations)?)
            && let Some(timeline) = below(definition, "room").and_then(|room| below(room, "timeline"))
        {
            timeline.extend(relations);
        }
        Ok(json.to_string())
    }
}

/// The object under a key, which is empty where there is none yet.
fn below<'a>(object: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    object.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

/// The stored filters of this server's users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Filters {
    db: Db,
    /// Those that were named lately, by user and identifier.
    kept: Arc<Cache<(OwnedUserId, String), Arc<StoredFilter>>>,
}

impl Filters {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, kept: Arc::new(Cache::new(KEPT_FILTERS)) }
    }

    /// Stores a filter and returns its ID. It is made from the filter itself, so that a client which stores the
    /// same filter at each start doesn't fill the database.
    pub(crate) async fn create(&self, user_id: &UserId, definition: &StoredFilter) -> Result<String> {
        let definition = definition.to_json().map_err(Error::broken)?;
        let hash = digest::digest(&digest::SHA256, definition.as_bytes());
        // 15 bytes of SHA-256 are 20 characters, which two filters share by no chance worth counting.
        let filter_id = Base64::<UrlSafe, _>::new(hash.as_ref().iter().copied().take(15).collect::<Vec<u8>>()).encode();
        let mut tx = self.db.begin().await?;
        filter::insert(&mut tx, user_id, &filter_id, &definition).await?;
        tx.commit().await?;
        Ok(filter_id)
    }

    /// None for a filter of somebody else's, too.
    pub(crate) async fn find(&self, user_id: &UserId, filter_id: &str) -> Result<Option<StoredFilter>> {
        let mut conn = self.db.read().await?;
        let definition = filter::find(&mut conn, user_id, filter_id).await?;
        definition.map(|json| StoredFilter::from_json(&json).map_err(Error::broken)).transpose()
    }

    /// A filter that a client names in another request.
    ///
    /// `M_INVALID_PARAM` and not `M_NOT_FOUND`: the filter is a parameter of another request.
    pub(crate) async fn definition(&self, user_id: &UserId, filter_id: &str) -> Result<Arc<StoredFilter>> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_is_written_as_it_was_read() {
        for json in [
            json!({}),
            json!({ "room": { "timeline": { "limit": 5 } }, "event_fields": ["content.body"] }),
            json!({ "room": { "timeline": { "org.matrix.msc3874.not_rel_types": ["m.thread"] } } }),
            json!({ "room": { "include_leave": true, "timeline": { "limit": 5, "related_by_rel_types": ["m.thread"] } } }),
        ] {
            let definition = StoredFilter::from_json(&json.to_string()).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&definition.to_json().unwrap()).unwrap(), json);
        }
        for broken in ["", "[]", r#"{"room":1}"#, r#"{"room":{"timeline":{"rel_types":"m.thread"}}}"#] {
            assert!(StoredFilter::from_json(broken).is_err(), "{broken}");
        }
    }
}
