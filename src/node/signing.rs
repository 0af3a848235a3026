//! The server's own signing key, made at the first start and kept in the database for every node.
//!
//! A server that loses its key can't speak for its rooms any more, so it is part of every backup of the database. Nodes
//! that start together end up with one key: the row is made under a lock.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use crate::{
    db::Db,
    error::{Error, Result},
    event::SigningKey,
    ground::{clock::Clock, random::Random},
    store::signing_key,
};

const ALGORITHM: &str = "ed25519:";

/// The newest key; a new one if there is none yet.
pub async fn load_or_create(db: &Db, clock: &Clock, random: &Random) -> Result<SigningKey> {
    let mut tx = db.begin().await?;
    signing_key::lock(&mut tx).await?;
    if let Some((key_id, private_key)) = signing_key::find_newest(&mut tx).await? {
        return read(&key_id, &private_key);
    }
    // Key versions are letters, digits and underscores; four of them tell this server's keys apart.
    let key_id = format!("{ALGORITHM}a_{}", random.token(4));
    let private_key = SigningKey::generate().map_err(Error::broken)?;
    signing_key::insert(&mut tx, &key_id, &private_key, clock.now().get().into()).await?;
    tx.commit().await?;
    read(&key_id, &private_key)
}

fn read(key_id: &str, private_key: &[u8]) -> Result<SigningKey> {
    SigningKey::from_pkcs8(private_key, key_id)
        .map_err(|e| Error::broken(format!("the signing key {key_id} in the database can't be read: {e}")))
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
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(one.id(), other.id());
            assert_eq!(one.public_key(), other.public_key());
            assert!(one.id().as_str().starts_with("ed25519:a_"));

            let after_restart = start().await.unwrap();
            assert_eq!(after_restart.public_key(), one.public_key());
            database.close().await;
        }
    }
}
