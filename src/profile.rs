//! Profiles: what users tell about themselves, their name and picture first of all.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use std::collections::BTreeMap;

use ruma::{OwnedServerName, UserId, api::error::ErrorKind};
use serde_json::Value;

use crate::{
    db::{Conn, Db, Tx},
    error::{Error, Result},
    store::{account, profile, user_directory},
};

const MAX_PROFILE_BYTES: usize = 64 * 1024;

const MAX_KEY_BYTES: usize = 255;

pub(crate) const AVATAR_URL: &str = "avatar_url";
pub(crate) const DISPLAYNAME: &str = "displayname";

/// The profiles of this server's users.
#[derive(Clone)]
pub(crate) struct Profiles {
    db: Db,
    server_name: OwnedServerName,
}

impl Profiles {
    pub(crate) fn new(db: Db, server_name: OwnedServerName) -> Self {
        Self { db, server_name }
    }

    /// Everything that a user tells.
    pub(crate) async fn get(&self, user_id: &UserId) -> Result<BTreeMap<String, Value>> {
        let mut conn = self.db.read().await?;
        self.check_exists(&mut conn, user_id).await?;
        let fields = profile::list(&mut conn, user_id).await?;
        fields.into_iter().map(|(field, json)| Ok((field, parse(&json)?))).collect()
    }

    /// One thing that a user tells, if they do.
    pub(crate) async fn find_field(&self, user_id: &UserId, field: &str) -> Result<Option<Value>> {
        check_field(field)?;
        let mut conn = self.db.read().await?;
        self.check_exists(&mut conn, user_id).await?;
        let json = profile::find(&mut conn, user_id, field).await?;
        json.map(|json| parse(&json)).transpose()
    }

    /// Sets a field and says whether that changed anything. An empty name or picture is none.
    pub(crate) async fn set(&self, user_id: &UserId, field: &str, value: &Value) -> Result<bool> {
        check_field(field)?;
        if [AVATAR_URL, DISPLAYNAME].contains(&field) && value.as_str() == Some("") {
            return self.remove(user_id, field).await;
        }
        let json = value.to_string();
        let mut tx = self.db.begin().await?;
        // Locked, so that two fields set at once don't outgrow the limit together.
        account::lock(&mut tx, user_id).await?.ok_or_else(no_profile)?;
        let fields = profile::list(&mut tx, user_id).await?;
        if fields.iter().any(|(key, old)| key == field && *old == json) {
            return Ok(false);
        }
        let others = fields.iter().filter(|(key, _)| key != field);
        let size = others.map(|(key, json)| size_of_field(key, json)).sum::<usize>() + size_of_field(field, &json);
        if size > MAX_PROFILE_BYTES {
            let message = format!("With this the profile would be larger than {MAX_PROFILE_BYTES} bytes");
            return Err(Error::refused(ErrorKind::ProfileTooLarge, message));
        }
        profile::upsert(&mut tx, user_id, field, &json).await?;
        relist(&mut tx, user_id, field).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Removes a field and says whether that changed anything.
    pub(crate) async fn remove(&self, user_id: &UserId, field: &str) -> Result<bool> {
        check_field(field)?;
        let mut tx = self.db.begin().await?;
        // Locked, so that a guest who becomes a user meanwhile is in the directory as they are.
        account::lock(&mut tx, user_id).await?.ok_or_else(no_profile)?;
        let removed = profile::delete(&mut tx, user_id, field).await?;
        relist(&mut tx, user_id, field).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn check_exists(&self, conn: &mut Conn, user_id: &UserId) -> Result<()> {
        if user_id.server_name() != self.server_name {
            return Err(Error::not_found("This server knows only the profiles of its own users"));
        }
        account::find(conn, user_id).await?.map(drop).ok_or_else(no_profile)
    }
}

/// Has a user found by the name that they have now, after a change of this field.
async fn relist(tx: &mut Tx, user_id: &UserId, field: &str) -> Result<()> {
    if field != DISPLAYNAME {
        return Ok(());
    }
    let Some(is_public) = user_directory::lock(tx, user_id).await? else { return Ok(()) };
    let name = find_display_name(tx, user_id).await?;
    Ok(user_directory::rename(tx, user_id, name.as_deref(), is_public).await?)
}

/// What a user calls themselves.
pub(crate) async fn find_display_name(conn: &mut Conn, user_id: &UserId) -> Result<Option<String>> {
    let name = profile::find(conn, user_id, DISPLAYNAME).await?.map(|json| parse(&json)).transpose()?;
    Ok(name.as_ref().and_then(Value::as_str).map(ToOwned::to_owned))
}

/// `avatar_url`, `displayname`, `m.tz`, or a name in reversed-domain style of somebody's own. The `m.` names
/// that a later specification may define are refused until then.
fn check_field(field: &str) -> Result<()> {
    if field.len() > MAX_KEY_BYTES {
        let message = format!("A profile field's name has at most {MAX_KEY_BYTES} bytes");
        return Err(Error::refused(ErrorKind::KeyTooLarge, message));
    }
    if [AVATAR_URL, DISPLAYNAME, "m.tz"].contains(&field) {
        return Ok(());
    }
    if field.starts_with("m.") {
        return Err(Error::invalid_param(format!("The specification knows no profile field {field}")));
    }
    let segment = |segment: &str| {
        segment.starts_with(|c: char| c.is_ascii_lowercase())
            && segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if field.contains('.') && field.split('.').all(segment) {
        return Ok(());
    }
    Err(Error::invalid_param("A profile field of your own is named like com.example.field, in small letters"))
}

/// As part of a JSON object: quotes, colon and comma included.
fn size_of_field(key: &str, json: &str) -> usize {
    key.len() + json.len() + 4
}

fn parse(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(Error::broken)
}

fn no_profile() -> Error {
    Error::not_found("There is no such user on this server")
}

#[cfg(test)]
mod tests {
    use ruma::{server_name, user_id};
    use serde_json::json;

    use super::*;
    use crate::db::testing;

    #[test]
    fn field_names_follow_the_grammar() {
        for good in ["avatar_url", "displayname", "m.tz", "com.example.field", "a.b_c.d0"] {
            check_field(good).unwrap();
        }
        for bad in ["", "nickname", "m.unknown", "Com.example", "com..example", "com.0example", ".com", "a.b-c", "a.\0"]
        {
            assert!(check_field(bad).is_err(), "{bad}");
        }
        let long = format!("com.{}", "a".repeat(252));
        let Err(Error::Refused { kind, .. }) = check_field(&long) else { panic!() };
        assert_eq!(kind, ErrorKind::KeyTooLarge);
        check_field(long.strip_suffix('a').unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_profile_keeps_what_it_is_told_up_to_its_size() {
        for database in testing::databases().await {
            let profiles = Profiles::new(database.db().clone(), server_name!("example.org").to_owned());
            let alice = user_id!("@alice:example.org");
            let mut tx = database.db().begin().await.unwrap();
            account::insert(&mut tx, alice, None, false, 0).await.unwrap();
            tx.commit().await.unwrap();

            assert!(profiles.set(alice, DISPLAYNAME, &json!("Alice")).await.unwrap());
            assert!(!profiles.set(alice, DISPLAYNAME, &json!("Alice")).await.unwrap());
            assert!(profiles.set(alice, "org.example.pets", &json!({ "cats": 2, "nul": "\0" })).await.unwrap());
            let profile = profiles.get(alice).await.unwrap();
            assert_eq!(
                json!(profile),
                json!({ "displayname": "Alice", "org.example.pets": { "cats": 2, "nul": "\0" } })
            );

            let huge = json!("x".repeat(MAX_PROFILE_BYTES - 40));
            let Err(Error::Refused { kind, .. }) = profiles.set(alice, "org.example.huge", &huge).await else {
                panic!()
            };
            assert_eq!(kind, ErrorKind::ProfileTooLarge);
            profiles.remove(alice, "org.example.pets").await.unwrap();
            profiles.set(alice, DISPLAYNAME, &json!("")).await.unwrap();
            assert_eq!(profiles.find_field(alice, DISPLAYNAME).await.unwrap(), None);
            assert!(profiles.set(alice, "org.example.huge", &huge).await.unwrap());

            for stranger in [user_id!("@bob:example.org"), user_id!("@alice:elsewhere.org")] {
                let Err(Error::Refused { kind, .. }) = profiles.get(stranger).await else { panic!() };
                assert_eq!(kind, ErrorKind::NotFound);
            }
            database.close().await;
        }
    }
}
