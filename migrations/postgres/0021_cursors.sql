-- How far each reader of the log that keeps tables of its own has come, and the lease in whose name it last moved.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    position BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);
-- `search_progress` stays for nodes of the release before, which run beside newer ones during an upgrade.
INSERT INTO cursors (name, position, epoch) SELECT 'search', MAX(position), 0 FROM search_progress;
-- Until now a batch has seen to the user directory itself.
INSERT INTO cursors (name, position, epoch) SELECT 'user directory', COALESCE(MAX(last_position), 0), 0 FROM batches;
