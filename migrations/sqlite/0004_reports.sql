-- What users have told the moderators of: a room, an event in one, or a user.
CREATE TABLE reports (
    report_id TEXT PRIMARY KEY,
    reporter TEXT NOT NULL,
    room_id TEXT,
    event_id TEXT,
    user_id TEXT,
    reason TEXT NOT NULL,
    received_ts BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX reports_by_time ON reports (received_ts);
