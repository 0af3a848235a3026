-- Backups of the keys of encrypted rooms, of which the newest is in use. `etag` is another one whenever a session of it
-- is another; `sessions` and `bytes` say what there is in key_backup_sessions. Of one that is deleted the row stays
-- until its sessions are gone.
CREATE TABLE key_backups (
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data TEXT NOT NULL,
    etag TEXT NOT NULL,
    sessions BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    deleted BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, version)
);
CREATE INDEX key_backups_deleted ON key_backups (user_id, version) WHERE deleted;

-- No version is given out twice, also where the newest one is deleted: a client would take the new backup for its own.
CREATE TABLE key_backup_counters (
    user_id TEXT PRIMARY KEY,
    last_version BIGINT NOT NULL
);

-- The key of one Megolm session, encrypted by the client. What stands beside it says which of two keys is the better.
CREATE TABLE key_backup_sessions (
    user_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    room_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    first_message_index BIGINT NOT NULL,
    forwarded_count BIGINT NOT NULL,
    is_verified BOOLEAN NOT NULL,
    session_data TEXT NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
);

-- The device that takes messages for a user who is logged in nowhere: one row of `devices`, without tokens.
CREATE TABLE dehydrated_devices (
    user_id TEXT PRIMARY KEY,
    device_id TEXT NOT NULL,
    device_data TEXT NOT NULL
);
