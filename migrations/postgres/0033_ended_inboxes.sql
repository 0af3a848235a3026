-- Devices that have ended and whose messages and requests may still be there: those up to `until`, a place in the log, are
-- nobody's, also where there is a device of that name again. It is known once the log is locked, in the transaction that
-- ends the device. The rows go in steps, and this one with the last of them.
CREATE TABLE to_device_ended (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    until BIGINT,
    PRIMARY KEY (user_id, device_id)
);

-- Where in the log a request was made. Of those of before it is unknown, and they ended with their devices.
ALTER TABLE to_device_requests ADD COLUMN position BIGINT NOT NULL DEFAULT 0;
