-- What waits for devices, in the order of the log: a place of the log holds one message for a device at most. `total` is
-- the sum of the sizes of what has come since nothing waited, this message included. By it a page is cut, and what waits
-- is known, without reading the messages: the two stand before what is long.
CREATE TABLE to_device_messages (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    size BIGINT NOT NULL,
    total BIGINT NOT NULL,
    sender TEXT NOT NULL,
    type TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, position)
);

-- Requests by which devices have sent messages, for as long as a client may repeat one. `request` is a hash of the type
-- and the transaction id.
CREATE TABLE to_device_requests (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    request TEXT NOT NULL,
    sent_ts BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, request)
) WITHOUT ROWID;
CREATE INDEX to_device_requests_by_age ON to_device_requests (sent_ts);

-- What waits for devices of other servers. Empty until there is federation.
CREATE TABLE to_device_outbox (
    server_name TEXT NOT NULL,
    position BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    type TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (server_name, position, user_id, device_id)
);
