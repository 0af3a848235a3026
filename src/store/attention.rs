//! `highlights`, and what of a room's history asks for a user's attention: the counts that `/sync` shows as unread.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use ruma::{OwnedEventId, OwnedUserId, RoomId, UserId};

use crate::{
    db::{Column, ColumnType, Conn, DbResult, Insert, Row, Tx, args, statements},
    ground::position::{Lineage, Order, Position},
};

statements! {
    HIGHLIGHTS_BETWEEN = "SELECT position, user_id FROM highlights WHERE position >= $1 AND position <= $2";
    /// The event of a room, up to $2, that $3 come after, of those that came through the log.
    NTH_NEWEST = "SELECT position FROM events
        WHERE room_id = $1 AND room_order <= $2 AND room_order > 0 AND room_order % 1048576 < 1
        ORDER BY room_order DESC LIMIT 1 OFFSET $3";
    /// How far $2 has read each thread of a room, by a receipt or by what they have said there ($6: what does not
    /// count as that), and what asks for their attention beyond: in threads after $3, in the main timeline after $4,
    /// both up to $5. What those say whom they ignore ($7) does not, unless it became state of the room ($8: its trunk).
    /// Counted here, because whoever never reads would have all of it carried over.
    COUNT_ATTENTION = "WITH said AS (
            SELECT e.room_order AS place, '' AS thread, e.notifies AND e.sender <> $2 AS notifies,
                h.position IS NOT NULL AND e.sender <> $2 AS highlights, e.sender = $2 AND NOT (e.position IN LIST($6)) AS speaks
            FROM events e LEFT JOIN highlights h ON h.user_id IN ($2, '') AND h.room_id = $1 AND h.position = e.position
            WHERE e.room_id = $1 AND e.room_order > $4 AND e.room_order <= $5 AND e.standing = 0
                AND e.thread_root IS NULL AND (e.notifies OR e.sender = $2 OR h.position IS NOT NULL)
                AND (NOT (e.sender IN LIST($7)) OR EXISTS (SELECT 1 FROM state_versions v
                    WHERE v.lineage = $8 AND v.from_order = e.room_order AND v.event_position = e.position))
            UNION ALL SELECT e.room_order, e.thread_root, e.notifies AND e.sender <> $2,
                h.position IS NOT NULL AND e.sender <> $2, e.sender = $2 AND NOT (e.position IN LIST($6))
            FROM events e LEFT JOIN highlights h ON h.user_id IN ($2, '') AND h.room_id = $1 AND h.position = e.position
            WHERE e.room_id = $1 AND e.room_order > $3 AND e.room_order <= $5 AND e.standing = 0
                AND e.thread_root IS NOT NULL AND (e.notifies OR e.sender = $2 OR h.position IS NOT NULL)
                AND (NOT (e.sender IN LIST($7)) OR EXISTS (SELECT 1 FROM state_versions v
                    WHERE v.lineage = $8 AND v.from_order = e.room_order AND v.event_position = e.position))),
        heard AS (
            SELECT thread, max(place) AS until FROM (
                SELECT thread, place FROM said WHERE speaks
                UNION ALL SELECT CASE thread_id WHEN 'main' THEN '' ELSE thread_id END, event_order FROM receipts
                    WHERE room_id = $1 AND user_id = $2 AND thread_id <> '') AS places
            GROUP BY thread)
        SELECT thread, until, 0, 0, 0 FROM heard
        UNION ALL SELECT s.thread, 0, count(*), sum(CASE WHEN s.highlights THEN 1 ELSE 0 END), max(s.place)
            FROM said s LEFT JOIN heard r ON r.thread = s.thread
            WHERE (s.notifies OR s.highlights) AND s.place > coalesce(r.until, 0) GROUP BY s.thread";
}

/// One row for each user whom an event highlights; with no user for all who are in the room.
static INSERT_HIGHLIGHTS: Insert = Insert::new(
    "INSERT_HIGHLIGHTS",
    "highlights",
    &[("user_id", ColumnType::Text), ("room_id", ColumnType::Text), ("position", ColumnType::Int)],
    "ON CONFLICT DO NOTHING",
);

#[cfg(test)]
pub(crate) static INSERTS: &[&Insert] = &[&INSERT_HIGHLIGHTS];

/// Notes whom events highlight: one user each, or everybody in the room.
pub(crate) async fn insert_highlights(
    tx: &mut Tx,
    highlights: &[(Position, &RoomId, Option<&UserId>)],
) -> DbResult<()> {
    let columns = [
        Column::texts(highlights.iter().map(|(_, _, user)| user.map_or("", UserId::as_str))),
        Column::texts(highlights.iter().map(|(_, room, _)| room.as_str())),
        Column::ints(highlights.iter().map(|(at, ..)| at.0)),
    ];
    tx.insert(&INSERT_HIGHLIGHTS, &columns).await
}

/// Who is highlighted by which event of a stretch of the log. None is everybody.
pub(crate) async fn highlights_between(
    conn: &mut Conn,
    first: Position,
    last: Position,
) -> DbResult<Vec<(Position, Option<OwnedUserId>)>> {
    let rows = conn.list(&HIGHLIGHTS_BETWEEN, args![first.0, last.0]).await?;
    let user = |row: &Row| if row.get::<String>(1)?.is_empty() { Ok(None) } else { row.get(1).map(Some) };
    rows.iter().map(|row| Ok((Position(row.get(0)?), user(row)?))).collect()
}

/// What is known of one thread: how far a user has read it, or what is unread there.
#[derive(Clone, Debug)]
pub(crate) struct UnreadRow {
    /// None for the main timeline.
    pub(crate) thread_root: Option<OwnedEventId>,
    pub(crate) read: Position,
    pub(crate) notifications: u64,
    pub(crate) highlights: u64,
    /// The newest event that was counted.
    pub(crate) last: Position,
}

/// The part of a room's history in which something may be unread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnreadRange {
    pub(crate) threads_after: Position,
    pub(crate) main_after: Position,
    pub(crate) until: Position,
}

/// Where the event of a room is that has `newer` events after it, up to `until`.
pub(crate) async fn nth_newest(
    conn: &mut Conn,
    room_id: &RoomId,
    until: Position,
    newer: i64,
) -> DbResult<Option<Position>> {
    let row = conn.find(&NTH_NEWEST, args![room_id, Order::at(until).0, newer]).await?;
    row.map(|row| Ok(Position(row.get(0)?))).transpose()
}

/// What a user has read and what is unread for them in a stretch of a room with this trunk. What they did at the places
/// of `silent` does not show that they have read; what those say whom they ignore asks for nothing. What they have read
/// of a thread comes before what they have not.
pub(crate) async fn count(
    conn: &mut Conn,
    (room_id, trunk, stretch): (&RoomId, Lineage, &UnreadRange),
    user_id: &UserId,
    silent: &[i64],
    ignored: &[&str],
) -> DbResult<Vec<UnreadRow>> {
    let UnreadRange { threads_after, main_after, until } = *stretch;
    let [threads_after, main_after, until] = [threads_after, main_after, until].map(|at| Order::at(at).0);
    let args = args![room_id, user_id, threads_after, main_after, until, silent, ignored, trunk.0];
    let rows = conn.list(&COUNT_ATTENTION, args).await?;
    let attention = rows.iter().map(|row| {
        let thread: String = row.get(0)?;
        let count = |column| row.get::<i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
        Ok(UnreadRow {
            thread_root: if thread.is_empty() { None } else { Some(row.get(0)?) },
            read: Order(row.get(1)?).floor(),
            notifications: count(2)?,
            highlights: count(3)?,
            last: Order(row.get(4)?).floor(),
        })
    });
    attention.collect()
}
