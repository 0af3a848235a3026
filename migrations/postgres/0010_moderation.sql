-- What has been done to an account, since when: locked, it can only log out; suspended, it can do little but read.
ALTER TABLE accounts ADD COLUMN locked_ts BIGINT;
ALTER TABLE accounts ADD COLUMN suspended_ts BIGINT;

-- The documents that somebody accepted when they registered.
CREATE TABLE accepted_terms (
    user_id TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    version TEXT NOT NULL,
    accepted_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, policy_id, version)
);

-- What the command line leaves for a running node to do, a row for each user whom it concerns. Done, it goes.
CREATE TABLE errands (
    errand_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT,
    created_ts BIGINT NOT NULL,
    PRIMARY KEY (errand_id, user_id)
);
CREATE INDEX errands_by_time ON errands (kind, created_ts);
