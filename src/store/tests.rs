//! Both engines read every statement, and their schemas say the same.

use std::collections::BTreeSet;

use super::{
    account, account_data, alias, attention, cross_signing, cursor, dehydrated_device, delayed_event, destination,
    device, device_key, device_list, ephemeral, erasure, errand, event, filter, history, inbound, key_backup, log,
    media, media_object, media_quarantine, media_thumbnail, media_upkeep, membership, moment, node, one_time_key,
    outside_membership, profile, redaction, registration, relation, report, room, room_entry, search, server,
    server_key, signing_key, state, threepid, to_device, token, uia, url_preview, usage, user_directory,
};
use crate::db::{Engine, Insert, MIGRATION_STATEMENTS, Statement, args, testing};

/// Of every file in this folder, of the migrations and of this test.
const STATEMENTS: &[&[&Statement]] = &[
    MIGRATION_STATEMENTS,
    schema::STATEMENTS,
    account::STATEMENTS,
    account_data::STATEMENTS,
    alias::STATEMENTS,
    attention::STATEMENTS,
    cross_signing::STATEMENTS,
    cursor::STATEMENTS,
    dehydrated_device::STATEMENTS,
    delayed_event::STATEMENTS,
    destination::STATEMENTS,
    device::STATEMENTS,
    device_key::STATEMENTS,
    device_list::STATEMENTS,
    ephemeral::STATEMENTS,
    erasure::STATEMENTS,
    errand::STATEMENTS,
    event::STATEMENTS,
    filter::STATEMENTS,
    history::STATEMENTS,
    inbound::STATEMENTS,
    key_backup::STATEMENTS,
    log::STATEMENTS,
    media::STATEMENTS,
    media_object::STATEMENTS,
    media_quarantine::STATEMENTS,
    media_thumbnail::STATEMENTS,
    media_upkeep::STATEMENTS,
    membership::STATEMENTS,
    moment::STATEMENTS,
    node::STATEMENTS,
    one_time_key::STATEMENTS,
    outside_membership::STATEMENTS,
    profile::STATEMENTS,
    redaction::STATEMENTS,
    registration::STATEMENTS,
    relation::STATEMENTS,
    report::STATEMENTS,
    room::STATEMENTS,
    room_entry::STATEMENTS,
    search::STATEMENTS,
    server::STATEMENTS,
    server_key::STATEMENTS,
    signing_key::STATEMENTS,
    state::STATEMENTS,
    threepid::STATEMENTS,
    to_device::STATEMENTS,
    token::STATEMENTS,
    uia::STATEMENTS,
    url_preview::STATEMENTS,
    usage::STATEMENTS,
    user_directory::STATEMENTS,
];

const INSERTS: &[&[&Insert]] = &[
    account_data::INSERTS,
    attention::INSERTS,
    destination::INSERTS,
    device_list::INSERTS,
    ephemeral::INSERTS,
    erasure::INSERTS,
    event::INSERTS,
    inbound::INSERTS,
    key_backup::INSERTS,
    log::INSERTS,
    membership::INSERTS,
    one_time_key::INSERTS,
    outside_membership::INSERTS,
    redaction::INSERTS,
    relation::INSERTS,
    room::INSERTS,
    search::INSERTS,
    server_key::INSERTS,
    state::INSERTS,
    to_device::INSERTS,
    usage::INSERTS,
    user_directory::INSERTS,
];

#[tokio::test]
async fn both_engines_read_every_statement() {
    for database in testing::databases().await {
        let mut conn = database.db().read().await.unwrap();
        for statement in STATEMENTS.iter().copied().flatten() {
            conn.prepare(statement).await.unwrap_or_else(|e| panic!("{:?}: {e}", database.db().engine()));
        }
        for insert in INSERTS.iter().copied().flatten() {
            conn.prepare_insert(insert).await.unwrap_or_else(|e| panic!("{:?}: {e}", database.db().engine()));
        }
        drop(conn);
        database.close().await;
    }
}

/// Few rows have one parent, but many may be of its room: whatever names a parent must not read through those. Without
/// figures SQLite takes the one index for as good as the other.
#[tokio::test]
async fn what_relates_to_an_event_is_found_by_the_event() {
    let database = testing::sqlite().await;
    for statement in relation::STATEMENTS.iter().filter(|statement| statement.sql(Engine::Sqlite).contains("parent")) {
        let sql = statement.sql(Engine::Sqlite);
        let plan = testing::plan(&database, sql).await;
        let through_room = plan.iter().filter(|step| step.contains("relations_by_room")).count();
        // A room's threads are found by the room, and nothing else there is.
        assert_eq!(through_room, usize::from(sql.contains("WHERE r.room_id = $1")), "{sql}\n{plan:?}");
        let by_parent = ["PRIMARY KEY (parent=?", "annotations (parent=?"];
        let is_by_parent = |step: &String| by_parent.iter().any(|way| step.contains(way));
        assert!(plan.iter().any(is_by_parent), "{sql}\n{plan:?}");
    }
    database.close().await;
}

/// Somebody has signed few keys, if any, and may ask for a thousand at once.
#[tokio::test]
async fn what_somebody_has_signed_is_found_by_the_signer() {
    let database = testing::sqlite().await;
    let mut statements = cross_signing::STATEMENTS.iter().map(|statement| statement.sql(Engine::Sqlite));
    let sql = statements.find(|sql| sql.contains("WHERE s.signer_user_id = $1")).unwrap();
    let plan = testing::plan(&database, sql).await;
    let by_signer = "key_signatures_by_signer (signer_user_id=?)";
    assert!(plan.iter().any(|step| step.contains(by_signer)), "{sql}\n{plan:?}");
    database.close().await;
}

/// Advisory locks are called by numbers, and nothing else keeps two purposes from having one.
#[test]
fn no_two_locks_have_one_number() {
    let statements = STATEMENTS.iter().copied().flatten().map(|statement| statement.sql(Engine::Postgres));
    let number = |sql: &'static str| {
        let (_, rest) = sql.split_once("pg_advisory_xact_lock(")?;
        rest.split([',', ')']).next()
    };
    let numbers: Vec<&str> = statements.filter_map(number).collect();
    assert!(numbers.len() > 3, "{numbers:?}");
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "{numbers:?}");
}

/// Until `PostgreSQL` has had a look at a table, it takes every equation for rare: of a large one (which this one pretends
/// to be) it would read a whole room and sort it.
#[tokio::test]
async fn a_page_of_a_room_is_read_in_order_from_the_first_day_on() {
    let fill = "ALTER TABLE events SET (autovacuum_enabled = false);
        INSERT INTO events (position, room_order, event_id, room_id, sender, standing, notifies, json)
        SELECT n, n * CAST(1048576 AS BIGINT), '$' || n, '!' || n % 4, '@alice:here', 0, FALSE, repeat('x', 300) FROM generate_series(1, 40000) n;
        UPDATE pg_class SET reltuples = 2000000, relpages = pg_relation_size('events') / 8192 WHERE relname = 'events'";
    let around = r#"'[["!1", 0, 20000000000, 20000000000, 40000000000]]', 5, 5"#;
    let parameters = ["'!1', 20000000000, 0, 10", "'!1', 20000000000, 40000000000, 10", around];
    let statements = event::IN_ORDER.iter().map(|statement| statement.sql(Engine::Postgres));
    let wanted: Vec<(&str, &str)> = statements.zip(parameters).collect();
    for (plan, (sql, _)) in testing::plans_of_newcomer(fill, &wanted).await.iter().zip(&wanted) {
        assert!(plan.contains("using events_by_room") && !plan.contains("Sort"), "{sql}\n{plan}");
    }
}

#[test]
fn every_file_here_is_in_the_lists() {
    let store = include_str!("../store.rs");
    let files = store.lines().filter_map(|line| line.strip_prefix("pub(crate) mod ")?.strip_suffix(';'));
    let this = include_str!("tests.rs");
    for file in files {
        assert!(this.contains(&format!(" {file}::STATEMENTS")), "store/{file}.rs is missing from STATEMENTS");
        let code = std::fs::read_to_string(format!("{}/src/store/{file}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let has_inserts = code.contains("Insert::new(");
        assert_eq!(this.contains(&format!(" {file}::INSERTS")), has_inserts, "store/{file}.rs and the list INSERTS");
    }
}

mod schema {
    use crate::db::statements;

    statements! {
        /// Table, column, type, whether it may be absent, place in the primary key.
        COLUMNS = r#"SELECT t.name, c.name, lower(c.type), c."notnull" = 0 AND c.pk = 0, c.pk
            FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"#
            | "SELECT c.table_name::text, c.column_name::text, c.data_type::text, c.is_nullable = 'YES',
                coalesce((SELECT k.ordinal_position FROM information_schema.key_column_usage k
                    JOIN information_schema.table_constraints p ON p.constraint_name = k.constraint_name
                        AND p.table_name = k.table_name AND p.constraint_type = 'PRIMARY KEY'
                    WHERE k.table_name = c.table_name AND k.column_name = c.column_name), 0)::bigint
            FROM information_schema.columns c WHERE c.table_schema = 'public'";
        /// Index, table, whether it is unique, its columns and condition as they were written.
        INDEXES = "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
            | "SELECT i.indexname::text, i.tablename::text, i.indexdef::text FROM pg_indexes i
            WHERE i.schemaname = 'public'
                AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conname = i.indexname)";
    }

    pub(super) fn columns() -> &'static super::Statement {
        &COLUMNS
    }

    pub(super) fn indexes() -> &'static super::Statement {
        &INDEXES
    }
}

/// The full text is each engine's own: a virtual table and those in which it keeps itself, or a table with an index of
/// another kind.
const FULL_TEXT: &[&str] = &[
    "search",
    "search_data",
    "search_idx",
    "search_docsize",
    "search_config",
    "search_of_gaps",
    "search_of_gaps_data",
    "search_of_gaps_idx",
    "search_of_gaps_docsize",
    "search_of_gaps_config",
];

#[tokio::test]
async fn the_schemas_of_both_engines_are_the_same() {
    let mut schemas = Vec::new();
    for database in testing::databases().await {
        let mut conn = database.db().read().await.unwrap();
        let mut schema = BTreeSet::new();
        for row in conn.list(schema::columns(), args![]).await.unwrap() {
            let (table, column): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            if FULL_TEXT.contains(&table.as_str()) {
                continue;
            }
            let (kind, nullable, key): (String, bool, i64) =
                (row.get(2).unwrap(), row.get(3).unwrap(), row.get(4).unwrap());
            let kind = match kind.as_str() {
                "integer" | "bigint" => "a 64-bit integer",
                "blob" | "bytea" => "bytes",
                "text" => "text",
                "boolean" => "boolean",
                other => panic!("{table}.{column} is a {other}: is it the same in both engines?"),
            };
            schema.insert(format!("{table}.{column}: {kind}, nullable {nullable}, key {key}"));
        }
        for row in conn.list(schema::indexes(), args![]).await.unwrap() {
            let (index, table, sql): (String, String, String) =
                (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
            if !FULL_TEXT.contains(&table.as_str()) {
                schema.insert(format!("{index} on {table}: {}", index_definition(&sql)));
            }
        }
        drop(conn);
        assert!(schema.len() > 100, "{:?} shows only {schema:?}", database.db().engine());
        schemas.push((database.db().engine(), schema));
        database.close().await;
    }
    let Some((Engine::Postgres, postgres)) = schemas.get(1) else { return };
    let sqlite = &schemas[0].1;
    assert_eq!(sqlite.difference(postgres).collect::<Vec<_>>(), Vec::<&String>::new(), "only SQLite has these");
    assert_eq!(postgres.difference(sqlite).collect::<Vec<_>>(), Vec::<&String>::new(), "only PostgreSQL has these");
}

/// `unique (a, b) where c`, without what an engine adds when it writes a definition out.
fn index_definition(sql: &str) -> String {
    let sql = sql.to_lowercase().replace(" using btree", "").replace("::text", "").replace("::bigint", "");
    let unique = if sql.starts_with("create unique") { "unique" } else { "plain" };
    let columns = sql.split_once('(').map_or("", |(_, columns)| columns);
    format!("{unique} {}", columns.replace(['(', ')', '"'], ""))
}
