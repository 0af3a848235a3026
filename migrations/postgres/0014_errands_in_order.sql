-- In the order in which errands are done: of a notice to everybody, all have the same time.
DROP INDEX errands_by_time;
CREATE INDEX errands_by_time ON errands (kind, created_ts, errand_id, user_id);
