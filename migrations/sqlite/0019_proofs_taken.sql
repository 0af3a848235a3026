-- When a proof was used, so that whoever sends the same request again is told that it is done.
ALTER TABLE threepid_sessions ADD COLUMN taken_ts BIGINT;
