-- Every change of a user's devices and keys, by its place in the log. Other servers follow a user by these places: they
-- are the stream ids of updates. The device is NULL where it is the user's cross-signing keys that have changed. Somebody
-- is in seen_by where only they are shown what has changed, which is then no update for other servers.
CREATE TABLE device_list_changes (
    position INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT,
    seen_by TEXT
);
CREATE INDEX device_list_changes_by_user ON device_list_changes (user_id, position);
