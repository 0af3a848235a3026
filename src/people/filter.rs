//! Filters that clients have stored, so that they can name one instead of sending it each time.
//!
//! A filter's identifier is made from its text, so a stored filter never changes, may be cached for good, and is stored
//! once however often a client does so.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use std::{ops::Deref, sync::Arc};

use aws_lc_rs::digest;
use quick_cache::{Weighter, sync::Cache};
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
    ground::{
        clock::Clock,
        sizes::CacheSizes,
        weighed::{self, CacheWeight, Weighed},
    },
    log::Quotas,
    store::{account, filter},
};

/// About how many filters are kept in memory. One that a client has stored never changes: its ID is made from it.
const KEPT_FILTERS: usize = 2_000;
/// How many parts the cache has. The largest filter fits into one of them.
const SHARDS: usize = 2;
/// What a filter takes in memory, in bytes: as it is, and at most for each of its values beside their text. A list of
/// short texts grows to twenty times its JSON.
const FILTER_BYTES: usize = 2_048;
const VALUE_BYTES: usize = 80;

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

    /// How many bytes a filter takes in memory that was read from this text: no less than it does.
    fn bytes(json: &str) -> u64 {
        let values = json.bytes().filter(|byte| *byte == b',').count() + 1;
        (FILTER_BYTES + 2 * json.len() + VALUE_BYTES * values) as u64
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
    clock: Clock,
    quotas: Quotas,
    /// Those that were named lately.
    kept: Arc<FilterCache>,
}

/// Filters in memory, by user and identifier, each with what it takes.
struct FilterCache {
    filters: Cache<(OwnedUserId, String), (u64, Arc<StoredFilter>), ByBytes>,
    limit: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<(OwnedUserId, String), (u64, Arc<StoredFilter>)> for ByBytes {
    fn weight(&self, _: &(OwnedUserId, String), (bytes, _): &(u64, Arc<StoredFilter>)) -> u64 {
        *bytes
    }
}

impl FilterCache {
    fn new(limit: u64) -> Self {
        Self { filters: weighed::by_bytes(KEPT_FILTERS, limit, SHARDS, ByBytes), limit }
    }
}

impl Weighed for FilterCache {
    fn weight(&self) -> CacheWeight {
        CacheWeight { name: "filters", bytes: self.filters.weight(), limit: self.limit }
    }
}

impl Filters {
    pub(crate) fn new(db: Db, clock: Clock, quotas: Quotas, sizes: &CacheSizes) -> Self {
        Self { db, clock, quotas, kept: Arc::new(FilterCache::new(sizes.filters)) }
    }

    /// What is kept in memory.
    pub(crate) fn cache(&self) -> Arc<dyn Weighed> {
        Arc::clone(&self.kept) as _
    }

    /// Stores a filter and returns its ID. It is made from the filter itself, so that a client which stores the
    /// same filter at each start doesn't fill the database. Whoever has as many as they may loses the oldest for it:
    /// clients can't delete any, and would be left without one.
    pub(crate) async fn create(&self, user_id: &UserId, definition: &StoredFilter) -> Result<String> {
        let definition = definition.to_json().map_err(Error::broken)?;
        let hash = digest::digest(&digest::SHA256, definition.as_bytes());
        // 15 bytes of SHA-256 are 20 characters, which two filters share by no chance worth counting.
        let filter_id = Base64::<UrlSafe, _>::new(hash.as_ref().iter().copied().take(15).collect::<Vec<u8>>()).encode();
        let now = self.clock.now().get().into();
        let mut tx = self.db.begin().await?;
        // Locked, so that two that are stored at once don't outgrow the quota together.
        account::lock(&mut tx, user_id).await?;
        if filter::insert(&mut tx, user_id, &filter_id, &definition, now).await?
            && let Some(most) = self.quotas.find(user_id, |quotas| quotas.filters)
            && filter::count(&mut tx, user_id).await? > i64::from(most)
        {
            filter::delete_oldest(&mut tx, user_id, &filter_id).await?;
        }
        tx.commit().await?;
        Ok(filter_id)
    }

    /// None for a filter of somebody else's, too.
    pub(crate) async fn find(&self, user_id: &UserId, filter_id: &str) -> Result<Option<StoredFilter>> {
        Ok(self.read(user_id, filter_id).await?.map(|(_, definition)| definition))
    }

    /// A filter with what it takes in memory.
    async fn read(&self, user_id: &UserId, filter_id: &str) -> Result<Option<(u64, StoredFilter)>> {
        let json = filter::find(&mut self.db.read().await?, user_id, filter_id).await?;
        let Some(json) = json else { return Ok(None) };
        let definition = StoredFilter::from_json(&json).map_err(Error::broken)?;
        Ok(Some((StoredFilter::bytes(&json), definition)))
    }

    /// A filter that a client names in another request.
    ///
    /// `M_INVALID_PARAM` and not `M_NOT_FOUND`: the filter is a parameter of another request.
    pub(crate) async fn definition(&self, user_id: &UserId, filter_id: &str) -> Result<Arc<StoredFilter>> {
        let key = (user_id.to_owned(), filter_id.to_owned());
        if let Some((_, kept)) = self.kept.filters.get(&key) {
            return Ok(kept);
        }
        let unknown = || Error::invalid_param("There is no filter of this ID: store it again and use the new ID");
        let (bytes, definition) = self.read(user_id, filter_id).await?.ok_or_else(unknown)?;
        let definition = Arc::new(definition);
        self.kept.filters.insert(key, (bytes, Arc::clone(&definition)));
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

    /// Each is as large as a body may be, and made of as many values as fit into it.
    #[test]
    fn filters_of_any_kind_stay_within_their_budget() {
        let limit = 4 * 1024 * 1024;
        let cache = FilterCache::new(limit);
        let texts = |text: &str, count: usize| json!({ "room": { "timeline": { "types": vec![text; count] } } });
        for (n, definition) in [texts("a", 16_000), texts("", 20_000), texts(&"x".repeat(60_000), 1)].iter().enumerate()
        {
            let json = definition.to_string();
            assert!(json.len() > 59_000, "{}", json.len());
            for copy in 0..50 {
                let filter = (StoredFilter::bytes(&json), Arc::new(StoredFilter::from_json(&json).unwrap()));
                cache.filters.insert((ruma::user_id!("@alice:here").to_owned(), format!("{n}-{copy}")), filter);
            }
            assert!(cache.weight().bytes <= limit, "{:?}", cache.weight());
            assert!(cache.filters.len() >= 2, "the largest fit");
        }
    }
}
