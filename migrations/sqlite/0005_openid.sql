-- What proves to others who somebody is. Tokens are kept as SHA-256 hashes.
CREATE TABLE openid_tokens (
    token_hash BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    expires_ts BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX openid_tokens_by_user ON openid_tokens (user_id);
