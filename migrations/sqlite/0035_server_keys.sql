-- Keys of other servers, each with the newest document in which its server has said so, which notaries hand on. A key stays
-- for as long as there may be events that it has signed. `valid_until_ts` is never later than a week after it was fetched;
-- of a key that has expired it is when it did.
CREATE TABLE server_keys (
    server_name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    expired BOOLEAN NOT NULL,
    valid_until_ts BIGINT NOT NULL,
    fetched_ts BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (server_name, key_id)
) WITHOUT ROWID;
