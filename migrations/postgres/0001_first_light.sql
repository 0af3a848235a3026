-- The log: one row a batch, positions dense and ascending. `entries` tells readers what was touched.
CREATE TABLE batches (
    last_position BIGINT PRIMARY KEY,
    first_position BIGINT NOT NULL,
    batch_id TEXT NOT NULL UNIQUE,
    entries TEXT NOT NULL
);

-- Events, each at its place in the log. `fork` names the state before it where that is not the trunk's.
CREATE TABLE events (
    position BIGINT PRIMARY KEY,
    event_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    standing BIGINT NOT NULL,
    fork BIGINT,
    notifies BOOLEAN NOT NULL,
    thread_root TEXT,
    device_id TEXT,
    txn_id TEXT,
    txn_hash BIGINT,
    redacted_by TEXT,
    replaces TEXT,
    json TEXT NOT NULL
);
CREATE UNIQUE INDEX events_by_id ON events (event_id);
CREATE INDEX events_by_room ON events (room_id, position);
CREATE INDEX events_by_transaction ON events (txn_hash) WHERE txn_hash IS NOT NULL;

-- A room's head: what the next event is built on. `head` counts the events appended so far.
CREATE TABLE rooms (
    room_id TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    trunk BIGINT NOT NULL,
    head BIGINT NOT NULL,
    depth BIGINT NOT NULL,
    extremities TEXT NOT NULL
);

-- Rooms shown in the public directory.
CREATE TABLE published_rooms (
    room_id TEXT PRIMARY KEY
);

-- The versioned state trunk: one row for each change of a room's resolved state. No event: the key is gone.
CREATE TABLE state_versions (
    lineage BIGINT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    from_position BIGINT NOT NULL,
    event_position BIGINT,
    PRIMARY KEY (lineage, type, state_key, from_position)
);
CREATE INDEX state_versions_by_position ON state_versions (lineage, from_position);

-- A state that is not the trunk's: the trunk at `base_position` with a few changes.
CREATE TABLE state_forks (
    fork BIGINT PRIMARY KEY,
    lineage BIGINT NOT NULL,
    base_position BIGINT NOT NULL
);
CREATE TABLE state_fork_changes (
    fork BIGINT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_position BIGINT,
    PRIMARY KEY (fork, type, state_key)
);

-- The newest membership of each user in each room, from the trunk.
CREATE TABLE memberships (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    membership TEXT NOT NULL,
    position BIGINT NOT NULL,
    forgotten BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, room_id)
);
CREATE INDEX memberships_by_room ON memberships (room_id, membership);

CREATE TABLE aliases (
    alias TEXT PRIMARY KEY,
    room_id TEXT NOT NULL,
    creator TEXT NOT NULL
);
CREATE INDEX aliases_by_room ON aliases (room_id);

CREATE TABLE highlights (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_id, position)
);

CREATE TABLE receipts (
    room_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    receipt_type TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_position BIGINT NOT NULL,
    ts BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (room_id, user_id, receipt_type, thread_id)
);
CREATE INDEX receipts_by_position ON receipts (room_id, position);

CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    content TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_by_position ON account_data (user_id, position);

CREATE TABLE typing (
    room_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    expires_ts BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (room_id, user_id)
);
-- Those who have not stopped: expires_ts is 0 for the others.
CREATE INDEX typing_under_way ON typing (expires_ts) WHERE expires_ts > 0;

CREATE TABLE presence (
    user_id TEXT PRIMARY KEY,
    presence TEXT NOT NULL,
    status_msg TEXT,
    last_active_ts BIGINT NOT NULL,
    position BIGINT NOT NULL
);
CREATE INDEX presence_by_position ON presence (position);
CREATE INDEX present_users ON presence (user_id) WHERE presence <> 'offline';

CREATE TABLE accounts (
    user_id TEXT PRIMARY KEY,
    password_hash TEXT,
    admin BOOLEAN NOT NULL,
    guest BOOLEAN NOT NULL,
    rate_limited BOOLEAN NOT NULL,
    created_ts BIGINT NOT NULL,
    deactivated_ts BIGINT,
    erased BOOLEAN NOT NULL
);

CREATE TABLE profiles (
    user_id TEXT NOT NULL,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (user_id, field)
);

CREATE TABLE devices (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    last_seen_ts BIGINT,
    last_seen_ip TEXT,
    created_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- Tokens are kept as SHA-256 hashes.
CREATE TABLE access_tokens (
    token_hash BYTEA PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    expires_ts BIGINT
);
CREATE INDEX access_tokens_by_device ON access_tokens (user_id, device_id);

CREATE TABLE refresh_tokens (
    token_hash BYTEA PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    access_token_hash BYTEA NOT NULL,
    next_hash BYTEA
);
CREATE INDEX refresh_tokens_by_device ON refresh_tokens (user_id, device_id);

CREATE TABLE login_tokens (
    token_hash BYTEA PRIMARY KEY,
    user_id TEXT NOT NULL,
    expires_ts BIGINT NOT NULL
);

CREATE TABLE registration_tokens (
    token TEXT PRIMARY KEY,
    uses_allowed BIGINT,
    completed BIGINT NOT NULL,
    expires_ts BIGINT
);

CREATE TABLE registration_nonces (
    nonce TEXT PRIMARY KEY,
    expires_ts BIGINT NOT NULL
);

-- User-interactive authentication: what a session is for and which stages it has completed.
CREATE TABLE uia_sessions (
    session_id TEXT PRIMARY KEY,
    user_id TEXT,
    operation TEXT NOT NULL,
    params TEXT NOT NULL,
    completed TEXT NOT NULL,
    created_ts BIGINT NOT NULL
);

CREATE TABLE filters (
    user_id TEXT NOT NULL,
    filter_id TEXT NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);

-- The server's own signing keys: the newest signs, the others still verify.
CREATE TABLE signing_keys (
    key_id TEXT PRIMARY KEY,
    private_key BYTEA NOT NULL,
    created_ts BIGINT NOT NULL
);
