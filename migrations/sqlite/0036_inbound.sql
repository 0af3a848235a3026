-- What other servers have sent and is not taken in yet. A row is written before its transaction is acknowledged, and goes
-- once its event stands in its room or will never do. `number` orders what came in time; `due_ts` is when it is tried next.
-- An event has a row for each server that has sent it, because a copy may be bad.
CREATE TABLE inbound_pdus (
    origin TEXT NOT NULL,
    event_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    json TEXT NOT NULL,
    due_ts BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    PRIMARY KEY (origin, event_id)
);
CREATE INDEX inbound_pdus_by_room ON inbound_pdus (room_id, number);

-- The rooms of those, and which node takes them in at present: nobody where `node_id` is empty.
CREATE TABLE inbound_rooms (
    room_id TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL,
    until_ts BIGINT NOT NULL,
    due_ts BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX inbound_rooms_by_due ON inbound_rooms (due_ts);

-- The transactions that were acknowledged lately, each with its answer, for servers that send one again.
CREATE TABLE inbound_transactions (
    origin TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    answer TEXT NOT NULL,
    received_ts BIGINT NOT NULL,
    PRIMARY KEY (origin, transaction_id)
) WITHOUT ROWID;
CREATE INDEX inbound_transactions_by_time ON inbound_transactions (received_ts);
