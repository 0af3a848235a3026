//! `nodes` and `leases`: who runs on this database, and who does which duty. All times are the database's.
//!
//! Every statement takes the time from the database itself, so that no node's clock can prolong a lease or make another
//! look dead. Rows are removed by whoever notices: the node itself when it leaves, any other after a while.

use crate::{
    db::{Conn, DbResult, args, statements},
    event::fact::NodeId,
    ground::position::Position,
};

// `knows` is a JSON array of the nodes that a node has seen, by which another learns that it was noticed.
statements! {
    NOW = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)"
        | "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    ENTER = "INSERT INTO nodes (node_id, address, hears_redis, reached, knows, beat_ts)
            VALUES ($1, $2, $3, $4, '[]', CAST(unixepoch('subsec') * 1000 AS INTEGER))"
        | "INSERT INTO nodes (node_id, address, hears_redis, reached, knows, beat_ts)
            VALUES ($1, $2, $3, $4, '[]', (extract(epoch FROM clock_timestamp()) * 1000)::bigint)";
    BEAT = "UPDATE nodes SET hears_redis = $2, knows = $3, reached = $4,
            beat_ts = CAST(unixepoch('subsec') * 1000 AS INTEGER) WHERE node_id = $1"
        | "UPDATE nodes SET hears_redis = $2, knows = $3, reached = $4,
            beat_ts = (extract(epoch FROM clock_timestamp()) * 1000)::bigint WHERE node_id = $1";
    LIST_NODES = "SELECT node_id, address, hears_redis, knows,
            CAST(unixepoch('subsec') * 1000 AS INTEGER) - beat_ts FROM nodes ORDER BY node_id"
        | "SELECT node_id, address, hears_redis, knows,
            (extract(epoch FROM clock_timestamp()) * 1000)::bigint - beat_ts FROM nodes ORDER BY node_id";
    BURY = "DELETE FROM nodes WHERE beat_ts < CAST(unixepoch('subsec') * 1000 AS INTEGER) - $1"
        | "DELETE FROM nodes WHERE beat_ts < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1";
    LEAVE = "DELETE FROM nodes WHERE node_id = $1";
    /// Renewing keeps the epoch, taking over raises it. Nothing is returned where another node holds the lease.
    TAKE_LEASE = "INSERT INTO leases (duty, node_id, epoch, expires_ts)
            VALUES ($1, $2, 1, CAST(unixepoch('subsec') * 1000 AS INTEGER) + $3)
            ON CONFLICT (duty) DO UPDATE SET node_id = excluded.node_id, expires_ts = excluded.expires_ts,
                epoch = leases.epoch + CASE WHEN leases.node_id = excluded.node_id THEN 0 ELSE 1 END
            WHERE leases.node_id = excluded.node_id
                OR leases.expires_ts <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
            RETURNING epoch"
        | "INSERT INTO leases (duty, node_id, epoch, expires_ts)
            VALUES ($1, $2, 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3)
            ON CONFLICT (duty) DO UPDATE SET node_id = excluded.node_id, expires_ts = excluded.expires_ts,
                epoch = leases.epoch + CASE WHEN leases.node_id = excluded.node_id THEN 0 ELSE 1 END
            WHERE leases.node_id = excluded.node_id
                OR leases.expires_ts <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
            RETURNING epoch";
    RELEASE_LEASE = "UPDATE leases SET expires_ts = 0 WHERE duty = $1 AND node_id = $2";
    RELEASE_LEASES = "UPDATE leases SET expires_ts = 0 WHERE node_id = $1";
}

/// A node as its row has it.
#[derive(Clone, Debug)]
pub(crate) struct NodeRow {
    pub(crate) id: NodeId,
    /// Where the other nodes reach it.
    pub(crate) address: Option<String>,
    /// Whether it is connected to Redis, as of its last beat.
    pub(crate) hears_redis: bool,
    /// The nodes that it had seen at its last beat.
    pub(crate) knows: Vec<NodeId>,
    /// How long ago that was, in milliseconds.
    pub(crate) silent: i64,
}

/// The database's time in milliseconds since the Unix epoch.
pub(crate) async fn now(conn: &mut Conn) -> DbResult<i64> {
    conn.find(&NOW, args![]).await?.map_or(Ok(0), |row| row.get(0))
}

/// Writes a node's row. `reached`: how far it has read the log.
pub(crate) async fn enter(
    conn: &mut Conn,
    id: &NodeId,
    address: Option<&str>,
    hears_redis: bool,
    reached: Position,
) -> DbResult<()> {
    conn.execute(&ENTER, args![id.as_str(), address, hears_redis, reached.0]).await.map(drop)
}

/// A sign of life, with how far the node has read the log. False if it has been silent for so long that its row is
/// gone.
pub(crate) async fn beat(
    conn: &mut Conn,
    id: &NodeId,
    hears_redis: bool,
    knows: &[NodeId],
    reached: Position,
) -> DbResult<bool> {
    let knows = serde_json::json!(knows).to_string();
    Ok(conn.execute(&BEAT, args![id.as_str(), hears_redis, &knows, reached.0]).await? == 1)
}

/// Every node that has a row, the silent ones included.
pub(crate) async fn list(conn: &mut Conn) -> DbResult<Vec<NodeRow>> {
    let rows = conn.list(&LIST_NODES, args![]).await?;
    rows.iter()
        .map(|row| {
            Ok(NodeRow {
                id: NodeId::from(row.get::<String>(0)?),
                address: row.get(1)?,
                hears_redis: row.get(2)?,
                knows: row.json(3)?,
                silent: row.get(4)?,
            })
        })
        .collect()
}

/// Removes the nodes that have been silent for so many milliseconds.
pub(crate) async fn delete_dead(conn: &mut Conn, silent: i64) -> DbResult<()> {
    conn.execute(&BURY, args![silent]).await.map(drop)
}

/// The node is gone, and what it did is free for others. Its leases have run out at once, so that nobody waits for
/// them.
pub(crate) async fn leave(conn: &mut Conn, id: &NodeId) -> DbResult<()> {
    conn.execute(&RELEASE_LEASES, args![id.as_str()]).await?;
    conn.execute(&LEAVE, args![id.as_str()]).await.map(drop)
}

/// Takes a duty for so many milliseconds, or goes on having it, and returns its epoch. None if another has it.
pub(crate) async fn take_lease(conn: &mut Conn, duty: &str, id: &NodeId, millis: i64) -> DbResult<Option<i64>> {
    conn.find(&TAKE_LEASE, args![duty, id.as_str(), millis]).await?.map(|row| row.get(0)).transpose()
}

/// Ends a node's lease at once, so that another need not wait for it to run out. Its epoch stays until it is taken
/// over.
pub(crate) async fn release_lease(conn: &mut Conn, duty: &str, id: &NodeId) -> DbResult<()> {
    conn.execute(&RELEASE_LEASE, args![duty, id.as_str()]).await.map(drop)
}
