-- Addresses outside of Matrix that users have proved to be theirs. Each belongs to one account.
CREATE TABLE threepids (
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    user_id TEXT NOT NULL,
    validated_ts BIGINT NOT NULL,
    added_ts BIGINT NOT NULL,
    PRIMARY KEY (medium, address)
);
CREATE INDEX threepids_by_user ON threepids (user_id);

-- Where users have published their addresses: identity servers, which can be asked to forget them.
CREATE TABLE threepid_bindings (
    user_id TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    id_server TEXT NOT NULL,
    PRIMARY KEY (user_id, medium, address, id_server)
);

-- Addresses that somebody is proving to be theirs, each for one operation. The client's secret and the token that is
-- mailed are kept as SHA-256 hashes. `send_attempt` is -1 until a mail has gone out.
CREATE TABLE threepid_sessions (
    sid TEXT PRIMARY KEY,
    operation TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    secret_hash BYTEA NOT NULL,
    send_attempt BIGINT NOT NULL,
    sending_until_ts BIGINT NOT NULL,
    token_hash BYTEA,
    failures BIGINT NOT NULL,
    next_link TEXT,
    validated_ts BIGINT,
    changed_ts BIGINT NOT NULL
);
CREATE UNIQUE INDEX threepid_sessions_by_client ON threepid_sessions (operation, medium, address, secret_hash);
CREATE INDEX threepid_sessions_by_change ON threepid_sessions (changed_ts);

-- What was sent to whom lately, so that nobody's mailbox is flooded.
CREATE TABLE threepid_mails (
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    sent_ts BIGINT NOT NULL
);
CREATE INDEX threepid_mails_by_address ON threepid_mails (medium, address, sent_ts);
CREATE INDEX threepid_mails_by_time ON threepid_mails (sent_ts);
