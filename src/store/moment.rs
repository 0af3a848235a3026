//! How late it was in a room when each of its events came: what jumping to a date halves.
//!
//! `events.newest_ts` and `events.late_ts` are milliseconds since the Unix epoch. Nearly all events of a room stand in the
//! order of their timestamps, so only those that do not (`late_ts`) are in an index.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getting-an-event-for-a-given-timestamp>

use ruma::RoomId;

use crate::{
    db::{Conn, DbResult, Row, args, statements},
    event::{Pdu, Standing},
    ground::position::Order,
};

statements! {
    /// Whatever its standing. Those that an older version has written beside this one have no `newest_ts`.
    NEXT_MOMENT = "SELECT room_order, newest_ts, late_ts, standing FROM events
        WHERE room_id = $1 AND room_order > $2 AND room_order <= $3 AND newest_ts IS NOT NULL ORDER BY room_order LIMIT 1";
    LAST_MOMENT = "SELECT room_order, newest_ts, late_ts, standing FROM events
        WHERE room_id = $1 AND room_order > $2 AND room_order <= $3 AND newest_ts IS NOT NULL ORDER BY room_order DESC LIMIT 1";
    LATE_FORWARD = "SELECT room_order, late_ts FROM events
        WHERE room_id = $1 AND late_ts >= $2 AND room_order > $3 AND room_order <= $4 ORDER BY late_ts, room_order LIMIT 1";
    LATE_BACKWARD = "SELECT room_order, late_ts FROM events
        WHERE room_id = $1 AND late_ts <= $2 AND room_order > $3 AND room_order <= $4
        ORDER BY late_ts DESC, room_order DESC LIMIT 1";
}

/// How late it was in a room by its accepted events, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The greatest timestamp up to this event.
    pub(crate) newest_ts: i64,
    /// The event's own timestamp, if it is accepted and did not make it later.
    pub(crate) late_ts: Option<i64>,
}

impl Moment {
    /// What an event makes of it.
    pub(crate) fn then(newest_ts: i64, pdu: &Pdu, standing: Standing) -> Self {
        let ts = i64::from(pdu.origin_server_ts().get());
        match standing {
            Standing::Accepted if ts > newest_ts => Self { newest_ts: ts, late_ts: None },
            Standing::Accepted => Self { newest_ts, late_ts: Some(ts) },
            _ => Self { newest_ts, late_ts: None },
        }
    }
}

/// An event by its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MomentAt {
    pub(crate) order: Order,
    /// The greatest timestamp up to this event.
    pub(crate) newest_ts: i64,
    /// Whether that is its own, and it is accepted.
    pub(crate) is_newest: bool,
}

/// The first event of a room after `after` up to `until`, whatever its standing.
pub(crate) async fn next(conn: &mut Conn, room_id: &RoomId, after: Order, until: Order) -> DbResult<Option<MomentAt>> {
    // What has a moment stands above zero: history below it, which may be long, is not gone through.
    let after = after.0.max(0);
    conn.find(&NEXT_MOMENT, args![room_id, after, until.0]).await?.as_ref().map(moment_at).transpose()
}

/// The last one.
pub(crate) async fn last(conn: &mut Conn, room_id: &RoomId, after: Order, until: Order) -> DbResult<Option<MomentAt>> {
    conn.find(&LAST_MOMENT, args![room_id, after.0, until.0]).await?.as_ref().map(moment_at).transpose()
}

/// Of the accepted events of a room after `after` up to `until` that did not make it later there: the closest to `ts`,
/// with its timestamp. At `ts` or before it where `backward`, else at `ts` or after it.
pub(crate) async fn find_late(
    conn: &mut Conn,
    room_id: &RoomId,
    ts: i64,
    backward: bool,
    (after, until): (Order, Order),
) -> DbResult<Option<(i64, Order)>> {
    let statement = if backward { &LATE_BACKWARD } else { &LATE_FORWARD };
    let row = conn.find(statement, args![room_id, ts, after.0, until.0]).await?;
    row.map(|row| Ok((row.get(1)?, Order(row.get(0)?)))).transpose()
}

fn moment_at(row: &Row) -> DbResult<MomentAt> {
    let (late_ts, standing): (Option<i64>, i64) = (row.get(2)?, row.get(3)?);
    let is_newest = late_ts.is_none() && standing == Standing::Accepted as i64;
    Ok(MomentAt { order: Order(row.get(0)?), newest_ts: row.get(1)?, is_newest })
}
