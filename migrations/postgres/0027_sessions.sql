-- Which session has made a token, so that the token ends with it. One from before this column ends with whichever
-- session of its user ends first.
ALTER TABLE login_tokens ADD COLUMN device_id TEXT;
ALTER TABLE openid_tokens ADD COLUMN device_id TEXT;
