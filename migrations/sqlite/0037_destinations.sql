-- Other servers that something was sent to, or is to be. `owed_from` is the place in the log from which on something may
-- be that the server has not got: NULL where everything up to the cursor of its bucket has been delivered. `failures` are
-- those in a row, the last one at `failed_at`, for `reason`; nothing is tried before `retry_at`. `heard_at` is when
-- something that came from there last ended the waiting.
CREATE TABLE destinations (
    server_name TEXT PRIMARY KEY,
    bucket BIGINT NOT NULL,
    owed_from BIGINT,
    failures BIGINT NOT NULL,
    failed_at BIGINT,
    retry_at BIGINT NOT NULL,
    heard_at BIGINT NOT NULL,
    succeeded_at BIGINT,
    reason TEXT
) WITHOUT ROWID;
CREATE INDEX destinations_owed ON destinations (bucket, retry_at) WHERE owed_from IS NOT NULL;

-- Events that a server is owed one by one, because it is no longer in their rooms: those by which its last user was taken
-- out. Whatever else it is owed follows from the rooms that it is in.
CREATE TABLE destination_events (
    server_name TEXT NOT NULL,
    position BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    PRIMARY KEY (server_name, position)
) WITHOUT ROWID;

-- The place in the log of a room's newest event that other servers get from this one. Until now there was none.
ALTER TABLE rooms ADD COLUMN sent_position BIGINT NOT NULL DEFAULT 0;

-- Destinations are dealt with in 16 buckets. Until now nothing was sent, so they begin at the end of the log.
INSERT INTO cursors (name, position, epoch)
SELECT 'federation ' || b.number, (SELECT COALESCE(MAX(last_position), 0) FROM batches), 0
FROM (
    SELECT 0 AS number UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5
    UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10
    UNION ALL SELECT 11 UNION ALL SELECT 12 UNION ALL SELECT 13 UNION ALL SELECT 14 UNION ALL SELECT 15
) b;
