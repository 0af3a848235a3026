-- Whose words are redacted for whoever joins a room later, and the place in the log from which on that is so.
CREATE TABLE erasures (
    user_id TEXT PRIMARY KEY,
    position BIGINT NOT NULL
);
CREATE INDEX erasures_by_position ON erasures (position);
-- Those who asked for it of an older version.
INSERT INTO erasures (user_id, position)
SELECT user_id, (SELECT coalesce(max(last_position), 0) FROM batches) FROM accounts WHERE erased;

-- Few are, and those are looked for of whom the log does not know yet.
CREATE INDEX erased_accounts ON accounts (user_id) WHERE erased;
