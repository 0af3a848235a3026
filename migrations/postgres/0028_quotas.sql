-- What each user has of account data: pieces that are there, pieces that are deleted and remembered as such, and the
-- bytes of the former, types included. The fully read markers are left out: there is one for each room.
CREATE TABLE account_data_usage (
    user_id TEXT PRIMARY KEY,
    pieces BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    bytes BIGINT NOT NULL
);
INSERT INTO account_data_usage (user_id, pieces, deleted, bytes)
    SELECT user_id,
        SUM(CASE WHEN content = '{}' THEN 0 ELSE 1 END),
        SUM(CASE WHEN content = '{}' THEN 1 ELSE 0 END),
        SUM(CASE WHEN content = '{}' THEN 0 ELSE octet_length(content) + octet_length(type) END)
    FROM account_data WHERE type <> 'm.fully_read' GROUP BY user_id;
CREATE INDEX account_data_deleted ON account_data (user_id, position) WHERE content = '{}';

-- The rooms that users have made within a day.
CREATE TABLE rooms_made (
    user_id TEXT NOT NULL,
    made_ts BIGINT NOT NULL,
    room_id TEXT NOT NULL,
    PRIMARY KEY (user_id, made_ts, room_id)
);

-- By these what somebody has is counted, or its oldest is found.
ALTER TABLE filters ADD COLUMN stored_ts BIGINT NOT NULL DEFAULT 0;
CREATE INDEX filters_by_age ON filters (user_id, stored_ts);
CREATE INDEX aliases_by_creator ON aliases (creator);
CREATE INDEX reports_by_reporter ON reports (reporter, received_ts);
CREATE INDEX login_tokens_by_user ON login_tokens (user_id, expires_ts);
CREATE INDEX uia_sessions_by_user ON uia_sessions (user_id, created_ts) WHERE user_id IS NOT NULL;
