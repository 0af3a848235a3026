//! Backups of the keys of encrypted rooms, which users keep here so that a new device can read what was said before it.
//!
//! A user's newest backup is the one that is written to; older ones are read until they are deleted. Every write locks the
//! account, so that two devices on two nodes replace each other's keys one after the other, by the rules of the
//! specification, and so that what a backup's row says of its keys is exact.
//!
//! There may be hundreds of thousands of keys: they are read and deleted by the page. What is deleted as a whole is gone at
//! once for everybody who asks; its rows go afterwards, in steps that hold nobody up.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

#[cfg(test)]
mod tests;

use ruma::{
    RoomId, UserId,
    api::error::{ErrorKind, WrongRoomKeysVersionErrorData},
};
use serde_json::value::RawValue;

use super::account::unknown_access_token;
use crate::{
    db::{Db, Tx},
    error::{Error, Result},
    ground::random::Random,
    log::Quotas,
    store::{
        account,
        key_backup::{self, Portion},
    },
};

pub(crate) use crate::store::key_backup::{
    Backup, Contents, KeyBackupData, KeyPage, KeySelection, SessionKey, Standing,
};

/// In characters: unique for whatever a backup ever held, also after a database was restored.
const ETAG_LENGTH: usize = 16;
/// How many keys are looked up and written at once.
const WRITTEN_AT_ONCE: usize = 500;
/// How much is read at once. Keys as clients write them come to about as much by either measure.
const PAGE: Portion = Portion { keys: 1_000, bytes: MIB };
/// How much is deleted in one transaction. On SQLite nobody else writes meanwhile.
const DELETED_AT_ONCE: Portion = Portion { keys: 2_000, bytes: 4 * MIB };
/// How many deleted backups are looked at in one go.
const BACKUPS_AT_ONCE: i64 = 100;
/// Of the identifier of a session, in bytes: an index of `PostgreSQL` holds no more than a few thousand. Clients use 43.
const MAX_SESSION_ID: usize = 255;
/// Of one key, in bytes. It is a few hundred as long as nobody has forwarded it, and fifty more for each who has.
const MAX_SESSION_DATA: usize = 64 * 1024;
const MAX_ALGORITHM: usize = 255;
const MIB: i64 = 1024 * 1024;

/// Everybody's backups of keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyBackups {
    db: Db,
    random: Random,
    quotas: Quotas,
}

impl KeyBackups {
    pub(crate) fn new(db: Db, random: Random, quotas: Quotas) -> Self {
        Self { db, random, quotas }
    }

    /// Makes a backup, which is the one in use from then on, and returns its version. `M_USER_LIMIT_EXCEEDED` for one more
    /// than the user may have.
    pub(crate) async fn create(&self, user_id: &UserId, algorithm: &str, auth_data: &RawValue) -> Result<i64> {
        check_algorithm(algorithm)?;
        let mut tx = self.begin(user_id).await?;
        let has = key_backup::usage(&mut tx, user_id).await?.versions;
        self.quotas.check(
            user_id,
            |quotas| quotas.key_backups,
            has,
            |most| format!("You have {most} backups of keys, as many as you may: delete one of them first"),
        )?;
        let version = key_backup::take_version(&mut tx, user_id).await?;
        key_backup::insert(&mut tx, user_id, version, (algorithm, auth_data.get()), &self.new_etag()).await?;
        tx.commit().await?;
        Ok(version)
    }

    /// The backup in use.
    pub(crate) async fn find_newest(&self, user_id: &UserId) -> Result<Option<Backup>> {
        Ok(key_backup::find_newest(&mut self.db.read().await?, user_id).await?)
    }

    /// Any backup that was not deleted. `M_NOT_FOUND` where there is none of this version.
    pub(crate) async fn get(&self, user_id: &UserId, version: &str) -> Result<Backup> {
        let version = read_version(version)?;
        key_backup::find(&mut self.db.read().await?, user_id, version).await?.ok_or_else(no_such_backup)
    }

    /// Replaces what clients keep beside a backup. `M_INVALID_PARAM` for another algorithm than the backup's.
    pub(crate) async fn set_auth_data(
        &self,
        user_id: &UserId,
        version: &str,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<()> {
        let version = read_version(version)?;
        let mut tx = self.begin(user_id).await?;
        let backup = key_backup::find(&mut tx, user_id, version).await?.ok_or_else(no_such_backup)?;
        if backup.algorithm != algorithm {
            let message = format!("The backup's algorithm is {}: it can't become another", backup.algorithm);
            return Err(Error::invalid_param(message));
        }
        key_backup::set_auth_data(&mut tx, user_id, version, auth_data.get()).await?;
        Ok(tx.commit().await?)
    }

    /// Deletes a backup with its keys. `M_NOT_FOUND` where there never was one of this version.
    pub(crate) async fn delete(&self, user_id: &UserId, version: &str) -> Result<()> {
        let version = read_version(version)?;
        let mut tx = self.begin(user_id).await?;
        if !key_backup::mark_deleted(&mut tx, user_id, version).await? {
            let was_there = version <= key_backup::last_version(&mut tx, user_id).await?;
            return if was_there { Ok(()) } else { Err(no_such_backup()) };
        }
        tx.commit().await?;
        // What this does not get round to, upkeep does.
        self.clear(user_id, version).await
    }

    /// Puts keys into the backup in use, each of another session, unless there is one for its session that is as good.
    /// All or nothing.
    ///
    /// `M_NOT_FOUND` where the user has no backup, `M_WRONG_ROOM_KEYS_VERSION` where another is in use,
    /// `M_USER_LIMIT_EXCEEDED` where there would be more keys, or larger ones, than the user may have.
    pub(crate) async fn put_keys(&self, user_id: &UserId, version: &str, keys: &[SessionKey]) -> Result<Contents> {
        keys.iter().try_for_each(check_key)?;
        let mut tx = self.begin(user_id).await?;
        let backup = key_backup::find_newest(&mut tx, user_id).await?.ok_or_else(no_such_backup)?;
        if read_version(version).ok() != Some(backup.version) {
            return Err(wrong_version(&backup));
        }
        let (version, mut contents) = (backup.version, backup.contents);
        let (sessions_before, bytes_before) = (contents.sessions, contents.bytes);
        let mut changed = false;
        for keys in keys.chunks(WRITTEN_AT_ONCE) {
            let there = key_backup::list_standings(&mut tx, user_id, version, keys).await?;
            let find = |key: &SessionKey| there.get(&(key.room_id.to_string(), key.session_id.clone())).copied();
            let mut better = Vec::with_capacity(keys.len());
            for key in keys {
                match find(key) {
                    None => contents.sessions += 1,
                    Some((standing, bytes)) if is_better(key.data.standing, standing) => contents.bytes -= bytes,
                    Some(_) => continue,
                }
                contents.bytes += key.bytes();
                better.push(key);
            }
            changed |= !better.is_empty();
            key_backup::upsert_keys(&mut tx, user_id, version, &better).await?;
        }
        if !changed {
            return Ok(contents);
        }
        contents.etag = self.new_etag();
        key_backup::set_contents(&mut tx, user_id, version, &contents).await?;
        let more = (contents.sessions > sessions_before, contents.bytes > bytes_before);
        self.check_quotas(&mut tx, user_id, more).await?;
        tx.commit().await?;
        Ok(contents)
    }

    /// The key of a session. `M_NOT_FOUND` where the backup is not there; None where the key is not.
    pub(crate) async fn find_key(
        &self,
        user_id: &UserId,
        version: &str,
        session: (&RoomId, &str),
    ) -> Result<Option<KeyBackupData>> {
        let version = read_version(version)?;
        let mut conn = self.db.read().await?;
        let key = key_backup::find_key(&mut conn, user_id, version, session).await?;
        // A backup that is deleted has keys for a while.
        key_backup::find(&mut conn, user_id, version).await?.ok_or_else(no_such_backup)?;
        Ok(key)
    }

    /// The next keys of a backup, or of a room in it, after one that was read.
    ///
    /// `M_NOT_FOUND` where the backup is not there, or has been deleted since the page before.
    pub(crate) async fn page(
        &self,
        user_id: &UserId,
        version: &str,
        room_id: Option<&RoomId>,
        after: Option<&SessionKey>,
    ) -> Result<KeyPage> {
        let version = read_version(version)?;
        let after = after.map_or(("", ""), |key| (key.room_id.as_str(), key.session_id.as_str()));
        let mut conn = self.db.read().await?;
        let page = key_backup::page(&mut conn, user_id, version, (room_id, after), PAGE).await?;
        // Looked up after the keys: where it is still there, none of them was missing.
        key_backup::find(&mut conn, user_id, version).await?.ok_or_else(no_such_backup)?;
        Ok(page)
    }

    /// Deletes keys of a backup, which need not be the one in use. Many are deleted in steps, in the middle of which this
    /// may be broken off; the count is exact after each. `M_NOT_FOUND` where the backup is not there.
    pub(crate) async fn delete_keys(
        &self,
        user_id: &UserId,
        version: &str,
        which: KeySelection<'_>,
    ) -> Result<Contents> {
        let version = read_version(version)?;
        loop {
            let mut tx = self.begin(user_id).await?;
            let backup = key_backup::find(&mut tx, user_id, version).await?.ok_or_else(no_such_backup)?;
            let mut contents = backup.contents;
            let deleted = key_backup::delete_some_keys(&mut tx, user_id, version, which, DELETED_AT_ONCE).await?;
            if deleted.count == 0 {
                return Ok(contents);
            }
            contents.sessions -= deleted.count;
            contents.bytes -= deleted.bytes;
            contents.etag = self.new_etag();
            key_backup::set_contents(&mut tx, user_id, version, &contents).await?;
            tx.commit().await?;
            if deleted.is_all {
                return Ok(contents);
            }
        }
    }

    /// Removes the keys of backups that were deleted, of accounts that have ended among them. To be called now and then.
    pub(crate) async fn clear_deleted(&self) -> Result<()> {
        let deleted = key_backup::list_deleted(&mut self.db.read().await?, BACKUPS_AT_ONCE).await?;
        for (user_id, version) in deleted {
            self.clear(&user_id, version).await?;
        }
        Ok(())
    }

    /// Removes the keys of a backup that is deleted, and then what is left of it.
    async fn clear(&self, user_id: &UserId, version: i64) -> Result<()> {
        loop {
            let mut tx = self.db.begin().await?;
            // Of an account that has ended, too. Two that clear at once don't meet on the rows.
            account::lock(&mut tx, user_id).await?;
            let which = KeySelection::All;
            let deleted = key_backup::delete_some_keys(&mut tx, user_id, version, which, DELETED_AT_ONCE).await?;
            if deleted.is_all {
                key_backup::forget(&mut tx, user_id, version).await?;
            }
            tx.commit().await?;
            if deleted.is_all {
                return Ok(());
            }
        }
    }

    /// Begins to write with the account locked. Whoever's account has ended since their token was looked at is refused as a
    /// new request would be: nothing is left behind that nobody deletes.
    async fn begin(&self, user_id: &UserId) -> Result<Tx> {
        let mut tx = self.db.begin().await?;
        match account::lock(&mut tx, user_id).await? {
            Some(account) if !account.deactivated => Ok(tx),
            _ => Err(unknown_access_token()),
        }
    }

    /// `more`: whether there are more sessions than before, and whether there are more bytes. What only takes the place of
    /// what was there is let through, however much there is.
    async fn check_quotas(&self, tx: &mut Tx, user_id: &UserId, more: (bool, bool)) -> Result<()> {
        let usage = key_backup::usage(tx, user_id).await?;
        if more.0 {
            self.quotas.check_total(
                user_id,
                |quotas| quotas.key_backup_sessions,
                (usage.sessions, 1),
                |most| {
                    format!("Your backups may hold {most} keys in all: delete a backup that you don't need any more")
                },
            )?;
        }
        if more.1 {
            self.quotas.check_total(
                user_id,
                |quotas| quotas.key_backup_megabytes,
                (usage.bytes, MIB),
                |most| {
                    format!("Your backups of keys may take {most} MiB in all: delete one that you don't need any more")
                },
            )?;
        }
        Ok(())
    }

    fn new_etag(&self) -> String {
        self.random.token(ETAG_LENGTH)
    }
}

/// Whether a key takes the place of another one of its session: one whose device was verified, then one that reads more
/// of what was said, then one that fewer have passed on. Of two that are as good the first stays.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>
fn is_better(new: Standing, old: Standing) -> bool {
    // The lower, the better; false is lower than true.
    let rank = |key: Standing| (!key.is_verified, key.first_message_index, key.forwarded_count);
    rank(new) < rank(old)
}

/// `M_INVALID_PARAM` for what can't be stored, `M_TOO_LARGE` for what no client writes.
fn check_key(key: &SessionKey) -> Result<()> {
    let SessionKey { session_id, data, .. } = key;
    if session_id.is_empty() || session_id.len() > MAX_SESSION_ID || session_id.contains('\0') {
        let message = format!("The ID of a session has from 1 to {MAX_SESSION_ID} bytes and no NUL character");
        return Err(Error::invalid_param(message));
    }
    if data.session_data.get().len() > MAX_SESSION_DATA {
        let message = format!("The key of session {session_id} has more than {MAX_SESSION_DATA} bytes");
        return Err(Error::refused(ErrorKind::TooLarge, message));
    }
    Ok(())
}

fn check_algorithm(algorithm: &str) -> Result<()> {
    if algorithm.is_empty() || algorithm.len() > MAX_ALGORITHM || algorithm.contains('\0') {
        let message = format!("The name of an algorithm has from 1 to {MAX_ALGORITHM} bytes and no NUL character");
        return Err(Error::invalid_param(message));
    }
    Ok(())
}

/// A version as it was given out, and in no other spelling. `M_NOT_FOUND` for anything else.
fn read_version(version: &str) -> Result<i64> {
    let number: Option<i64> = version.parse().ok();
    number.filter(|number| *number > 0 && number.to_string() == version).ok_or_else(no_such_backup)
}

fn no_such_backup() -> Error {
    Error::not_found("You have no backup of keys of this version")
}

/// By what it brings along the client knows which backup to look at.
fn wrong_version(current: &Backup) -> Error {
    let kind = ErrorKind::WrongRoomKeysVersion(WrongRoomKeysVersionErrorData::new(current.version.to_string()));
    Error::refused(kind, format!("Keys go into your newest backup, which is {}", current.version))
}
