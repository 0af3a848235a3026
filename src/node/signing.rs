//! The server's own signing keys, the first made at the first start, kept in the database for every node.
//!
//! A server that loses its keys can't speak for its rooms any more, so they are part of every backup of the database.
//! Nodes that start together end up with one key: the row is made under a lock.
//!
//! A rotation adds a row, and nodes notice it by themselves. When they begin to sign with the new key, its row says
//! ([`SigningKeys`]).
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use std::{sync::Arc, time::Duration};

use crate::{
    db::{Conn, Db},
    error::{Error, Result},
    event::{DatedKey, SigningKey},
    ground::{
        clock::Clock,
        random::Random,
        tasks::{Shutdown, Tasks},
    },
    store::{node, signing_key},
};

pub use crate::event::SigningKeys;

const ALGORITHM: &str = "ed25519:";
/// How often a node looks whether there is a new key.
const LOOK: Duration = Duration::from_secs(20);

/// A key that was made to follow another one.
#[derive(Clone, Debug)]
pub struct RotatedKey {
    pub key_id: String,
    /// When nodes begin to sign with it, in milliseconds since the Unix epoch.
    pub signs_from: i64,
}

/// The keys of this server, which go on following the database; a new one if there is none yet.
pub async fn start(db: &Db, clock: &Clock, random: &Random, tasks: &Tasks) -> Result<SigningKeys> {
    let keys = load_or_create(db, clock, random).await?;
    tasks.spawn("signing keys", follow(db.clone(), keys.clone(), tasks.shutdown().clone()));
    Ok(keys)
}

/// All keys as they are now, for who signs in the server's name beside it. None is made.
pub(crate) async fn load(db: &Db, clock: &Clock) -> Result<SigningKeys> {
    let mut keys = list(&mut db.read().await?).await?.into_iter();
    let first = keys.next().ok_or_else(no_key)?;
    Ok(SigningKeys::new(clock.clone(), first, keys.collect()))
}

/// All keys as they are now; a new one if there is none yet.
async fn load_or_create(db: &Db, clock: &Clock, random: &Random) -> Result<SigningKeys> {
    let mut tx = db.begin().await?;
    signing_key::lock(&mut tx).await?;
    let mut keys = list(&mut tx).await?.into_iter();
    if let Some(first) = keys.next() {
        return Ok(SigningKeys::new(clock.clone(), first, keys.collect()));
    }
    let first = create(&mut tx, random, clock.now().get().into()).await?;
    tx.commit().await?;
    Ok(SigningKeys::new(clock.clone(), first, Vec::new()))
}

/// Makes a key that takes over from the newest one. The old ones stay.
pub async fn rotate(db: &Db, random: &Random) -> Result<RotatedKey> {
    let mut tx = db.begin().await?;
    signing_key::lock(&mut tx).await?;
    let newest = list(&mut tx).await?.pop().ok_or_else(no_key)?;
    // By the time that all nodes go by, and behind the newest whatever that is.
    let now = node::now(&mut tx).await?.max(newest.created_ts.saturating_add(1));
    let made = create(&mut tx, random, now).await?;
    tx.commit().await?;
    Ok(RotatedKey { key_id: made.key.id().to_string(), signs_from: made.signs_from() })
}

/// Takes over what was rotated since.
pub(crate) async fn refresh(db: &Db, keys: &SigningKeys) -> Result<()> {
    let mut listed = list(&mut db.read().await?).await?.into_iter();
    if listed.len() == keys.count() {
        return Ok(());
    }
    let first = listed.next().filter(|first| first.key.id() == keys.first().id());
    if first.is_none() {
        return Err(Error::broken("the first signing key is not in the database any more"));
    }
    keys.replace_later(listed.collect());
    tracing::info!("there is a new signing key, which is used within a minute");
    Ok(())
}

/// Looks for new keys until no request is left.
async fn follow(db: Db, keys: SigningKeys, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.requests_done() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = refresh(&db, &keys).await {
            tracing::warn!(%error, "could not look for a new signing key; it is tried again");
        }
    }
}

fn no_key() -> Error {
    Error::not_found("There is no signing key yet: the first start of the server makes one")
}

async fn create(conn: &mut Conn, random: &Random, now: i64) -> Result<DatedKey> {
    // Key versions are letters, digits and underscores; four of them tell this server's keys apart.
    let key_id = format!("{ALGORITHM}a_{}", random.token(4));
    let private_key = SigningKey::generate().map_err(Error::broken)?;
    signing_key::insert(conn, &key_id, &private_key, now).await?;
    read(&key_id, &private_key, now)
}

/// In the order in which they were made.
async fn list(conn: &mut Conn) -> Result<Vec<DatedKey>> {
    let rows = signing_key::list(conn).await?;
    rows.iter().map(|(key_id, private_key, created_ts)| read(key_id, private_key, *created_ts)).collect()
}

fn read(key_id: &str, private_key: &[u8], created_ts: i64) -> Result<DatedKey> {
    let key = SigningKey::from_pkcs8(private_key, key_id)
        .map_err(|e| Error::broken(format!("the signing key {key_id} in the database can't be read: {e}")))?;
    Ok(DatedKey { key: Arc::new(key), created_ts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing;

    #[tokio::test]
    async fn nodes_that_start_together_end_up_with_one_key() {
        for database in testing::databases().await {
            let (db, clock, random) = (database.db(), Clock::system(), Random::system());
            let start = || load_or_create(db, &clock, &random);
            let (one, other) = tokio::join!(start(), start());
            let (one, other) = (one.unwrap().current(), other.unwrap().current());
            assert_eq!(one.id(), other.id());
            assert_eq!(one.public_key(), other.public_key());
            assert!(one.id().as_str().starts_with("ed25519:a_"));

            let after_restart = start().await.unwrap().current();
            assert_eq!(after_restart.public_key(), one.public_key());
            database.close().await;
        }
    }

    /// The clock of the command's machine does not matter: the key is dated by the database.
    #[tokio::test]
    async fn a_running_node_notices_a_rotation_and_signs_with_the_new_key_when_all_have() {
        for database in testing::databases().await {
            let (db, random) = (database.db(), Random::system());
            let now = node::now(&mut db.read().await.unwrap()).await.unwrap();
            let clock = Clock::manual(u64::try_from(now).unwrap());
            let keys = load_or_create(db, &clock, &random).await.unwrap();
            let first = keys.current();

            let rotated = rotate(db, &random).await.unwrap();
            assert_ne!(rotated.key_id, first.id().to_string());
            refresh(db, &keys).await.unwrap();
            assert_eq!(keys.current().id(), first.id());
            assert_eq!(keys.published().len(), 2);

            clock.advance(Duration::from_mins(2));
            assert_eq!(keys.current().id().as_str(), rotated.key_id);
            assert_eq!(keys.first().id(), first.id());
            let restarted = load_or_create(db, &clock, &random).await.unwrap();
            assert_eq!(restarted.current().id().as_str(), rotated.key_id);
            assert_eq!(restarted.first().public_key(), first.public_key(), "what is derived from it stays");

            let again = rotate(db, &random).await.unwrap();
            refresh(db, &keys).await.unwrap();
            clock.advance(Duration::from_mins(3));
            assert_eq!(keys.current().id().as_str(), again.key_id);
            let old = keys.published().into_iter().filter(|published| published.expired_ts.is_some());
            assert_eq!(old.count(), 2, "both stay verifiable");
            let loaded = load(db, &clock).await.unwrap();
            assert_eq!((loaded.count(), loaded.current().id()), (3, keys.current().id()));
            database.close().await;
        }
    }

    #[tokio::test]
    async fn nothing_is_rotated_before_there_is_a_key() {
        let database = testing::sqlite().await;
        rotate(database.db(), &Random::system()).await.unwrap_err();
        load(database.db(), &Clock::system()).await.unwrap_err();
        assert_eq!(database.dump("signing_keys").await, [""; 0]);
        database.close().await;
    }
}
