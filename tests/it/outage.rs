//! A PostgreSQL that answers, and does not do what is asked: it only reads, takes no connection, has limits of its own, or
//! somebody keeps a lock. Whatever it is, clients are told to come again, and all goes on when it is over.

use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::world::{Client, World, escape, new_postgres_database};

/// Within so long load balancers are told, on a slow machine.
const NOTICED: Duration = Duration::from_secs(20);

/// A server, somebody in a room there, and the database's operator.
struct Outage {
    world: World,
    alice: Client,
    room: String,
    operator: PgConnection,
    database: String,
}

impl Outage {
    /// None without a PostgreSQL. The server connects as a user that the operator can put limits to.
    async fn prepare() -> Option<Self> {
        let Some(url) = new_postgres_database().await else {
            eprintln!("skipped: ./test starts a PostgreSQL for this");
            return None;
        };
        let database = url.split_once("/it_").unwrap().1.split('?').next().unwrap();
        let database = format!("it_{database}");
        let mut operator = PgConnection::connect(&url).await.unwrap();
        let role = format!("CREATE ROLE {database} LOGIN; ALTER DATABASE {database} OWNER TO {database}");
        operator.execute(sqlx::raw_sql(AssertSqlSafe(role))).await.unwrap();
        let url = url.replace("postgres://postgres@", &format!("postgres://{database}@"));
        let world = World::on_database(&url).await;
        let alice = world.user("alice").await;
        let room = alice.create_room(json!({})).await;
        let outage = Self { world, alice, room, operator, database };
        assert_eq!(outage.say("before").await, 200);
        Some(outage)
    }

    async fn operate(&mut self, sql: &str) {
        let sql = sql.replace("NAME", &self.database);
        self.operator.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    /// Ends all connections of the server, so that what the operator has set holds for those that come.
    async fn disconnect(&mut self) {
        self.operate("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'NAME'").await;
    }

    /// The text is the transaction id, too.
    async fn say(&self, text: &str) -> u16 {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{text}", escape(&self.room));
        let reply = self.alice.put(&path, json!({ "msgtype": "m.text", "body": text })).await;
        if reply.status != 200 {
            reply.refused(503, "M_UNKNOWN");
            assert!(reply.headers.contains_key("retry-after"));
        }
        reply.status
    }

    /// Nobody writes, and load balancers are told.
    async fn is_out(&self) {
        for _ in 0..2 {
            assert_eq!(self.say("lost").await, 503);
        }
        self.world.until_ready_says(0, 503, NOTICED).await;
        assert_eq!(self.say("lost").await, 503);
    }

    async fn is_over(&self) {
        self.world.until_ready_says(0, 200, NOTICED).await;
        // Connections that were ended are found out one by one.
        let written = tokio::time::timeout(NOTICED, async { while self.say("after").await != 200 {} });
        assert!(written.await.is_ok());
        let page = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=10", escape(&self.room));
        let page = self.alice.get(&page).await.ok();
        let bodies = page["chunk"].as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str());
        assert_eq!(bodies.collect::<Vec<_>>(), ["after", "before"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_only_reads() {
    let Some(mut outage) = Outage::prepare().await else { return };
    outage.operate("ALTER ROLE NAME SET default_transaction_read_only = on").await;
    outage.disconnect().await;
    outage.is_out().await;
    outage.operate("ALTER ROLE NAME RESET default_transaction_read_only").await;
    outage.disconnect().await;
    outage.is_over().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_no_connection() {
    let Some(mut outage) = Outage::prepare().await else { return };
    outage.operate("ALTER ROLE NAME CONNECTION LIMIT 0").await;
    outage.disconnect().await;
    outage.is_out().await;
    outage.operate("ALTER ROLE NAME CONNECTION LIMIT -1").await;
    outage.is_over().await;
}

/// As a node would that is stopped with the lock, if its transaction were not ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_keeps_the_lock_of_the_log() {
    let Some(mut outage) = Outage::prepare().await else { return };
    outage.operate("SELECT pg_advisory_lock(4720319)").await;
    outage.is_out().await;
    let joined = format!("/_matrix/client/v3/rooms/{}/joined_members", escape(&outage.room));
    outage.alice.get(&joined).await.ok();
    outage.operate("SELECT pg_advisory_unlock(4720319)").await;
    outage.is_over().await;
}

/// Of the operator's own, for whatever the server does not set itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gives_statements_little_time() {
    let Some(mut outage) = Outage::prepare().await else { return };
    outage.operate("ALTER ROLE NAME SET statement_timeout = '400ms'").await;
    outage.operate("ALTER ROLE NAME SET idle_session_timeout = '100ms'").await;
    outage.disconnect().await;
    outage.operate("SELECT pg_advisory_lock(4720319)").await;
    outage.is_out().await;
    outage.operate("SELECT pg_advisory_unlock(4720319)").await;
    outage.operate("ALTER ROLE NAME RESET ALL").await;
    outage.disconnect().await;
    outage.is_over().await;
}
