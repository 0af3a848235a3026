-- What a registration asks for, kept until every stage is completed, the password hashed; then how it ended, so that the
-- same request can be answered again. `token_hash`: the access token that it answered with, until that is used.
ALTER TABLE uia_sessions ADD COLUMN request TEXT;
ALTER TABLE uia_sessions ADD COLUMN outcome TEXT;
ALTER TABLE uia_sessions ADD COLUMN token_hash BYTEA;
CREATE INDEX uia_sessions_by_token ON uia_sessions (token_hash) WHERE token_hash IS NOT NULL;
