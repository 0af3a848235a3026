-- Rooms of other servers that a user of this one is about to come into: under which line their state is being written,
-- before there is a room. What a process leaves that has died meanwhile is found by these rows.
CREATE TABLE room_entries (
    room_id TEXT NOT NULL PRIMARY KEY,
    trunk BIGINT NOT NULL,
    touched_ts BIGINT NOT NULL
) WITHOUT ROWID;
