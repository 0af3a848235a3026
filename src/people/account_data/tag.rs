//! Room tags: the parts of one piece of room account data that are set one by one.
//!
//! All tags of a room are in one event, so changing one means to read, change and write it, which is repeated where
//! another device was faster.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>

use ruma::{
    RoomId, UserId,
    events::tag::{TagInfo, TagName, Tags},
};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::AccountDataOfUsers;
use crate::error::{Error, Result};

const TAG: &str = "m.tag";
/// In bytes.
const MAX_NAME: usize = 255;

type Object = Map<String, Value>;

impl AccountDataOfUsers {
    /// The tags of a user on a room.
    pub async fn tags(&self, user_id: &UserId, room_id: &RoomId) -> Result<Tags> {
        let data = self.find(user_id, Some(room_id), TAG).await?;
        let tags = tags_in(&object(data.as_ref().map(|data| &*data.content)));
        Ok(tags.into_iter().map(|(name, info)| (TagName::from(name), info_in(info))).collect())
    }

    /// Puts a tag on a room, or changes its place among the rooms with that tag.
    pub async fn set_tag(&self, user_id: &UserId, room_id: &RoomId, name: &str, info: &TagInfo) -> Result<()> {
        if name.len() > MAX_NAME {
            let bytes = name.len();
            return Err(Error::invalid_param(format!("The tag is {bytes} bytes long, {MAX_NAME} are allowed")));
        }
        if info.order.is_some_and(|order| !(0.0..=1.0).contains(&order)) {
            return Err(Error::invalid_param("The order of a tag is a number between 0 and 1"));
        }
        let info = serde_json::to_value(info).map_err(Error::broken)?;
        let has = |tags: &Object| i64::try_from(tags.len()).unwrap_or(i64::MAX);
        let message = |most| format!("You have {most} tags on this room, as many as you may: remove one first");
        self.change_tags(user_id, room_id, |tags| {
            if !tags.contains_key(name) {
                self.0.quotas.check(user_id, |quotas| quotas.tags_per_room, has(tags), message)?;
            }
            let old = tags.insert(name.to_owned(), info.clone());
            Ok(old.as_ref() != Some(&info))
        })
        .await
    }

    /// Takes a tag off a room.
    pub async fn remove_tag(&self, user_id: &UserId, room_id: &RoomId, name: &str) -> Result<()> {
        self.change_tags(user_id, room_id, |tags| Ok(tags.remove(name).is_some())).await
    }

    /// `change` returns whether it has changed anything.
    async fn change_tags(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        change: impl Fn(&mut Object) -> Result<bool>,
    ) -> Result<()> {
        self.change(user_id, Some(room_id), TAG, |content| {
            let mut content = object(content);
            let mut tags = tags_in(&content);
            if !change(&mut tags)? {
                return Ok(None);
            }
            content.insert("tags".to_owned(), Value::Object(tags));
            to_raw_value(&content).map(Some).map_err(Error::broken)
        })
        .await
    }
}

/// Clients may set the whole of it to anything. What is no object is replaced by one.
fn object(content: Option<&RawValue>) -> Object {
    content.and_then(|content| serde_json::from_str(content.get()).ok()).unwrap_or_default()
}

fn tags_in(content: &Object) -> Object {
    content.get("tags").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn info_in(info: Value) -> TagInfo {
    serde_json::from_value(info).unwrap_or_default()
}
