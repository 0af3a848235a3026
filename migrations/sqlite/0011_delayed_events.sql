-- Events that are sent later in somebody's name, and what has become of them. `due_ts` says when they are looked at
-- next; `sending` that a node is about to send one, and until `due_ts` nobody else does. Once it has ended, `event_id`
-- or `error` says how; neither, that it was cancelled.
CREATE TABLE delayed_events (
    delay_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    txn_id TEXT,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state_key TEXT,
    content TEXT NOT NULL,
    delay_ms BIGINT NOT NULL,
    delayed_since_ts BIGINT NOT NULL,
    due_ts BIGINT NOT NULL,
    sending BOOLEAN NOT NULL,
    finalised_ts BIGINT,
    event_id TEXT,
    error TEXT
);
CREATE INDEX delayed_events_due ON delayed_events (due_ts) WHERE finalised_ts IS NULL;
CREATE INDEX delayed_events_finalised ON delayed_events (finalised_ts) WHERE finalised_ts IS NOT NULL;
CREATE INDEX delayed_events_by_user ON delayed_events (user_id, finalised_ts);
CREATE UNIQUE INDEX delayed_events_by_transaction ON delayed_events (user_id, device_id, room_id, type, txn_id);
