//! `server_keys`: what other servers sign with.
//!
//! What a server says of its own keys counts more than what a notary says of them: a notary adds keys and prolongs those
//! that are good, and never changes a key or brings an expired one back.

use std::collections::BTreeSet;

use ruma::{OwnedServerName, ServerName};

use crate::db::{Column, ColumnType, Conn, DbResult, Insert, Tx, args, statements};

statements! {
    LIST_SERVER_KEYS = "SELECT server_name, key_id, public_key, valid_until_ts FROM server_keys
        WHERE server_name IN LIST($1)";
    LIST_KEY_DOCUMENTS = "SELECT key_id, valid_until_ts, fetched_ts, document FROM server_keys WHERE server_name = $1
        ORDER BY fetched_ts DESC, key_id";
}

const COLUMNS: &[(&str, ColumnType)] = &[
    ("server_name", ColumnType::Text),
    ("key_id", ColumnType::Text),
    ("public_key", ColumnType::Text),
    ("expired", ColumnType::Bool),
    ("valid_until_ts", ColumnType::Int),
    ("fetched_ts", ColumnType::Int),
    ("document", ColumnType::Text),
];

static REPLACE_SERVER_KEYS: Insert = Insert::new(
    "REPLACE_SERVER_KEYS",
    "server_keys",
    COLUMNS,
    "ON CONFLICT (server_name, key_id) DO UPDATE SET public_key = excluded.public_key, expired = excluded.expired,
        valid_until_ts = excluded.valid_until_ts, fetched_ts = excluded.fetched_ts, document = excluded.document",
);

static PROLONG_SERVER_KEYS: Insert = Insert::new(
    "PROLONG_SERVER_KEYS",
    "server_keys",
    COLUMNS,
    "ON CONFLICT (server_name, key_id) DO UPDATE SET expired = excluded.expired,
        valid_until_ts = excluded.valid_until_ts, fetched_ts = excluded.fetched_ts, document = excluded.document
        WHERE server_keys.public_key = excluded.public_key AND NOT server_keys.expired
            AND excluded.valid_until_ts > server_keys.valid_until_ts",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&REPLACE_SERVER_KEYS, &PROLONG_SERVER_KEYS];

/// A key as its server, or a notary, has published it. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewServerKey<'a> {
    pub(crate) server_name: &'a ServerName,
    pub(crate) key_id: &'a str,
    /// Unpadded base64.
    pub(crate) public_key: String,
    /// Whether its server does not sign with it any more.
    pub(crate) expired: bool,
    pub(crate) valid_until: i64,
    /// The JSON in which the key was published, with its server's signatures.
    pub(crate) document: &'a str,
}

/// A key of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerKey {
    pub(crate) server_name: OwnedServerName,
    pub(crate) key_id: String,
    /// Unpadded base64.
    pub(crate) public_key: String,
    /// The latest time at which it may have signed something, in milliseconds since the Unix epoch.
    pub(crate) valid_until: i64,
}

/// What is known of a key to be handed on. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyDocumentRow {
    pub(crate) key_id: String,
    pub(crate) valid_until: i64,
    pub(crate) fetched: i64,
    pub(crate) document: String,
}

/// Who said something of a server's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    Itself,
    Notary,
}

/// Takes over keys, of which no two may be of one server and have one identifier.
pub(crate) async fn insert(tx: &mut Tx, keys: &[NewServerKey<'_>], source: KeySource, now: i64) -> DbResult<()> {
    debug_assert_eq!(
        keys.iter().map(|key| (key.server_name, key.key_id)).collect::<BTreeSet<_>>().len(),
        keys.len(),
        "each key once"
    );
    let columns = [
        Column::texts(keys.iter().map(|key| key.server_name.as_str())),
        Column::texts(keys.iter().map(|key| key.key_id)),
        Column::texts(keys.iter().map(|key| key.public_key.as_str())),
        Column::Bools(keys.iter().map(|key| key.expired).collect()),
        Column::ints(keys.iter().map(|key| key.valid_until)),
        Column::ints(keys.iter().map(|_| now)),
        Column::texts(keys.iter().map(|key| key.document)),
    ];
    let insert = match source {
        KeySource::Itself => &REPLACE_SERVER_KEYS,
        KeySource::Notary => &PROLONG_SERVER_KEYS,
    };
    tx.insert(insert, &columns).await
}

/// All keys of these servers, in no order.
pub(crate) async fn list(conn: &mut Conn, servers: &[&str]) -> DbResult<Vec<ServerKey>> {
    let rows = conn.list(&LIST_SERVER_KEYS, args![servers]).await?;
    rows.iter()
        .map(|row| {
            let (server_name, key_id) = (row.get(0)?, row.get(1)?);
            Ok(ServerKey { server_name, key_id, public_key: row.get(2)?, valid_until: row.get(3)? })
        })
        .collect()
}

/// The documents in which a server's keys stand, newest first, one for each key: several keys may have the same.
pub(crate) async fn list_documents(conn: &mut Conn, server: &ServerName) -> DbResult<Vec<KeyDocumentRow>> {
    let rows = conn.list(&LIST_KEY_DOCUMENTS, args![server.as_str()]).await?;
    rows.iter()
        .map(|row| {
            let (key_id, valid_until) = (row.get(0)?, row.get(1)?);
            Ok(KeyDocumentRow { key_id, valid_until, fetched: row.get(2)?, document: row.get(3)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::db::testing;

    fn key(public_key: &str, expired: bool, valid_until: i64) -> NewServerKey<'static> {
        let server_name = server_name!("there");
        NewServerKey {
            server_name,
            key_id: "ed25519:a",
            public_key: public_key.to_owned(),
            expired,
            valid_until,
            document: "{}",
        }
    }

    #[tokio::test]
    async fn a_notary_prolongs_a_key_and_never_replaces_or_revives_it() {
        for database in testing::databases().await {
            let steps = [
                (key("one", false, 100), KeySource::Notary, ("one", 100)),
                (key("one", false, 50), KeySource::Notary, ("one", 100)),
                (key("two", false, 200), KeySource::Notary, ("one", 100)),
                (key("one", false, 150), KeySource::Notary, ("one", 150)),
                (key("two", false, 120), KeySource::Itself, ("two", 120)),
                (key("two", true, 110), KeySource::Itself, ("two", 110)),
                (key("two", false, 900), KeySource::Notary, ("two", 110)),
            ];
            for (new, source, (public_key, valid_until)) in steps {
                let mut tx = database.db().begin().await.unwrap();
                insert(&mut tx, std::slice::from_ref(&new), source, 7).await.unwrap();
                tx.commit().await.unwrap();
                let mut conn = database.db().read().await.unwrap();
                let kept = list(&mut conn, &["there", "elsewhere"]).await.unwrap();
                assert_eq!(kept.len(), 1);
                assert_eq!((&*kept[0].public_key, kept[0].valid_until), (public_key, valid_until), "{new:?}");
            }
            let mut conn = database.db().read().await.unwrap();
            assert_eq!(list_documents(&mut conn, server_name!("there")).await.unwrap()[0].fetched, 7);
            assert!(list_documents(&mut conn, server_name!("elsewhere")).await.unwrap().is_empty());
            drop(conn);
            database.close().await;
        }
    }
}
