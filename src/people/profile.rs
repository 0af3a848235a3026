//! Profiles: what users publish about themselves, their name and picture first of all.
//!
//! Name and picture are also part of every membership event of the user, so a change of them is a change in every room
//! that they are in. The profile is right at once; the rooms follow, by the request itself or by an errand that it
//! leaves.
//!
//! A change is committed under the log's lock, although it is no entry: so each membership event is either before it,
//! and found by whoever carries it into rooms, or after it, and judged by the new profile (`log/judge/account.rs`).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use std::collections::BTreeMap;

use ruma::{OwnedServerName, UserId, api::error::ErrorKind};
use serde_json::Value;

use crate::{
    db::{Conn, Db, Tx},
    error::{Error, Result},
    ground::{clock::Clock, random::Random},
    log::Quotas,
    store::{
        account,
        errand::{self, Errand, ErrandKind},
        log, profile, user_directory,
    },
};

/// The specification's limit for a profile, in bytes of JSON.
const MAX_PROFILE_BYTES: usize = 64 * 1024;

/// The specification's limit for the name of a field, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The field with a user's picture.
pub(crate) const AVATAR_URL: &str = "avatar_url";
/// The field with a user's name.
pub(crate) const DISPLAYNAME: &str = "displayname";

/// The profiles of this server's users.
#[derive(Clone)]
pub(crate) struct Profiles {
    db: Db,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    quotas: Quotas,
}

/// What a change of a profile leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// The value was that before, and no room says it.
    Nothing,
    /// Only whoever looks at the profile sees it.
    InProfile,
    /// The rooms that the user is in say it, too: whether or not the value was that before, since a room may lack it
    /// still. A node sees to that by this errand, until [`Profiles::is_seen_in_rooms`].
    SeenInRooms(Errand),
}

impl Profiles {
    pub(crate) fn new(db: Db, clock: Clock, random: Random, server_name: OwnedServerName, quotas: Quotas) -> Self {
        Self { db, clock, random, server_name, quotas }
    }

    /// Everything in a user's profile.
    ///
    /// `M_NOT_FOUND` for users who are not there, and for those of other servers.
    pub(crate) async fn get(&self, user_id: &UserId) -> Result<BTreeMap<String, Value>> {
        let mut conn = self.db.read().await?;
        self.check_exists(&mut conn, user_id).await?;
        let fields = profile::list(&mut conn, user_id).await?;
        fields.into_iter().map(|(field, json)| Ok((field, parse(&json)?))).collect()
    }

    /// One field of a user's profile, if they have set it.
    pub(crate) async fn find_field(&self, user_id: &UserId, field: &str) -> Result<Option<Value>> {
        check_field(field)?;
        let mut conn = self.db.read().await?;
        self.check_exists(&mut conn, user_id).await?;
        let json = profile::find(&mut conn, user_id, field).await?;
        json.map(|json| parse(&json)).transpose()
    }

    /// Sets a field, or removes it. Where rooms say what it is, that they do follows from it: it is left as an errand in
    /// the same transaction, in case whoever changes it does not come to that. `M_FORBIDDEN` for who has been
    /// deactivated meanwhile.
    pub(crate) async fn change(&self, user_id: &UserId, field: &str, value: Option<&Value>) -> Result<Changed> {
        let mut tx = self.db.begin().await?;
        let changes = change_within(&mut tx, &self.quotas, user_id, field, value).await?;
        if !is_name_or_picture(field) {
            tx.commit().await?;
            return Ok(if changes { Changed::InProfile } else { Changed::Nothing });
        }
        let now = self.clock.now().get().into();
        let errand = errand::leave(&mut tx, &self.random, ErrandKind::Profile, (user_id, None), now).await?;
        commit_between_batches(tx).await?;
        Ok(Changed::SeenInRooms(errand))
    }

    /// The rooms say it now: nobody else has to see to that.
    pub(crate) async fn is_seen_in_rooms(&self, errand: &Errand) -> Result<()> {
        let mut tx = self.db.begin().await?;
        errand::delete(&mut tx, errand).await?;
        Ok(tx.commit().await?)
    }

    /// Sets or removes a field without an errand to have rooms say it: the caller sees to them.
    pub(crate) async fn change_without_errand(
        &self,
        user_id: &UserId,
        field: &str,
        value: Option<&Value>,
    ) -> Result<()> {
        let mut tx = self.db.begin().await?;
        change_within(&mut tx, &self.quotas, user_id, field, value).await?;
        commit_between_batches(tx).await
    }

    /// A deactivated account has a profile, unless it was erased.
    async fn check_exists(&self, conn: &mut Conn, user_id: &UserId) -> Result<()> {
        if user_id.server_name() != self.server_name {
            return Err(Error::not_found("This server knows only the profiles of its own users"));
        }
        account::find(conn, user_id).await?.map(drop).ok_or_else(no_profile)
    }
}

/// Commits what events are built on, such as a name: no batch is judged while that changes.
async fn commit_between_batches(mut tx: Tx) -> Result<()> {
    log::lock(&mut tx).await?;
    Ok(tx.commit().await?)
}

/// Whether rooms say it of their members.
fn is_name_or_picture(field: &str) -> bool {
    [AVATAR_URL, DISPLAYNAME].contains(&field)
}

/// Sets a field or removes it, and returns whether that changes anything. An empty name or picture is none.
async fn change_within(
    tx: &mut Tx,
    quotas: &Quotas,
    user_id: &UserId,
    field: &str,
    value: Option<&Value>,
) -> Result<bool> {
    check_field(field)?;
    // Locked, so that two fields set at once don't outgrow the limit together, and that a guest who becomes a user
    // meanwhile is in the directory as they are.
    let account = account::lock(tx, user_id).await?.ok_or_else(no_profile)?;
    if account.deactivated {
        // What was erased stays erased.
        return Err(Error::forbidden("This account has been deactivated: its profile stays as it is"));
    }
    let value = value.filter(|value| !(is_name_or_picture(field) && value.as_str() == Some("")));
    let changes = match value {
        Some(value) => set(tx, quotas, user_id, field, &value.to_string()).await?,
        None => profile::delete(tx, user_id, field).await?,
    };
    if changes {
        update_directory(tx, user_id, field).await?;
    }
    Ok(changes)
}

/// Sets a field, and returns whether it was another before.
async fn set(tx: &mut Tx, quotas: &Quotas, user_id: &UserId, field: &str, json: &str) -> Result<bool> {
    // All of it, since its size is what is limited.
    let fields = profile::list(tx, user_id).await?;
    if fields.iter().any(|(key, old)| key == field && old == json) {
        return Ok(false);
    }
    let size = |fields: &[(String, String)]| fields.iter().map(|(key, json)| size_of_field(key, json)).sum::<usize>();
    let old = fields.iter().find(|(key, _)| key == field);
    let freed = old.map_or(0, |(key, json)| size_of_field(key, json));
    let after = size(&fields) - freed + size_of_field(field, json);
    let kilobytes = quotas.find(user_id, |quotas| quotas.profile_kilobytes).and_then(|kib| usize::try_from(kib).ok());
    let most = kilobytes.map_or(MAX_PROFILE_BYTES, |kib| MAX_PROFILE_BYTES.min(kib * 1024));
    // Where the operator has lowered it meanwhile, a profile may be made smaller step by step.
    if after > most && after > size(&fields) {
        let message = format!("With this the profile would be larger than {most} bytes");
        return Err(Error::refused(ErrorKind::ProfileTooLarge, message));
    }
    if old.is_none() {
        let has = i64::try_from(fields.len()).unwrap_or(i64::MAX);
        let message = |most| format!("Your profile has {most} fields, as many as it may: remove one first");
        quotas.check(user_id, |quotas| quotas.profile_fields, has, message)?;
    }
    profile::upsert(tx, user_id, field, json).await?;
    Ok(true)
}

/// Has a user found by the name that they have now, after a change of this field.
async fn update_directory(tx: &mut Tx, user_id: &UserId, field: &str) -> Result<()> {
    if field != DISPLAYNAME {
        return Ok(());
    }
    // Guests and those who were deactivated are in no directory.
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

/// What does not parse is broken: only JSON is stored.
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
    use crate::{config::Config, db::testing};

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
            let (db, here) = (database.db().clone(), server_name!("example.org").to_owned());
            let quotas = Quotas::of(&Config::default());
            let profiles = Profiles::new(db, Clock::manual(0), Random::system(), here, quotas);
            let alice = user_id!("@alice:example.org");
            let mut tx = database.db().begin().await.unwrap();
            account::insert(&mut tx, alice, None, false, 0).await.unwrap();
            tx.commit().await.unwrap();

            let set = async |field, value| profiles.change(alice, field, Some(&value)).await;
            let changed = set(DISPLAYNAME, json!("Alice")).await.unwrap();
            let Changed::SeenInRooms(errand) = changed else { panic!("{changed:?}") };
            let left = async || {
                let mut conn = database.db().read().await.unwrap();
                errand::is_left(&mut conn, ErrandKind::Profile, alice).await.unwrap()
            };
            assert!(left().await);
            profiles.is_seen_in_rooms(&errand).await.unwrap();
            assert!(!left().await);
            let again = set(DISPLAYNAME, json!("Alice")).await.unwrap();
            let Changed::SeenInRooms(errand) = again else { panic!("a room may lack it: {again:?}") };
            profiles.is_seen_in_rooms(&errand).await.unwrap();
            let pets = json!({ "cats": 2, "nul": "\0" });
            assert_eq!(set("org.example.pets", pets).await.unwrap(), Changed::InProfile);
            assert!(!left().await, "rooms don't say that");
            let profile = profiles.get(alice).await.unwrap();
            assert_eq!(
                json!(profile),
                json!({ "displayname": "Alice", "org.example.pets": { "cats": 2, "nul": "\0" } })
            );

            let huge = json!("x".repeat(MAX_PROFILE_BYTES - 40));
            let Err(Error::Refused { kind, .. }) = set("org.example.huge", huge.clone()).await else { panic!() };
            assert_eq!(kind, ErrorKind::ProfileTooLarge);
            profiles.change(alice, "org.example.pets", None).await.unwrap();
            set(DISPLAYNAME, json!("")).await.unwrap();
            assert_eq!(profiles.find_field(alice, DISPLAYNAME).await.unwrap(), None);
            assert_eq!(set("org.example.huge", huge).await.unwrap(), Changed::InProfile);

            for stranger in [user_id!("@bob:example.org"), user_id!("@alice:elsewhere.org")] {
                let Err(Error::Refused { kind, .. }) = profiles.get(stranger).await else { panic!() };
                assert_eq!(kind, ErrorKind::NotFound);
            }
            database.close().await;
        }
    }
}
