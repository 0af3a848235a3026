-- How late it was in a room by its accepted events: the greatest of their timestamps so far.
ALTER TABLE rooms ADD COLUMN newest_ts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN newest_ts BIGINT;
-- The timestamp of an accepted event that did not make it later. All others stand in the order of their timestamps
-- and are found by halving, so that most events cost no place in an index.
ALTER TABLE events ADD COLUMN late_ts BIGINT;

-- Of the events that are there already.
UPDATE events SET newest_ts = told.newest_ts, late_ts = told.late_ts
FROM (
    SELECT position, MAX(before, CASE WHEN standing = 0 THEN ts ELSE 0 END) AS newest_ts,
        CASE WHEN standing = 0 AND ts <= before THEN ts END AS late_ts
    FROM (
        SELECT position, standing, ts, COALESCE(MAX(CASE WHEN standing = 0 THEN ts END) OVER (
            PARTITION BY room_id ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
        FROM (SELECT position, room_id, standing, json ->> '$.origin_server_ts' AS ts FROM events)
    )
) told WHERE told.position = events.position;
UPDATE rooms SET newest_ts = COALESCE((SELECT e.newest_ts FROM events e
    WHERE e.room_id = rooms.room_id ORDER BY e.position DESC LIMIT 1), 0);
CREATE INDEX late_events ON events (room_id, late_ts, position) WHERE late_ts IS NOT NULL;
