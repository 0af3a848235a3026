-- The nodes that run on this database. `knows` lists the others that each has seen.
CREATE TABLE nodes (
    node_id TEXT PRIMARY KEY,
    address TEXT,
    hears_redis BOOLEAN NOT NULL,
    knows TEXT NOT NULL,
    beat_ts BIGINT NOT NULL
);

-- Who does which duty, until when. The epoch counts the holders.
CREATE TABLE leases (
    duty TEXT PRIMARY KEY,
    node_id TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL
);

-- The node that speaks for somebody's presence: when it is gone, so are they.
ALTER TABLE presence ADD COLUMN node_id TEXT NOT NULL DEFAULT '';

-- For nodes that read what another has written.
CREATE INDEX highlights_by_position ON highlights (position);

-- Each event rewrites its room's row. With room to spare on its page that touches no index, and old versions go at once.
ALTER TABLE rooms SET (fillfactor = 50);
